WITH old AS (
    DELETE FROM shoal.window_amounts
    WHERE queue_id = %(queue)s AND name = %(name)s AND at < now() - %(window)s * interval '1 s'
)
SELECT coalesce(sum(amount), 0)::int8 FROM shoal.window_amounts
WHERE queue_id = %(queue)s AND name = %(name)s AND at >= now() - %(window)s * interval '1 s'
