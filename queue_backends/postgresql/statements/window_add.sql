INSERT INTO shoal.window_amounts (queue_id, name, member, amount, at, expires_at)
VALUES (
    %(queue)s, %(name)s, %(member)s, %(amount)s, clock_timestamp(), clock_timestamp() + %(keep)s * interval '1 s'
)
ON CONFLICT (queue_id, name, member) DO NOTHING
RETURNING amount
