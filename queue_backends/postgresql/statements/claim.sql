-- Take ready tasks, the most urgent first, each with a fresh lease under this call's token. One row at least comes
-- back: without a task, it tells how things stand.
WITH picked AS (
    SELECT id FROM shoal.tasks
    WHERE queue_id = %(queue)s AND state = 0
        AND NOT (SELECT paused FROM shoal.queues WHERE id = %(queue)s)
    ORDER BY lane, position
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE shoal.tasks AS t
    SET state = 1, token = %(token)s, worker = %(worker)s, deliveries = t.deliveries + 1,
        leased_at = clock_timestamp(),
        lease_until = clock_timestamp() + %(lease)s * interval '1 s',
        look_at = clock_timestamp() + %(lease)s * interval '1 s'
    WHERE t.id = ANY (ARRAY(SELECT id FROM picked))
    RETURNING t.id, t.entry, t.entry_no, t.attempt, t.next_attempt, t.fresh, t.deliveries, t.cancel_asked_at,
        t.lane, t.position
)
SELECT
    (SELECT paused FROM shoal.queues WHERE id = %(queue)s),
    (SELECT extract(epoch FROM due_at - now())::float8 FROM shoal.tasks
     WHERE queue_id = %(queue)s AND state = 2 ORDER BY due_at LIMIT 1),
    (SELECT extract(epoch FROM look_at - now())::float8 FROM shoal.tasks
     WHERE queue_id = %(queue)s AND state = 1 ORDER BY look_at LIMIT 1),
    taken.id, taken.entry, taken.entry_no, taken.attempt, taken.next_attempt, taken.fresh, taken.deliveries,
    taken.cancel_asked_at IS NOT NULL
FROM (VALUES (1)) AS one (row) LEFT JOIN taken ON true
ORDER BY taken.lane, taken.position
