WITH written AS (
    INSERT INTO shoal.keys AS k (queue_id, key, label, value, expires_at)
    VALUES (%(queue)s, %(key)s, %(label)s, %(value)s, clock_timestamp() + %(ttl)s::float8 * interval '1 s')
    ON CONFLICT (queue_id, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
    WHERE k.expires_at <= clock_timestamp()
    RETURNING 1
)
SELECT pg_notify(%(channel)s, %(change)s) FROM written
