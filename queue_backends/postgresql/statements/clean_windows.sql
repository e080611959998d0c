WITH gone AS (
    DELETE FROM shoal.window_amounts WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM shoal.window_amounts WHERE expires_at <= now()
        ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM gone
