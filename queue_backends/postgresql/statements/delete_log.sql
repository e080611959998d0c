-- Forget all records of a log.
WITH gone AS (
    DELETE FROM shoal.records WHERE queue_id = %(queue)s AND log = %(log)s
    RETURNING 1
)
SELECT count(*) FROM gone
