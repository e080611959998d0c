-- By id: `+ 0` keeps the plan from the index by queue and time.
SELECT id, data FROM shoal.results
WHERE id = ANY (%(ids)s::uuid[]) AND queue_id + 0 = %(queue)s AND ended_at > clock_timestamp() - %(keep)s * interval '1 s'
