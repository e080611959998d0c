SELECT id, label, value, extract(epoch FROM at)::float8 FROM shoal.records
WHERE queue_id = %(queue)s AND log = %(log)s AND expires_at > clock_timestamp()
ORDER BY transaction, position LIMIT %(limit)s
