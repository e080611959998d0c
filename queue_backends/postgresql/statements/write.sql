-- Group commit: how runs ended, or how far they have come, each whole or not at all, under its delivery's fence. Chunks
-- and records without an owner are written by the same statement.
--
-- kind: 0 the run goes on, 1 it has ended, 2 it is given up, 3 it is given back, 4 chunks without a fence.
-- A stream's numbers and sizes come from its writer, who alone writes it: a call that is repeated because its reply got
-- lost writes the same rows again, which are there already.
WITH outcome AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)s::uuid[], %(tokens)s::uuid[], %(kinds)s::int8[], %(tasks)s::bytea[], %(results)s::bytea[],
        %(states)s::int8[], %(errors)s::bytea[], %(letters)s::bytea[], %(attempts)s::int8[],
        %(next_attempts)s::int8[], %(lanes)s::int8[], %(delays)s::float8[], %(spents)s::bytea[],
        %(first_seqs)s::int8[], %(next_seqs)s::int8[], %(end_bytes)s::int8[], %(finals)s::bool[],
        %(oldest_seqs)s::int8[], %(cut_seqs)s::int8[], %(cut_bytes)s::int8[]
    ) WITH ORDINALITY AS o (
        id, token, kind, task, result, state, error, letter, attempt, next_attempt, lane, delay, spent,
        first_seq, next_seq, end_byte, final, oldest_seq, cut_seq, cut_byte, ord
    )
), held AS MATERIALIZED (
    SELECT o.ord, t.id, t.entry, t.entry_no, t.spent, o.kind = 3 AND t.cancel_asked_at IS NOT NULL AS to_cancel
    FROM outcome AS o JOIN shoal.tasks AS t ON t.id = o.id
    WHERE t.id = ANY (%(ids)s::uuid[]) AND t.token = o.token  -- which stands in running tasks only
    ORDER BY t.id
    FOR UPDATE OF t
), owned AS MATERIALIZED (
    SELECT o.*, held.entry, held.entry_no FROM outcome AS o JOIN held USING (ord) WHERE NOT held.to_cancel
), writer AS MATERIALIZED (
    SELECT ord, task, first_seq, next_seq, end_byte, final, oldest_seq, cut_seq, cut_byte FROM owned
    UNION ALL
    SELECT ord, task, first_seq, next_seq, end_byte, final, oldest_seq, cut_seq, cut_byte FROM outcome WHERE kind = 4
), gone AS (
    DELETE FROM shoal.tasks WHERE id = ANY (ARRAY(SELECT id FROM owned WHERE kind IN (1, 2)))
), ended AS (
    INSERT INTO shoal.results (id, queue_id, state, ended_at, token, data)
    SELECT id, %(queue)s, state, clock_timestamp(), token, result FROM owned WHERE kind IN (1, 2)
    ON CONFLICT (id) DO UPDATE SET
        state = excluded.state, ended_at = excluded.ended_at, token = excluded.token, data = excluded.data
), buried AS (
    INSERT INTO shoal.dead_letters
        (queue_id, task_id, error, entry, entry_no, lane, attempt, next_attempt, is_whole, dead_at)
    SELECT %(queue)s, id, error, coalesce(letter, entry), entry_no, lane, attempt, next_attempt, letter IS NULL,
        clock_timestamp()
    FROM owned WHERE kind = 2 ORDER BY ord
), back AS (
    UPDATE shoal.tasks AS t
    SET state = CASE WHEN o.delay > 0 THEN 2 ELSE 0 END,
        lane = o.lane, position = nextval('shoal.positions'), ready_at = clock_timestamp(),
        due_at = CASE WHEN o.delay > 0 THEN clock_timestamp() + o.delay * interval '1 s' END,
        entry_no = t.entry_no + 1, attempt = o.attempt, next_attempt = o.next_attempt,
        spent = coalesce(o.spent, t.spent), deliveries = 0, fresh = false, token = NULL, worker = NULL,
        leased_at = NULL, lease_until = NULL, look_at = NULL
    FROM owned AS o
    WHERE t.id = o.id AND o.kind = 3 AND t.id = ANY (ARRAY(SELECT id FROM owned WHERE kind = 3))
), stream AS (
    INSERT INTO shoal.streams AS s (queue_id, task, next_seq, end_byte, ended, expires_at)
    SELECT %(queue)s, task, next_seq, end_byte, final,
        clock_timestamp() + CASE WHEN final THEN %(keep_ended)s ELSE 1.0625 * %(keep_open)s END * interval '1 s'
    FROM writer WHERE next_seq > first_seq ORDER BY task
    ON CONFLICT (queue_id, task) DO UPDATE SET
        next_seq = greatest(s.next_seq, excluded.next_seq),
        end_byte = greatest(s.end_byte, excluded.end_byte),
        ended = s.ended OR excluded.ended,
        expires_at = CASE
            WHEN s.ended OR NOT excluded.ended AND s.expires_at > clock_timestamp() + %(keep_open)s * interval '1 s'
            THEN s.expires_at ELSE excluded.expires_at
        END
    RETURNING s.id, s.task
), cut AS MATERIALIZED (
    SELECT w.ord, stream.id, w.oldest_seq,
        greatest(w.cut_seq, coalesce(
            (SELECT k.seq FROM shoal.chunks AS k
             WHERE k.stream_id = stream.id AND k.seq >= w.oldest_seq AND k.end_byte > w.cut_byte
             ORDER BY k.seq LIMIT 1),
            w.first_seq
        )) AS keep_from
    FROM writer AS w JOIN stream ON stream.task = w.task WHERE w.cut_seq IS NOT NULL
), trimmed AS (
    DELETE FROM shoal.chunks AS k USING cut
    WHERE k.stream_id = cut.id AND k.seq >= cut.oldest_seq AND k.seq < cut.keep_from
), written AS (
    INSERT INTO shoal.chunks (stream_id, seq, end_byte, data)
    SELECT stream.id, c.seq, c.end_byte, c.data
    FROM unnest(%(chunk_owners)s::int8[], %(chunk_seqs)s::int8[], %(chunk_ends)s::int8[], %(chunk_data)s::bytea[])
        AS c (owner, seq, end_byte, data)
    JOIN writer AS w ON w.ord = c.owner JOIN stream ON stream.task = w.task
    ORDER BY 1, 2
    ON CONFLICT DO NOTHING
), chosen AS MATERIALIZED (
    SELECT DISTINCT ON (log, id) * FROM unnest(
        %(record_owners)s::int8[], %(record_logs)s::bytea[], %(record_ids)s::bytea[], %(record_labels)s::bytea[],
        %(record_values)s::bytea[], %(record_keeps)s::float8[]
    ) WITH ORDINALITY AS given (owner, log, id, label, value, keep, ord)
    WHERE owner = 0 OR owner IN (SELECT owned.ord FROM owned)
    ORDER BY log, id, ord
), fresh AS (
    INSERT INTO shoal.records AS r (queue_id, log, id, label, value, at, expires_at)
    SELECT %(queue)s, log, id, label, value, clock_timestamp(), clock_timestamp() + keep * interval '1 s'
    FROM chosen ORDER BY ord
    ON CONFLICT (queue_id, log, id) DO UPDATE SET
        label = excluded.label, value = excluded.value, at = excluded.at, expires_at = excluded.expires_at,
        position = excluded.position, transaction = excluded.transaction
    WHERE r.expires_at <= clock_timestamp()
    RETURNING r.log, r.id
), amounts AS MATERIALIZED (
    SELECT a.name, a.field, a.label, sum(a.amount)::int8 AS amount, max(chosen.keep) AS keep
    FROM unnest(
        %(amount_records)s::int8[], %(amount_names)s::bytea[], %(amount_fields)s::bytea[],
        %(amount_labels)s::bytea[], %(amounts)s::int8[]
    ) AS a (record, name, field, label, amount)
    JOIN chosen ON chosen.ord = a.record
    JOIN fresh ON fresh.log = chosen.log AND fresh.id = chosen.id
    GROUP BY 1, 2, 3
), counted AS (
    INSERT INTO shoal.counter_sets AS s (queue_id, name, generation, expires_at)
    SELECT %(queue)s, name, extract(epoch FROM clock_timestamp()) * 1000000,
        clock_timestamp() + 1.0625 * max(keep) * interval '1 s'
    FROM amounts GROUP BY name ORDER BY name
    ON CONFLICT (queue_id, name) DO UPDATE SET
        generation = CASE WHEN s.expires_at <= clock_timestamp() THEN excluded.generation ELSE s.generation END,
        expires_at = CASE
            WHEN s.expires_at > clock_timestamp() + (excluded.expires_at - clock_timestamp()) / 1.0625
            THEN s.expires_at ELSE excluded.expires_at
        END
    RETURNING s.name, s.generation
), added AS (
    INSERT INTO shoal.counters AS c (queue_id, name, field, label, generation, amount)
    SELECT %(queue)s, a.name, a.field, a.label, counted.generation, a.amount
    FROM amounts AS a JOIN counted ON counted.name = a.name ORDER BY 2, 3
    ON CONFLICT (queue_id, name, field) DO UPDATE SET
        amount = excluded.amount + CASE WHEN c.generation = excluded.generation THEN c.amount ELSE 0 END,
        generation = excluded.generation
)
SELECT o.ord,
    CASE
        WHEN o.kind = 4 OR held.ord IS NOT NULL AND NOT held.to_cancel THEN 'written'
        WHEN held.to_cancel THEN 'cancel'
        WHEN o.result IS NOT NULL AND EXISTS (
            SELECT 1 FROM shoal.results AS r WHERE r.id = o.id AND r.token = o.token AND r.data = o.result
        ) THEN 'ended'
        ELSE 'lost'
    END,
    held.spent, cut.keep_from, (SELECT count(*) FROM fresh)
FROM (VALUES (1)) AS one (row)
    LEFT JOIN outcome AS o ON true LEFT JOIN held ON held.ord = o.ord LEFT JOIN cut ON cut.ord = o.ord
ORDER BY o.ord
