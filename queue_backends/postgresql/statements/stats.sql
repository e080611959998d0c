SELECT
    (SELECT paused FROM shoal.queues WHERE id = %(queue)s),
    (SELECT extract(epoch FROM clock_timestamp() - min(head.ready_at))::float8
     FROM (VALUES (0), (1), (2), (3)) AS lanes (lane) CROSS JOIN LATERAL (
        SELECT ready_at FROM shoal.tasks
        WHERE queue_id = %(queue)s AND state = 0 AND lane = lanes.lane ORDER BY position LIMIT 1
     ) AS head),
    coalesce(array_agg(kind), '{}'), coalesce(array_agg(amount), '{}')
FROM (
    SELECT kind, sum(amount)::int8 AS amount FROM shoal.tallies WHERE queue_id = %(queue)s GROUP BY kind
) AS sums
