-- Bring a dead letter back: the same task, as if nobody had tried it, with a new stream of chunks.
WITH letter AS (
    DELETE FROM shoal.dead_letters
    WHERE position = %(letter)s AND queue_id = %(queue)s AND is_whole
    RETURNING task_id, entry, entry_no, lane, next_attempt
), forgotten AS (
    DELETE FROM shoal.results WHERE id = ANY (ARRAY(SELECT task_id FROM letter))
), old_stream AS (
    UPDATE shoal.streams SET task = NULL, expires_at = clock_timestamp()
    WHERE queue_id = %(queue)s AND task = ANY (ARRAY(SELECT convert_to(task_id::text, 'UTF8') FROM letter))
)
INSERT INTO shoal.tasks (id, queue_id, state, lane, position, entry, entry_no, attempt, next_attempt, fresh)
SELECT task_id, %(queue)s, 0, lane, nextval('shoal.positions'), entry, entry_no + 1, 0, next_attempt,
    false
FROM letter
ON CONFLICT (id) DO NOTHING
RETURNING id
