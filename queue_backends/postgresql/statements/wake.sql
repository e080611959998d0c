-- Make delayed tasks ready before their time.
WITH found AS (
    SELECT id FROM shoal.tasks
    WHERE queue_id = %(queue)s AND state = 2 AND id = ANY (%(ids)s::uuid[])
    ORDER BY id
    FOR UPDATE
)
UPDATE shoal.tasks AS t
SET state = 0, position = nextval('shoal.positions'), ready_at = clock_timestamp(), due_at = NULL
WHERE t.id = ANY (ARRAY(SELECT id FROM found))
RETURNING t.id
