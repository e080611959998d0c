WITH gone AS (
    DELETE FROM shoal.records WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM shoal.records WHERE expires_at <= now()
        ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM gone
