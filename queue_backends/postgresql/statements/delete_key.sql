WITH gone AS (
    DELETE FROM shoal.keys WHERE queue_id = %(queue)s AND key = %(key)s
    RETURNING expires_at IS NULL OR expires_at > clock_timestamp() AS lived
)
SELECT coalesce(bool_or(lived), false), (SELECT pg_notify(%(channel)s, %(change)s)) FROM gone
