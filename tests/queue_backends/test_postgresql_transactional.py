"""Submitting inside one's own transaction: the task exists if and only if one's row does."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

from queue_backends import (
    Backend,
    BackendMisconfigured,
    BackendOptions,
    InvalidTask,
    Priority,
    QueueFull,
    Task,
    TaskState,
    open_backend,
)
from queue_backends.conformance.support import background, done, within
from queue_backends.postgresql import open_backend as open_postgresql
from queue_backends.postgresql import pulling
from queue_backends.postgresql.queue import PostgresqlQueue
from tests.postgresql_servers import PostgresqlServer
from worker.client import Fleet


@pytest.fixture
async def backend(postgresql_server: PostgresqlServer, stream: str) -> AsyncIterator[Backend]:
    """A fresh queue."""
    async with await open_postgresql(postgresql_server.url(stream), BackendOptions(lease_s=3000)) as opened:
        yield opened


@pytest.fixture
def fleet(backend: Backend) -> Fleet:
    """The client of the queue."""
    return Fleet(backend)


@pytest.fixture
async def connection(postgresql_server: PostgresqlServer) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection as an application has it, with a table of its own on it and rows as it likes them."""
    async with await psycopg.AsyncConnection.connect(postgresql_server.url(), row_factory=dict_row) as opened:
        await opened.execute("CREATE TEMP TABLE orders (id int PRIMARY KEY)")
        await opened.commit()
        yield opened


def _undo(transaction: psycopg.AsyncTransaction) -> None:
    raise psycopg.Rollback(transaction)


async def _orders(connection: psycopg.AsyncConnection[Any]) -> int:
    async with connection.transaction():
        return len(await (await connection.execute("SELECT id FROM orders")).fetchall())


async def _state(fleet: Fleet, task_id: str) -> TaskState:
    return (await fleet.task(task_id).status()).state


async def test_commit_makes_both(fleet: Fleet, connection: psycopg.AsyncConnection[Any]) -> None:
    """Before the commit nobody sees the task; after it, it runs as any other, with all its fields."""
    async with connection.transaction():
        await connection.execute("INSERT INTO orders VALUES (1)")
        handle = await fleet.submit(
            "ship it", connection=connection, priority="high", meta={"order": "1"}, tenant="acme", model="large"
        )
        assert await _state(fleet, handle.id) is TaskState.UNKNOWN
        assert await fleet.backend.queue.pull(1, 0) == []
    assert await _orders(connection) == 1
    (delivery,) = await fleet.backend.queue.pull(1, 20)
    task = delivery.task
    assert (task.id, task.prompt, task.priority, task.tenant) == (handle.id, "ship it", Priority.HIGH, "acme")
    assert (task.meta, task.overrides) == ({"order": "1"}, {"model": "large"})
    await fleet.backend.queue.ack(delivery, done(delivery, "shipped"))
    assert (await handle.result(20)).output == "shipped"


async def test_rollback_leaves_nothing(fleet: Fleet, connection: psycopg.AsyncConnection[Any]) -> None:
    """Neither the row nor the task, nor its idempotency key, nor a figure that counts it."""
    async with connection.transaction() as transaction:
        await connection.execute("INSERT INTO orders VALUES (1)")
        handle = await fleet.submit("ship it", connection=connection, idempotency_key="order-1")
        _undo(transaction)
    assert await _orders(connection) == 0
    assert await _state(fleet, handle.id) is TaskState.UNKNOWN
    assert (await fleet.backend.queue.stats()).ready == 0
    again = await fleet.submit("ship it", idempotency_key="order-1")
    assert again.id != handle.id


async def test_a_part_of_a_transaction_can_be_undone(fleet: Fleet, connection: psycopg.AsyncConnection[Any]) -> None:
    """With savepoints of one's own, what was submitted before them stays."""
    async with connection.transaction():
        kept = await fleet.submit("kept", connection=connection)
        async with connection.transaction() as part:
            await fleet.submit("undone", connection=connection)
            _undo(part)
    assert [delivery.task.id for delivery in await fleet.backend.queue.pull(10, 20)] == [kept.id]


async def test_nothing_is_committed_for_the_caller(
    fleet: Fleet, connection: psycopg.AsyncConnection[Any], postgresql_server: PostgresqlServer
) -> None:
    """A connection that begins transactions by itself is in one afterwards, and a crash before its commit leaves
    nothing."""
    handle = await fleet.submit("ship it", connection=connection)
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
    with postgresql_server.connect() as operator:
        operator.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT 1")
    assert await fleet.backend.queue.pull(1, 0) == []
    assert await _state(fleet, handle.id) is TaskState.UNKNOWN


async def test_commit_wakes_a_worker(
    fleet: Fleet, connection: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull that has waited since before the submit, and would look by itself long afterwards, returns with the
    commit."""
    monkeypatch.setattr(pulling, "LONGEST_SLEEP_S", 1000.0)
    async with background(fleet.backend.queue.pull(1, 300)) as pulled:
        await asyncio.wait([pulled], timeout=0.3)  # lets it begin to wait; else the test proves less
        async with connection.transaction():
            handle = await fleet.submit("ship it", connection=connection)
            await asyncio.wait([pulled], timeout=0.1)
            assert not pulled.done()
        assert [delivery.task.id for delivery in await within(pulled)] == [handle.id]


async def test_many_at_once_in_order(fleet: Fleet, connection: psycopg.AsyncConnection[Any]) -> None:
    """`submit_many` adds them all in the transaction; nothing to submit is nothing to do."""
    async with connection.transaction():
        assert await fleet.submit_many([], connection=connection) == []
        handles = await fleet.submit_many([f"{number}" for number in range(299)], connection=connection)
        queue = fleet.backend.queue
        assert isinstance(queue, PostgresqlQueue)  # takes the connection by itself, too
        handles.append(fleet.task(await queue.submit(Task(prompt="299"), connection=connection)))
        assert await queue.submit_many([], connection=connection) == []
    deliveries = await fleet.backend.queue.pull(500, 20)
    assert [(each.task.id, each.task.prompt) for each in deliveries] == [
        (handle.id, f"{number}") for number, handle in enumerate(handles)
    ]


async def test_a_moment_in_the_future(fleet: Fleet, connection: psycopg.AsyncConnection[Any]) -> None:
    """`delay_s` counts here too."""
    async with connection.transaction():
        handle = await fleet.submit("later", connection=connection, delay_s=3600)
    assert await _state(fleet, handle.id) is TaskState.DELAYED


async def test_an_idempotency_key_inside(fleet: Fleet, connection: psycopg.AsyncConnection[Any]) -> None:
    """A key that is known gives its first task; who submits it meanwhile waits for the transaction to decide."""
    known = await fleet.submit("once", idempotency_key="a")
    async with connection.transaction():
        assert (await fleet.submit("again", connection=connection, idempotency_key="a")).id == known.id
        first = await fleet.submit("once", connection=connection, idempotency_key="b")
        second = asyncio.ensure_future(fleet.submit("again", idempotency_key="b"))
        await fleet.backend.queue.ping()
        assert not second.done()
    assert (await within(second)).id == first.id
    assert len(await fleet.backend.queue.pull(10, 20)) == 2


async def test_a_refused_task_leaves_the_transaction_usable(
    postgresql_server: PostgresqlServer, stream: str, connection: psycopg.AsyncConnection[Any]
) -> None:
    """What is no task, or too many, raises; the caller's transaction goes on and is committed."""
    async with await open_postgresql(postgresql_server.url(stream), BackendOptions(max_depth=1)) as backend:
        fleet = Fleet(backend)
        async with connection.transaction():
            await connection.execute("INSERT INTO orders VALUES (1)")
            with pytest.raises(InvalidTask):
                await fleet.submit(" ", connection=connection)
            with pytest.raises(QueueFull, match="1"):
                await fleet.submit_many(["a", "b"], connection=connection)
            await fleet.submit("fits", connection=connection)
        assert await _orders(connection) == 1
        assert (await backend.queue.stats()).ready == 1


async def test_connections_that_cannot_be_used(
    fleet: Fleet, connection: psycopg.AsyncConnection[Any], postgresql_server: PostgresqlServer
) -> None:
    """Another kind, another database, a database without a queue, autocommit: each is refused with what to do, and an
    open transaction stays usable."""
    name = f"other_{uuid.uuid4().hex[:8]}"
    elsewhere = postgresql_server.url().replace("/postgres", f"/{name}")
    await connection.commit()
    await connection.set_autocommit(True)
    with pytest.raises(BackendMisconfigured, match="autocommit mode without a transaction"):
        await fleet.submit("x", connection=connection)
    with pytest.raises(BackendMisconfigured, match=r"builtins\.str.*psycopg\.AsyncConnection"):
        await fleet.submit("x", connection="postgresql://")
    with postgresql_server.connect() as blocking:
        with pytest.raises(BackendMisconfigured, match=r"psycopg\.Connection"):
            await fleet.submit("x", connection=blocking)
        blocking.execute(f"CREATE DATABASE {name}".encode())
    for _ in range(2):
        async with await psycopg.AsyncConnection.connect(elsewhere) as other:
            with pytest.raises(BackendMisconfigured, match="another database than the queue"):
                await fleet.submit("x", connection=other)
            await other.execute("SELECT 1")
        await (await open_postgresql(f"{elsewhere}?stream=first", BackendOptions())).close()
    assert (await fleet.backend.queue.stats()).ready == 0


async def test_in_pipeline_mode(fleet: Fleet, connection: psycopg.AsyncConnection[Any]) -> None:
    """A connection in psycopg's pipeline mode works as well."""
    async with connection.transaction(), connection.pipeline():
        handle = await fleet.submit("ship it", connection=connection)
    assert [delivery.task.id for delivery in await fleet.backend.queue.pull(1, 20)] == [handle.id]


@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_sqlalchemy(fleet: Fleet, postgresql_server: PostgresqlServer, ends: str) -> None:
    """SQLAlchemy's connection and session take part through the driver's connection; one without a transaction is
    refused, because its commit would do nothing."""
    engine = create_async_engine(postgresql_server.url().replace("postgresql://", "postgresql+psycopg://"))
    try:
        async with engine.connect() as connection, AsyncSession(engine) as session:
            with pytest.raises(BackendMisconfigured, match="without a transaction"):
                await fleet.submit("x", connection=connection)
            for place in (connection, session):
                await place.execute(text("SELECT 1"))
                await fleet.submit("ship it", connection=place)
                assert isinstance(place, AsyncConnection | AsyncSession)
                await getattr(place, ends)()
            await fleet.submit("by the session's own beginning", connection=session)
            await getattr(session, ends)()
        assert (await fleet.backend.queue.stats()).ready == (3 if ends == "commit" else 0)
    finally:
        await engine.dispose()


async def test_other_backends_refuse(connection: psycopg.AsyncConnection[Any]) -> None:
    """A queue elsewhere cannot take part, and says what can be done instead."""
    async with await open_backend("memory://") as backend:
        for submit in (Fleet(backend).submit("x", connection=connection),):
            with pytest.raises(BackendMisconfigured, match=r"connection= needs .* this one is memory://: leave it out"):
                await submit
        with pytest.raises(BackendMisconfigured, match="connection="):
            await Fleet(backend).submit_many(["x"], connection=connection)
        assert (await backend.queue.stats()).ready == 0


def test_the_manuals_example_runs(
    postgresql_server: PostgresqlServer,
    stream: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The program that is printed there makes an order and its task."""
    manual = Path(__file__).parents[2] / "docs" / "queue-backends.md"
    blocks = re.findall(r"^```python\n(.*?)^```", manual.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (program,) = [block for block in blocks if block.startswith('"""An order and the task')]
    monkeypatch.setenv("DATABASE_URL", postgresql_server.url(stream))
    exec(compile(program, str(manual), "exec"), {"__name__": "__main__"})
    task_id = capsys.readouterr().out.split()[1]
    with postgresql_server.connect() as connection:
        assert connection.execute("SELECT task FROM orders").fetchall() == [(task_id,)]
        assert connection.execute("SELECT count(*) FROM shoal.tasks WHERE id = %s", (task_id,)).fetchone() == (1,)
        connection.execute("DROP TABLE orders")


async def test_from_any_language(backend: Backend, postgresql_server: PostgresqlServer, stream: str) -> None:
    """The SQL function takes a task's fields in JSON, in whatever transaction it is called; the task is as any other,
    and its commit wakes a worker."""
    fields = {
        "prompt": "ship it",
        "agent": "clerk",
        "priority": "high",
        "history": [{"role": "user", "content": "before"}],
        "overrides": {"model": "large"},
        "deadline": 4102444800.25,
        "tenant": None,
        "meta": {"order": "7", "prompt": "is a field"},
        "idempotency_key": "order-7",
    }
    call = "SELECT shoal.submit(%s, %s)"
    async with background(backend.queue.pull(1, 300)) as pulled:
        with psycopg.connect(postgresql_server.url()) as connection:
            made = connection.execute(call, (stream, Jsonb(fields))).fetchone()
            again = connection.execute(call, (stream, Jsonb(fields))).fetchone()
            assert made == again
            await backend.queue.ping()
            assert not pulled.done()
        (delivery,) = await within(pulled)
    task = delivery.task
    assert ((uuid.UUID(task.id),), task.prompt, task.agent) == (made, "ship it", "clerk")
    assert (task.priority, task.history, task.overrides) == (
        Priority.HIGH,
        ({"role": "user", "content": "before"},),
        {"model": "large"},
    )
    assert (task.deadline, task.tenant, task.meta) == (4102444800.25, "", {"order": "7"})
    assert (await backend.queue.submit(Task(prompt="x", idempotency_key="order-7"))) == task.id
    with psycopg.connect(postgresql_server.url()) as connection:
        later = "SELECT shoal.submit(%s, '{\"prompt\": \"later\"}', now() + interval '1 h')"
        connection.execute(later, (stream,))
        connection.execute('SELECT shoal.submit(%s, \'{"prompt": "undone"}\')', (stream,))
        connection.execute("ROLLBACK")
        connection.execute(later, (stream,))
        connection.execute('SELECT shoal.submit(%s, \'{"prompt": "elsewhere"}\')', (f"{stream}-new",))
    stats = await backend.queue.stats()
    assert (stats.ready, stats.delayed) == (0, 1)
    with postgresql_server.connect() as connection, pytest.raises(psycopg.errors.InvalidParameterValue, match="prompt"):
        connection.execute("SELECT shoal.submit(%s, '{}')", (stream,))
