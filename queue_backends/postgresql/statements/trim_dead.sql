WITH gone AS (
    DELETE FROM shoal.dead_letters WHERE position = ANY (ARRAY(
        SELECT position FROM shoal.dead_letters
        WHERE queue_id = %(queue)s AND position < (
            SELECT position FROM shoal.dead_letters WHERE queue_id = %(queue)s
            ORDER BY position DESC OFFSET greatest(%(keep)s - 1, 0) LIMIT 1
        )
        ORDER BY position LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM gone
