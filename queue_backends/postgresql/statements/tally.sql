WITH old AS (
    DELETE FROM shoal.tallies WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM shoal.tallies WHERE queue_id = %(queue)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING kind, amount
)
INSERT INTO shoal.tallies (queue_id, kind, amount)
SELECT %(queue)s, kind, sum(amount) FROM old GROUP BY kind HAVING sum(amount) <> 0
RETURNING kind
