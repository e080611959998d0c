-- The page first: with the last condition inside, a planner without statistics reads the whole log and sorts it.
WITH page AS MATERIALIZED (
    SELECT transaction, position, id, label, value, extract(epoch FROM at)::float8 AS at FROM shoal.records
    WHERE queue_id = %(queue)s AND log = %(log)s AND expires_at > clock_timestamp()
        AND (transaction, position) > (%(transaction)s::text::xid8, %(position)s::int8)
    ORDER BY transaction, position LIMIT %(limit)s
)
SELECT transaction::text, position, id, label, value, at FROM page
WHERE transaction < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY page.transaction, position
