SELECT id, entry, entry_no, attempt, next_attempt, fresh, deliveries, state, worker,
    extract(epoch FROM clock_timestamp() - leased_at)::float8, extract(epoch FROM due_at)::float8
FROM shoal.tasks
WHERE queue_id = %(queue)s AND state = 0 ORDER BY lane, position LIMIT %(limit)s
