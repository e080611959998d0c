-- Submitting from any language, inside the caller's own transaction:
--     SELECT shoal.submit('agent-tasks', '{"prompt": "Ship it.", "agent": "clerk", "meta": {"order": "7"}}');
-- `fields` are those of a task; the task's id comes back. The same idempotency_key gives its first task for a day.
CREATE FUNCTION shoal.submit(queue text, fields jsonb, run_at timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    number int;
    task uuid := gen_random_uuid();
    known uuid;
    named bytea := convert_to(coalesce(fields ->> 'idempotency_key', ''), 'UTF8');
    entry jsonb;
BEGIN
    IF btrim(coalesce(fields ->> 'prompt', '')) = '' THEN
        RAISE EXCEPTION 'a task needs a prompt' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO shoal.queues (name) SELECT queue
    WHERE NOT EXISTS (SELECT FROM shoal.queues WHERE name = queue) ON CONFLICT DO NOTHING;
    SELECT id INTO STRICT number FROM shoal.queues WHERE name = queue;
    IF named <> '' THEN
        IF octet_length(named) > 1000 THEN
            named := substring(named FROM 1 FOR 900) || '\x00'::bytea || sha256(named);
        END IF;
        INSERT INTO shoal.idempotency AS i (queue_id, key, task_id, expires_at)
        VALUES (number, named, task, clock_timestamp() + interval '1 day')
        ON CONFLICT (queue_id, key) DO UPDATE SET
            task_id = CASE WHEN i.expires_at <= clock_timestamp() THEN excluded.task_id ELSE i.task_id END,
            expires_at = CASE WHEN i.expires_at <= clock_timestamp() THEN excluded.expires_at ELSE i.expires_at END
        RETURNING task_id INTO known;
        IF known <> task THEN
            RETURN known;
        END IF;
    END IF;
    -- Every value as text, and `meta` spread flat: as entries are on every engine.
    SELECT jsonb_object_agg(field.key,
            CASE jsonb_typeof(field.value) WHEN 'string' THEN field.value ELSE to_jsonb(field.value::text) END)
    INTO entry
    FROM jsonb_each(
        jsonb_build_object('enqueued_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
        || coalesce(fields -> 'meta', '{}') || (fields - 'meta')
    ) AS field
    WHERE jsonb_typeof(field.value) <> 'null';
    INSERT INTO shoal.tasks (id, queue_id, state, lane, position, entry, due_at)
    VALUES (
        task, number, CASE WHEN run_at > clock_timestamp() THEN 2 ELSE 0 END,
        CASE fields ->> 'priority' WHEN 'high' THEN 1 WHEN 'low' THEN 3 ELSE 2 END, nextval('shoal.positions'),
        convert_to(entry::text, 'UTF8'), CASE WHEN run_at > clock_timestamp() THEN run_at END
    );
    PERFORM pg_notify(n.nspname || '.' || number || '.work', '')
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = 'shoal.tasks'::regclass;
    RETURN task;
END $$;
