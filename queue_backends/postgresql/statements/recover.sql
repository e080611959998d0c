-- What was taken under a token whose reply never came.
SELECT id, entry, entry_no, attempt, next_attempt, fresh, deliveries, cancel_asked_at IS NOT NULL, token
FROM shoal.tasks
WHERE queue_id = %(queue)s AND state = 1 AND token = ANY (%(tokens)s::uuid[])
ORDER BY lane, position
