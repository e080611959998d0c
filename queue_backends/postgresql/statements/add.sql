-- Nothing comes back, and nothing is changed, if the sum would exceed the limit. The set's row is held first, so that
-- of many who add at once each sees what those before it have made.
WITH counted AS (
    INSERT INTO shoal.counter_sets AS s (queue_id, name, generation, expires_at)
    VALUES (
        %(queue)s, %(name)s, extract(epoch FROM clock_timestamp()) * 1000000,
        clock_timestamp() + %(ttl)s::float8 * interval '1 s'
    )
    ON CONFLICT (queue_id, name) DO UPDATE SET
        generation = CASE WHEN s.expires_at <= clock_timestamp() THEN excluded.generation ELSE s.generation END,
        expires_at = CASE
            WHEN s.expires_at <= clock_timestamp() OR excluded.expires_at IS NOT NULL THEN excluded.expires_at
            ELSE s.expires_at
        END
    RETURNING s.generation
)
INSERT INTO shoal.counters AS c (queue_id, name, field, label, generation, amount)
SELECT %(queue)s, %(name)s, %(field)s, %(label)s, generation, %(amount)s FROM counted
WHERE %(limit)s::int8 IS NULL OR %(amount)s <= %(limit)s OR EXISTS (
    SELECT 1 FROM shoal.counters WHERE queue_id = %(queue)s AND name = %(name)s AND field = %(field)s
)
ON CONFLICT (queue_id, name, field) DO UPDATE SET
    amount = excluded.amount + CASE WHEN c.generation = excluded.generation THEN c.amount ELSE 0 END,
    generation = excluded.generation
WHERE %(limit)s::int8 IS NULL
    OR excluded.amount + CASE WHEN c.generation = excluded.generation THEN c.amount ELSE 0 END <= %(limit)s
RETURNING amount
