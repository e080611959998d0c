SELECT 1 FROM shoal.results WHERE id = %(id)s AND queue_id = %(queue)s
