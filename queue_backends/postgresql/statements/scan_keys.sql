SELECT key, label, value FROM shoal.keys
WHERE queue_id = %(queue)s AND key >= %(prefix)s AND substring(key FROM 1 FOR %(size)s::int) = %(prefix)s
    AND (%(after)s::bytea IS NULL OR key > %(after)s)
    AND (expires_at IS NULL OR expires_at > clock_timestamp())
ORDER BY key LIMIT %(limit)s
