SELECT c.field, c.label, c.amount FROM shoal.counter_sets AS s
JOIN shoal.counters AS c ON c.queue_id = s.queue_id AND c.name = s.name AND c.generation = s.generation
WHERE s.queue_id = %(queue)s AND s.name = %(name)s AND c.queue_id = %(queue)s AND c.name = %(name)s
    AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
