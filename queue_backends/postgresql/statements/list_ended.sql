SELECT ended.data FROM unnest(%(states)s::int8[]) AS wanted (state) CROSS JOIN LATERAL (
    SELECT data, ended_at FROM shoal.results
    WHERE queue_id = %(queue)s AND state = wanted.state
        AND ended_at > clock_timestamp() - %(keep)s * interval '1 s'
    ORDER BY ended_at DESC LIMIT %(limit)s
) AS ended
ORDER BY ended.ended_at DESC LIMIT %(limit)s
