SELECT key FROM shoal.queues WHERE id = %(queue)s
