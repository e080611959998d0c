-- How many waiting tasks there are, and which of these idempotency keys are known.
SELECT
    (SELECT coalesce(sum(amount), 0)::int8 FROM shoal.tallies WHERE queue_id = %(queue)s AND kind <= 4),
    ARRAY(
        SELECT key FROM shoal.idempotency
        WHERE queue_id = %(queue)s AND key = ANY (%(keys)s::bytea[]) AND expires_at > clock_timestamp()
    )
