WITH written AS (
    UPDATE shoal.keys SET value = %(value)s, expires_at = clock_timestamp() + %(ttl)s::float8 * interval '1 s'
    WHERE queue_id = %(queue)s AND key = %(key)s AND value = %(expected)s
        AND (expires_at IS NULL OR expires_at > clock_timestamp())
        AND %(label)s::bytea IS NOT DISTINCT FROM label
    RETURNING 1
)
SELECT pg_notify(%(channel)s, %(change)s) FROM written
