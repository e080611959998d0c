WITH gone AS (
    DELETE FROM shoal.results WHERE id = ANY (ARRAY(
        SELECT old.id FROM (VALUES (0), (1), (2)) AS states (state) CROSS JOIN LATERAL (
            SELECT id FROM shoal.results
            WHERE queue_id = %(queue)s AND state = states.state AND ended_at <= now() - %(keep)s * interval '1 s'
            ORDER BY ended_at LIMIT %(limit)s
        ) AS old
        LIMIT %(limit)s
    ))
    RETURNING 1
)
SELECT count(*) FROM gone
