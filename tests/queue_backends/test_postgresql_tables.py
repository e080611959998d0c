"""What the tables cost: plans that do not grow with what waits or has ended, renewals that touch no index, and rows
that go when their time is over."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from queue_backends import Ack, BackendOptions, ChunkBatch, LogRecord, Task, TaskState, open_backend
from queue_backends.conformance.support import (
    FINAL,
    all_chunks,
    contents,
    done,
    eventually,
    iterating,
    publish,
    pull_one,
    pull_some,
    submit,
    text,
)
from queue_backends.errors import TaskNotFound
from queue_backends.postgresql import cleaning, statements
from queue_backends.postgresql.arrays import Bytes, Ints, Uuids
from queue_backends.postgresql.backend import PostgresqlBackend
from queue_backends.postgresql.names import key_of, label_of, name_of
from queue_backends.postgresql.sessions import connect
from tests.postgresql_servers import PostgresqlServer

MANY = 10_000


async def _opened(server: PostgresqlServer, stream: str, options: BackendOptions, schema: str) -> PostgresqlBackend:
    backend = await open_backend(server.url(stream, schema=schema), options)
    assert isinstance(backend, PostgresqlBackend)
    return backend


@pytest.fixture
async def backend(postgresql_server: PostgresqlServer, stream: str) -> AsyncIterator[PostgresqlBackend]:
    """A fresh queue in a schema of its own, so that what is counted there is the test's."""
    schema = f"s_{uuid.uuid4().hex[:12]}"
    async with await _opened(postgresql_server, stream, BackendOptions(), schema) as opened:
        yield opened


@pytest.fixture
def rows(postgresql_server: PostgresqlServer, backend: PostgresqlBackend) -> Iterator[psycopg.Connection[Any]]:
    """A look into the backend's schema."""
    with postgresql_server.connect() as connection:
        connection.execute(f"SET search_path = {backend._connections.address.schema}".encode())
        yield connection


def _count(rows: psycopg.Connection[Any], table: str) -> int:
    found = rows.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert found is not None
    return int(found[0])


_FILL = """
INSERT INTO tasks (id, queue_id, state, lane, position, entry, due_at, token, look_at, lease_until)
SELECT gen_random_uuid(), {queue}, n % 10 / 9 + n % 100 / 99, 1 + n % 3, n, '{{"prompt": "x"}}',
    CASE WHEN n % 100 = 99 THEN now() + interval '1 h' END, gen_random_uuid(),
    now() + interval '1 h', now() + interval '1 h'
FROM generate_series(1, 10 * {many}) AS n;
INSERT INTO results (id, queue_id, state, ended_at, data)
SELECT gen_random_uuid(), {queue}, n % 3, now() - n * interval '1 ms', '{{}}' FROM generate_series(1, {many}) AS n;
INSERT INTO streams (queue_id, task, next_seq, end_byte, ended, expires_at)
SELECT {queue}, n::text::bytea, 10, 100, true, now() + interval '1 h' FROM generate_series(1, {many}) AS n;
INSERT INTO chunks (stream_id, seq, end_byte, data)
SELECT n / 10, n % 10, n, 'x' FROM generate_series(1, {many}) AS n;
INSERT INTO keys (queue_id, key, value, expires_at)
SELECT {queue}, n::text::bytea, 'x', now() + interval '1 h' FROM generate_series(1, {many}) AS n;
INSERT INTO records (queue_id, log, id, value, at, expires_at)
SELECT {queue}, (n % 10)::text::bytea, n::text::bytea, 'x', now(), now() + interval '1 h'
FROM generate_series(1, {many}) AS n;
INSERT INTO idempotency (queue_id, key, task_id, expires_at)
SELECT {queue}, n::text::bytea, gen_random_uuid(), now() + interval '1 h' FROM generate_series(1, {many}) AS n;
"""

_PARAMETERS: dict[str, Any] = {
    "limit": 10,
    "token": uuid.uuid4(),
    "tokens": Uuids([uuid.uuid4()]),
    "worker": "w",
    "lease": 30.0,
    "keep": 3600.0,
    "reclaim": True,
    "ids": Uuids([uuid.uuid4()]),
    "id": uuid.uuid4(),
    "task": b"17",
    "tasks": Bytes([b"17"]),
    "after": 3,
    "key": b"17",
    "log": b"7",
    "name": b"7",
    "window": 60.0,
    "prefix": b"17",
    "size": 2,
    "states": Ints([0, 1, 2]),
    "since": 0.0,
    "letter": 1,
    "letters": Ints([1]),
    "keys": Bytes([b"17"]),
}
_READ_OR_TAKE = (
    "claim",
    "sweep",
    "renew",
    "take_to_end",
    "has_ended",
    "results",
    "status",
    "streams",
    "read_chunks",
    "list_running",
    "list_ready",
    "list_delayed",
    "list_ended",
    "stats",
    "dead_letters",
    "requeue",
    "known_keys",
    "get_key",
    "scan_keys",
    "read_log",
    "read_log_newest",
    "read_on",
    "cancel_requests",
    "window_total",
    "counters",
    "clean_results",
    "clean_keys",
    "clean_records",
    "clean_idempotency",
    "clean_streams",
    "tally",
    "trim_dead",
)


async def test_no_statement_reads_more_than_it_needs(backend: PostgresqlBackend, rows: psycopg.Connection[Any]) -> None:
    """With a hundred thousand tasks, ten thousand of everything else, and no statistics of them, no statement reads a
    table from end to end, or touches more than a few hundred rows; nor does a worker with fifty tasks."""
    rows.execute(_FILL.format(queue=backend._queue_id, many=MANY).encode())
    await backend._cleaner.tally()
    problems = {}
    async with await connect(backend._connections.address) as connection:
        for name in _READ_OR_TAKE:
            text_of = statements.statement(name, backend._connections.address.schema)
            parameters = {"queue": backend._queue_id, **_PARAMETERS, **_OTHERWISE.get(name, {})}
            async with connection.transaction(force_rollback=True):
                explained = await connection.execute(_EXPLAIN + text_of, parameters)
                (row,) = await explained.fetchall()
            if found := _problems(row[0][0]["Plan"]):
                problems[name] = found
    assert problems == {}
    before = _whole_reads(rows)
    await _work_on_fifty(backend)
    assert _whole_reads(rows) == before


_BIG = frozenset({"tasks", "results", "streams", "chunks", "keys", "records", "idempotency"})


_EXPLAIN = b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
_MOST_ROWS = 600
_OTHERWISE: dict[str, dict[str, Any]] = {
    "scan_keys": {"after": b"17"},
    "read_log": {"log": b"7"},
    "read_on": {"log": b"7", "transaction": "0", "position": 0},
}


def _problems(plan: dict[str, Any]) -> list[str]:
    found = []
    table, kind = plan.get("Relation Name", ""), plan["Node Type"]
    touched = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    if kind == "Seq Scan" and table in _BIG and plan["Actual Loops"]:
        found.append(f"reads all of {table}")
    if "Scan" in kind and table in _BIG and touched > _MOST_ROWS:
        found.append(f"touches {touched} rows of {table} by {plan.get('Index Name')}")
    for part in plan.get("Plans", ()):
        found += _problems(part)
    return found


async def _work_on_fifty(backend: PostgresqlBackend) -> None:
    await backend.queue.submit_many([Task(prompt="x") for _ in range(50)])
    deliveries = await pull_some(backend, 50)
    assert await backend.queue.renew(deliveries) == []
    ends = [
        Ack(
            delivery=each,
            result=done(each),
            chunks=(text("x"), FINAL),
            records=(LogRecord(log="log", id=each.task.id, value=b"v", keep_s=60),),
        )
        for each in deliveries
    ]
    assert await backend.commit(ends) == []
    assert all(await backend.queue.results([each.task.id for each in deliveries]))


def _whole_reads(rows: psycopg.Connection[Any]) -> int:
    """How many rows of large tables were read from end to end. Not how often: the building of the empty tables' indexes
    counts as reading them, and other sessions tell of that when they like."""
    rows.execute("SELECT pg_stat_force_next_flush()")
    found = rows.execute(
        "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = ANY (%s)",
        (list(_BIG),),
    ).fetchone()
    assert found is not None
    return int(found[0])


async def test_renewals_touch_no_index(backend: PostgresqlBackend, rows: psycopg.Connection[Any]) -> None:
    """A renewed row stays in its page and in no index anew: the lease's end stands in no index, and its page has
    room."""
    await backend.queue.submit_many([Task(prompt=str(number)) for number in range(10)])
    deliveries = await pull_some(backend, 10)
    rows.execute("VACUUM tasks")
    before = rows.execute("SELECT sum(pg_relation_size(indexrelid)) FROM pg_index WHERE indrelid = 'tasks'::regclass")
    size = before.fetchone()
    places = rows.execute("SELECT id, (ctid::text::point)[0] FROM tasks ORDER BY id").fetchall()
    for _ in range(30):
        assert await backend.queue.renew(deliveries) == []
    assert rows.execute("SELECT id, (ctid::text::point)[0] FROM tasks ORDER BY id").fetchall() == places
    after = rows.execute("SELECT sum(pg_relation_size(indexrelid)) FROM pg_index WHERE indrelid = 'tasks'::regclass")
    assert after.fetchone() == size
    indexed = rows.execute("SELECT string_agg(indexdef, ' ') FROM pg_indexes WHERE tablename = 'tasks'").fetchone()
    assert indexed is not None
    assert re.search("lease_until|leased_at", indexed[0]) is None


async def test_a_former_owner_renews_nothing(backend: PostgresqlBackend, rows: psycopg.Connection[Any]) -> None:
    """Whoever holds a delivery that was given back does not keep the lease of the one that came after."""
    await submit(backend)
    former = await pull_one(backend)
    await backend.queue.nack(former, "")
    present = await pull_one(backend)
    until = rows.execute("SELECT lease_until FROM tasks").fetchone()
    assert await backend.queue.renew([former]) == [former]
    assert rows.execute("SELECT lease_until FROM tasks").fetchone() == until
    assert await backend.queue.renew([present]) == []
    assert rows.execute("SELECT lease_until FROM tasks").fetchone() != until


async def test_figures_are_sums_of_few_rows(
    backend: PostgresqlBackend, rows: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change leaves a row, and these are added up again and again; the sum is what the table holds, rows that an
    operator deletes included."""
    monkeypatch.setattr(cleaning, "EVERY_S", 1e6)
    for number in range(150):
        await submit(backend, str(number))
    for delivery in await pull_some(backend, 40):
        await backend.queue.ack(delivery, done(delivery))
    await pull_some(backend, 10)
    rows.execute("DELETE FROM tasks WHERE state = 0 AND position % 2 = 0")
    waiting = rows.execute("SELECT count(*) FROM tasks WHERE state = 0").fetchone()
    stats = await backend.queue.stats()
    assert ((stats.ready,), stats.running) == (waiting, 10)
    await eventually(lambda: _is_small(rows))
    await backend._cleaner.tally()
    assert _count(rows, "tallies") <= 3
    again = await backend.queue.stats()
    assert (again.ready, again.running) == (stats.ready, stats.running)


async def _is_small(rows: psycopg.Connection[Any]) -> bool:
    return _count(rows, "tallies") < 100


async def test_what_is_over_is_deleted(postgresql_server: PostgresqlServer, stream: str) -> None:
    """Results, streams with their chunks, keys, records, counters, windows and idempotency keys go when their time is
    over; what still counts stays, and so does the queue."""
    brief = BackendOptions(result_retention_s=0.0, chunk_retention_s=0.0, idempotency_retention_s=0.0)
    schema = f"s_{uuid.uuid4().hex[:12]}"
    async with await _opened(postgresql_server, stream, brief, schema) as backend:
        with postgresql_server.connect() as rows:
            rows.execute(f"SET search_path = {schema}".encode())
            kept = await submit(backend, "runs", idempotency_key="kept")
            running = await pull_one(backend)
            await publish(backend, running, text("kept"))
            for number in range(30):
                delivery_id = await submit(backend, idempotency_key=f"{number}")
                delivery = await pull_one(backend)
                record = LogRecord(log="brief", id=delivery_id, value=b"v", keep_s=0.0, counters={"brief": {"n": 1}})
                end = Ack(delivery=delivery, result=done(delivery), chunks=(text("x"), FINAL), records=(record,))
                assert await backend.commit([end]) == []
            await backend.state.set("brief", b"v", ttl_s=0.0)
            await backend.state.set("kept", b"v")
            await backend.state.add("kept", "n", 1)
            await backend.state.add("brief too", "n", 1, ttl_s=0.0)
            rows.execute("UPDATE window_amounts SET expires_at = now()")
            assert await backend._cleaner.clean() > 100
            left = {table: _count(rows, table) for table in (*sorted(_BIG), "counters", "counter_sets")}
            assert left == {
                "tasks": 1,
                "results": 0,
                "streams": 1,
                "chunks": 1,
                "keys": 1,
                "records": 0,
                "idempotency": 0,
                "counters": 1,
                "counter_sets": 1,
            }
            assert await backend.state.counters("kept") == {"n": 1}
            await publish(backend, running, FINAL)
            await backend.queue.ack(running, done(running))
            with pytest.raises(TaskNotFound):
                await all_chunks(backend, kept)


async def test_a_long_stream_is_deleted_in_steps(backend: PostgresqlBackend, rows: psycopg.Connection[Any]) -> None:
    """Twelve thousand chunks go in several steps, and their stream with the last; a requeued task's old stream goes
    too."""
    await submit(backend)
    delivery = await pull_one(backend)
    for _ in range(12):
        await publish(backend, delivery, *(text("x") for _ in range(800)))
    await backend.queue.nack(delivery, "no", dead=True)
    (letter,) = await backend.queue.dead_letters()
    await backend.queue.requeue([letter.id])
    assert (_count(rows, "streams"), _count(rows, "chunks")) == (1, 9600)
    await backend._cleaner.clean()
    assert (_count(rows, "streams"), _count(rows, "chunks")) == (0, 0)


async def test_names_of_any_length(backend: PostgresqlBackend) -> None:
    """Names that no index takes, with every character: for tasks' keys, keys, logs, records, counters and windows."""
    state = backend.state
    stem = "ü\x00" * 2000
    for name in (f"{stem}a", f"{stem}b"):
        await state.set(name, name[-1].encode())
        record = LogRecord(log=name, id=name, value=b"v", keep_s=60, counters={name: {name: 7}})
        assert await state.append_once([record, record]) == 1
        await state.window_add(name, name, 3, window_s=60)
        assert [entry.id for entry in await state.read_log(name)] == [name]
        assert await state.counters(name) == {name: 7}
        assert await state.add(name, name, 1) == 8
        assert await state.window_total(name, window_s=60) == 3
        first = await submit(backend, idempotency_key=name)
        assert await submit(backend, idempotency_key=name) == first
    assert sorted([pair async for pair in state.scan(stem)]) == [(f"{stem}a", b"a"), (f"{stem}b", b"b")]
    assert [key async for key, _ in state.scan(f"{stem}b")] == [f"{stem}b"]
    assert await state.compare_and_set(f"{stem}a", b"a", None)
    assert await state.get(f"{stem}a") is None
    assert (await backend.queue.stats()).ready == 2
    for text_of in ("", "short", stem):
        assert name_of(key_of(text_of), label_of(text_of)) == text_of


async def test_a_change_that_is_too_long_to_announce(backend: PostgresqlBackend) -> None:
    """A watcher reads a long value for itself, and finds a key whose very name is too long to be announced."""
    changes = {"w:value": b"x" * 100_000, "w:" + "n" * 10_000: b"name"}
    async with iterating(backend.state.watch("w:")) as watched:
        seen: dict[str, bytes | None] = {}

        async def watch() -> None:
            async for change in watched:
                seen[change.key] = change.value

        watching = asyncio.ensure_future(watch())
        try:
            async with asyncio.timeout(30):
                while "w:ready" not in seen:
                    await backend.state.set("w:ready", b"")
                    await asyncio.wait([watching], timeout=0.05)
                for key, value in changes.items():
                    await backend.state.set(key, value)
                while not changes.items() <= seen.items():
                    await asyncio.wait([watching], timeout=0.05)
        finally:
            watching.cancel()
            await asyncio.wait([watching])


async def test_an_entry_of_a_foreign_program(backend: PostgresqlBackend, rows: psycopg.Connection[Any]) -> None:
    """A row that another program inserts, woken by nothing, is found and runs; one that is no JSON is refused."""
    rows.execute(
        "INSERT INTO tasks (id, queue_id, state, lane, position, entry) "
        "SELECT gen_random_uuid(), id, 0, 2, nextval('positions'), entry "
        "FROM queues, (VALUES (%s::bytea), (%s::bytea)) AS entries (entry)",
        (b"no JSON at all", json.dumps({"prompt": "from elsewhere"}).encode()),
    )
    delivery = await pull_one(backend)
    assert delivery.task.prompt == "from elsewhere"
    (letter,) = await backend.queue.dead_letters()
    assert "JSON object" in letter.error
    (status,) = await backend.queue.status([letter.task_id])
    assert status.state is TaskState.FAILED


async def test_chunks_of_many_tasks_in_one_call_are_all_announced(backend: PostgresqlBackend) -> None:
    """What does not fit into announcements is read: live consumers of two hundred tasks miss nothing."""
    await backend.queue.submit_many([Task(prompt=str(number)) for number in range(200)])
    deliveries = await pull_some(backend, 200)
    streams = [asyncio.ensure_future(all_chunks(backend, each.task.id)) for each in deliveries]
    try:
        await backend.queue.ping()
        for content in ("y" * 1000, "é" * 9000):
            batches = [ChunkBatch(delivery=each, chunks=(text(content),)) for each in deliveries]
            assert await backend.chunks.publish(batches) == []
        await backend.chunks.publish([ChunkBatch(delivery=each, chunks=(FINAL,)) for each in deliveries])
        async with asyncio.timeout(30):
            for stream in streams:
                assert [len(content) for content in contents(await stream)] == [1000, 9000]
    finally:
        for stream in streams:
            stream.cancel()
        await asyncio.wait(streams)
