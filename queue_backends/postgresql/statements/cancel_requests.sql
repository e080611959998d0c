SELECT id, extract(epoch FROM cancel_asked_at)::float8 FROM shoal.tasks
WHERE queue_id = %(queue)s AND cancel_asked_at IS NOT NULL AND cancel_asked_at >= to_timestamp(%(since)s)
ORDER BY cancel_asked_at LIMIT %(limit)s
