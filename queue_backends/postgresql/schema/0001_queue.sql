-- Tasks on their way: in, out under a lease, and their ends.

CREATE TABLE shoal.queues (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    key uuid NOT NULL DEFAULT gen_random_uuid(), -- tells this queue from one of the same name and number elsewhere
    paused boolean NOT NULL DEFAULT false
);

CREATE SEQUENCE shoal.positions;

-- Waiting and running tasks only: an ended one's row is deleted, so that nothing here grows with what has ended.
-- A renewal changes no indexed column, and each page has room for all of its rows once more, since those of one worker
-- are renewed together: so they stay in their pages, and no index grows by them.
CREATE TABLE shoal.tasks (
    id uuid PRIMARY KEY,
    queue_id int NOT NULL,
    state smallint NOT NULL,            -- 0 ready, 1 running, 2 delayed
    lane smallint NOT NULL,             -- 0 brought back, 1 high, 2 normal, 3 low; all of one go before the next
    position bigint NOT NULL,           -- order within a lane
    entry bytea NOT NULL,               -- JSON object of texts: the task's fields, as on every other engine
    entry_no int NOT NULL DEFAULT 0,    -- how often it was brought back
    attempt int,                        -- failed attempts; NULL: as its entry says
    next_attempt int NOT NULL DEFAULT 0,
    fresh boolean NOT NULL DEFAULT true,-- no worker ever gave it back
    deliveries int NOT NULL DEFAULT 0,  -- of this entry
    spent bytea,                        -- JSON: what it has used so far
    ready_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz,                 -- while it is delayed
    token uuid,                         -- the fence, while it runs; new with each delivery
    worker text,
    leased_at timestamptz,
    lease_until timestamptz,            -- renewals move this one, which no index has
    look_at timestamptz,                -- at or before lease_until: when to look whether the lease has run out
    cancel_asked_at timestamptz
) WITH (
    fillfactor = 45,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000
);
CREATE INDEX tasks_ready ON shoal.tasks (queue_id, lane, position) WHERE state = 0;
CREATE INDEX tasks_running ON shoal.tasks (queue_id, look_at) WHERE state = 1;
CREATE INDEX tasks_delayed ON shoal.tasks (queue_id, due_at) WHERE state = 2;
CREATE INDEX tasks_to_cancel ON shoal.tasks (queue_id, cancel_asked_at) WHERE cancel_asked_at IS NOT NULL;

CREATE TABLE shoal.results (
    id uuid PRIMARY KEY,
    queue_id int NOT NULL,
    state smallint NOT NULL,            -- 0 succeeded, 1 failed, 2 cancelled
    ended_at timestamptz NOT NULL,
    token uuid,                         -- of the delivery that ended it
    data bytea NOT NULL                 -- the TaskResult, JSON
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX results_ended ON shoal.results (queue_id, state, ended_at);

CREATE TABLE shoal.dead_letters (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id int NOT NULL,
    task_id uuid NOT NULL,
    error bytea NOT NULL,
    entry bytea NOT NULL,
    entry_no int NOT NULL,
    lane smallint NOT NULL,
    attempt int NOT NULL,
    next_attempt int NOT NULL,
    is_whole boolean NOT NULL,          -- false: the entry was too large to be kept
    dead_at timestamptz NOT NULL
);
CREATE INDEX dead_letters_newest ON shoal.dead_letters (queue_id, position);

CREATE TABLE shoal.idempotency (
    queue_id int NOT NULL,
    key bytea NOT NULL,
    task_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (queue_id, key)
);
CREATE INDEX idempotency_expiry ON shoal.idempotency (expires_at);

-- How many tasks are in which state, as a sum of changes: nobody waits for a row that another transaction has changed.
-- Workers add the rows up again and again, so that there are never many.
CREATE TABLE shoal.tallies (
    queue_id int NOT NULL,
    kind smallint NOT NULL,             -- 0-3 ready, by lane; 4 delayed; 5 running; 6 dead letters
    amount bigint NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX tallies_queue ON shoal.tallies (queue_id);

CREATE FUNCTION shoal.kind_of(state smallint, lane smallint) RETURNS smallint LANGUAGE sql IMMUTABLE
    AS $$ SELECT CASE state WHEN 0 THEN lane WHEN 1 THEN 5::smallint ELSE 4::smallint END $$;

CREATE FUNCTION shoal.tally_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO shoal.tallies
        SELECT queue_id, shoal.kind_of(state, lane), count(*) FROM new_rows GROUP BY 1, 2;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO shoal.tallies
        SELECT queue_id, shoal.kind_of(state, lane), -count(*) FROM old_rows GROUP BY 1, 2;
    ELSE
        INSERT INTO shoal.tallies
        SELECT queue_id, kind, sum(amount) FROM (
            SELECT queue_id, shoal.kind_of(state, lane) AS kind, 1 AS amount FROM new_rows
            UNION ALL
            SELECT queue_id, shoal.kind_of(state, lane), -1 FROM old_rows
        ) AS changes GROUP BY 1, 2 HAVING sum(amount) <> 0;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tally_new AFTER INSERT ON shoal.tasks
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shoal.tally_tasks();
CREATE TRIGGER tally_changed AFTER UPDATE ON shoal.tasks
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shoal.tally_tasks();
CREATE TRIGGER tally_gone AFTER DELETE ON shoal.tasks
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION shoal.tally_tasks();

CREATE FUNCTION shoal.tally_dead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO shoal.tallies SELECT queue_id, 6, count(*) FROM new_rows GROUP BY 1;
    ELSE
        INSERT INTO shoal.tallies SELECT queue_id, 6, -count(*) FROM old_rows GROUP BY 1;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tally_new AFTER INSERT ON shoal.dead_letters
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shoal.tally_dead();
CREATE TRIGGER tally_gone AFTER DELETE ON shoal.dead_letters
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION shoal.tally_dead();
