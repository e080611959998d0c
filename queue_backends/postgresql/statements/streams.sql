-- Where streams end and begin.
SELECT s.task, s.next_seq, s.end_byte,
    coalesce(oldest.seq, s.next_seq), coalesce(oldest.end_byte - length(oldest.data), s.end_byte)
FROM shoal.streams AS s LEFT JOIN LATERAL (
    SELECT seq, end_byte, data FROM shoal.chunks WHERE stream_id = s.id ORDER BY seq LIMIT 1
) AS oldest ON true
WHERE s.queue_id = %(queue)s AND s.task = ANY (%(tasks)s::bytea[])
