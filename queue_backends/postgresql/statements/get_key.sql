SELECT value FROM shoal.keys
WHERE queue_id = %(queue)s AND key = %(key)s AND (expires_at IS NULL OR expires_at > clock_timestamp())
