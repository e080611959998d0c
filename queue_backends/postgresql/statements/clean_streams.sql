-- Chunks first, the stream when it has none left.
WITH old AS (
    SELECT id FROM shoal.streams WHERE expires_at <= now()
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), doomed AS (
    SELECT chunks.stream_id, chunks.seq FROM old
    CROSS JOIN LATERAL (
        SELECT stream_id, seq FROM shoal.chunks WHERE stream_id = old.id ORDER BY seq LIMIT 10 * %(limit)s
    ) AS chunks
    LIMIT 10 * %(limit)s
), chunks AS (
    DELETE FROM shoal.chunks AS c USING doomed
    WHERE c.stream_id = doomed.stream_id AND c.seq = doomed.seq AND c.stream_id = ANY (ARRAY(SELECT stream_id FROM doomed))
    RETURNING 1
), empty AS (
    DELETE FROM shoal.streams WHERE id = ANY (ARRAY(
        SELECT id FROM old WHERE (SELECT count(*) FROM doomed) < 10 * %(limit)s
    ))
    RETURNING 1
)
SELECT greatest((SELECT count(*) FROM empty), (SELECT count(*) / 10 FROM chunks))
