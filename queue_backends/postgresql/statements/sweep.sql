-- Make ready what is due and, with `reclaim`, what has lost its lease. A lease that was renewed is looked at again when
-- it may have run out: so a renewal itself needs no index.
WITH due AS (
    SELECT id, lane, due_at FROM shoal.tasks
    WHERE queue_id = %(queue)s AND state = 2 AND due_at <= now()
    ORDER BY due_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), numbered AS (
    SELECT id, nextval('shoal.positions') AS position FROM (SELECT id FROM due ORDER BY due_at) AS sorted
), woken AS (
    UPDATE shoal.tasks AS t
    SET state = 0, position = numbered.position, ready_at = t.due_at, due_at = NULL
    FROM numbered
    WHERE t.id = numbered.id AND t.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING t.id
), looked AS (
    SELECT id, lease_until FROM shoal.tasks
    WHERE %(reclaim)s AND queue_id = %(queue)s AND state = 1 AND look_at <= now()
    ORDER BY look_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), renewed AS (
    UPDATE shoal.tasks AS t SET look_at = t.lease_until
    WHERE t.id = ANY (ARRAY(SELECT id FROM looked WHERE lease_until > now()))
), lost AS (
    UPDATE shoal.tasks AS t
    SET state = 0, lane = 0, position = nextval('shoal.positions'), token = NULL, worker = NULL, leased_at = NULL,
        lease_until = NULL, look_at = NULL, ready_at = now()
    WHERE t.id = ANY (ARRAY(SELECT id FROM looked WHERE lease_until <= now()))
)
SELECT (SELECT count(*) FROM woken), (SELECT count(*) FROM looked)
