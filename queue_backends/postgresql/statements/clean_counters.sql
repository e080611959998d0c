WITH gone AS (
    DELETE FROM shoal.counter_sets WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM shoal.counter_sets WHERE expires_at <= now()
        ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING queue_id, name, generation
), fields AS (
    DELETE FROM shoal.counters AS c USING gone
    WHERE c.queue_id = gone.queue_id AND c.name = gone.name AND c.generation = gone.generation
        AND c.name = ANY (ARRAY(SELECT name FROM gone))
)
SELECT count(*) FROM gone
