WITH made AS (
    INSERT INTO shoal.queues (name) SELECT %(name)s
    WHERE NOT EXISTS (SELECT 1 FROM shoal.queues WHERE name = %(name)s)
    ON CONFLICT (name) DO NOTHING
    RETURNING id, key
)
SELECT id, key FROM made UNION ALL SELECT id, key FROM shoal.queues WHERE name = %(name)s
