DELETE FROM shoal.dead_letters WHERE queue_id = %(queue)s AND position = ANY (%(letters)s::int8[]) RETURNING position
