-- Extend leases whose fence holds; says which, and whether their cancel was asked for. A token stands in running tasks
-- only; to ask for their state as well would let the plan go through all that run.
WITH held AS (
    SELECT t.id FROM unnest(%(ids)s::uuid[], %(tokens)s::uuid[]) AS given (id, token)
    JOIN shoal.tasks AS t ON t.id = given.id
    WHERE t.id = ANY (%(ids)s::uuid[]) AND t.token = given.token
    ORDER BY t.id
    FOR UPDATE OF t
)
UPDATE shoal.tasks AS t
SET leased_at = clock_timestamp(), lease_until = clock_timestamp() + %(lease)s * interval '1 s'
WHERE t.id = ANY (ARRAY(SELECT id FROM held))
RETURNING t.id, t.token, t.cancel_asked_at IS NOT NULL
