WITH gone AS (
    DELETE FROM shoal.keys
    WHERE queue_id = %(queue)s AND key = %(key)s AND value = %(expected)s
        AND (expires_at IS NULL OR expires_at > clock_timestamp())
    RETURNING 1
)
SELECT pg_notify(%(channel)s, %(change)s) FROM gone
