-- A page of chunks, and how their stream and task stand. One row at least comes back.
WITH stream AS (
    SELECT id, next_seq, ended FROM shoal.streams
    WHERE queue_id = %(queue)s AND task = %(task)s AND expires_at > clock_timestamp()
)
SELECT stream.next_seq, stream.ended,
    stream.id IS NULL AND EXISTS (SELECT 1 FROM shoal.results WHERE id = %(id)s),
    stream.id IS NULL AND EXISTS (SELECT 1 FROM shoal.tasks WHERE id = %(id)s),
    chunk.data
FROM (VALUES (1)) AS one (row) LEFT JOIN stream ON true LEFT JOIN LATERAL (
    SELECT seq, data FROM shoal.chunks WHERE stream_id = stream.id AND seq > %(after)s ORDER BY seq LIMIT %(limit)s
) AS chunk ON true
ORDER BY chunk.seq
