-- Accept tasks. Their ids are the submitter's, so that a call whose reply got lost can be repeated: a task that is
-- there, or has ended already, is not added again. A known idempotency key gives its first task's id.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)s::uuid[], %(lanes)s::int8[], %(due)s::float8[], %(keys)s::bytea[], %(entries)s::bytea[]
    ) WITH ORDINALITY AS g (id, lane, due, key, entry, ord)
), known AS (
    INSERT INTO shoal.idempotency AS i (queue_id, key, task_id, expires_at)
    SELECT %(queue)s, key, id, clock_timestamp() + %(keep)s * interval '1 s'
    FROM given WHERE key IS NOT NULL ORDER BY key
    ON CONFLICT (queue_id, key) DO UPDATE SET
        task_id = CASE WHEN i.expires_at <= clock_timestamp() THEN excluded.task_id ELSE i.task_id END,
        expires_at = CASE WHEN i.expires_at <= clock_timestamp() THEN excluded.expires_at ELSE i.expires_at END
    RETURNING key, task_id
), added AS (
    INSERT INTO shoal.tasks (id, queue_id, state, lane, position, entry, due_at)
    SELECT id, %(queue)s, state, lane, nextval('shoal.positions'), entry, due_at
    FROM (
        SELECT given.id, given.lane, given.entry,
            CASE WHEN due > extract(epoch FROM clock_timestamp()) THEN 2 ELSE 0 END AS state,
            CASE WHEN due > extract(epoch FROM clock_timestamp()) THEN to_timestamp(due) END AS due_at
        FROM given LEFT JOIN known ON known.key = given.key
        WHERE (known.task_id IS NULL OR known.task_id = given.id)
            AND NOT EXISTS (
                SELECT 1 FROM shoal.results WHERE results.id = given.id AND results.id = ANY (%(ids)s::uuid[])
            )
        ORDER BY ord
    ) AS fresh
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT coalesce(known.task_id, given.id), (SELECT count(*) FROM added)
FROM given LEFT JOIN known ON known.key = given.key
ORDER BY given.ord
