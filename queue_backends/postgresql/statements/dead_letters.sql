SELECT position, task_id, error, entry, attempt, extract(epoch FROM dead_at)::float8 FROM shoal.dead_letters
WHERE queue_id = %(queue)s ORDER BY position DESC LIMIT %(limit)s
