UPDATE shoal.queues SET paused = %(paused)s WHERE id = %(queue)s RETURNING id
