-- Take a waiting task out of everybody's reach, as the delivery of whoever ends it in this transaction; of a running
-- one, note that its end was asked for.
WITH found AS (
    SELECT id, state FROM shoal.tasks WHERE id = %(id)s AND queue_id = %(queue)s FOR UPDATE
)
UPDATE shoal.tasks AS t
SET cancel_asked_at = CASE WHEN found.state = 1 THEN clock_timestamp() END,
    state = 1, token = CASE WHEN found.state = 1 THEN t.token ELSE %(token)s END
FROM found WHERE t.id = found.id AND t.id = %(id)s
RETURNING t.id, t.entry, t.entry_no, t.attempt, t.next_attempt, t.fresh, t.deliveries, true, found.state = 1, t.spent
