"""PostgreSQL in trouble: killed, cut off, frozen, demoted; what was confirmed stays, what was not takes effect once."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from psycopg import sql

from queue_backends import (
    Ack,
    Backend,
    BackendMisconfigured,
    BackendOptions,
    BackendUnavailable,
    Capability,
    Checkpoint,
    ChunkBatch,
    LogRecord,
    StateChange,
    Task,
    TaskResult,
    TaskState,
)
from queue_backends.conformance.support import (
    FINAL,
    all_chunks,
    assert_numbered,
    background,
    contents,
    done,
    finish_stream,
    iterating,
    pull_one,
    submit,
    text,
    within,
)
from queue_backends.postgresql import open_backend
from queue_backends.postgresql.backend import PostgresqlBackend
from tests.postgresql_servers import PASSWORD, PostgresqlServer, embedded_programs
from tests.proxies import Proxy

T = TypeVar("T")

SHORT = BackendOptions(lease_s=4)
"""A renewal gets a quarter of the lease to be answered in."""


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgresqlServer]:
    """A server that is killed, frozen and demoted, and keeps what it has confirmed."""
    programs = embedded_programs()
    assert programs is not None
    with PostgresqlServer(programs, durable=True) as started:
        yield started


@pytest.fixture
async def proxy(postgresql_server: PostgresqlServer) -> AsyncIterator[Proxy]:
    """A way to the shared server that can be disturbed."""
    async with Proxy(postgresql_server.port) as started:
        yield started


@pytest.fixture
async def disturbed(proxy: Proxy, postgresql_server: PostgresqlServer, stream: str) -> AsyncIterator[Backend]:
    """A fresh queue, through the proxy."""
    url = postgresql_server.url(stream, port=proxy.port)
    async with await open_backend(url, BackendOptions(consumer="disturbed")) as opened:
        yield opened


async def _insistently(call: Callable[[], Awaitable[T]]) -> T:
    """Try until the server answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except BackendUnavailable:
                await asyncio.sleep(0.02)


async def _for_ever(call: Callable[[], Awaitable[object]]) -> None:
    """Until it raises."""
    while True:
        await call()


async def _persistently(backend: Backend, prompt: str) -> str:
    """Submit until it is confirmed."""
    return await _insistently(lambda: backend.queue.submit(Task(prompt=prompt, idempotency_key=prompt)))


async def test_a_killed_server_loses_nothing_that_it_confirmed(durable: PostgresqlServer, stream: str) -> None:
    """Tasks, deliveries, chunks and state are there when it is back, and those who were connected go on: the same
    delivery, the next number, the subscription and the waiter that were there before."""
    async with await open_backend(durable.url(stream), BackendOptions()) as backend:
        assert Capability.DURABLE not in backend.gaps
        ids = await backend.queue.submit_many([Task(prompt=f"{number}") for number in range(50)])
        delivery = await pull_one(backend)
        assert await backend.chunks.publish([ChunkBatch(delivery=delivery, chunks=(text("before"),))]) == []
        await backend.state.set("key", b"value")
        async with (
            background(all_chunks(backend, delivery.task.id)) as stream_of_it,
            background(backend.queue.wait(delivery.task.id, 30)) as waiter,
        ):
            await backend.queue.ping()
            await asyncio.to_thread(durable.kill)
            with pytest.raises(BackendUnavailable):
                await backend.queue.stats()
            await asyncio.to_thread(durable.start)
            await _persistently(backend, "after")
            assert await backend.queue.renew([delivery]) == []
            end = Ack(delivery=delivery, result=done(delivery), chunks=(text("after"), FINAL))
            assert await backend.commit([end]) == []
            assert contents(await within(stream_of_it)) == ["before", "after"]
            assert (await within(waiter)).output == "done"
        assert await backend.state.get("key") == b"value"
        rest = await backend.queue.pull(100, 20)
        assert [each.task.id for each in rest[:49]] == ids[1:]
        assert [each.task.prompt for each in rest[49:]] == ["after"]


async def test_a_frozen_server_is_away_and_then_back(durable: PostgresqlServer, stream: str) -> None:
    """A renewal gives up while the lease still runs; when the server goes on, so does the worker."""
    async with await open_backend(durable.url(stream), SHORT) as backend:
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        with durable.frozen(), pytest.raises(BackendUnavailable, match="no answer within 1 s"):
            await backend.queue.renew([delivery])
        assert await backend.queue.renew([delivery]) == []
        await backend.queue.ack(delivery, done(delivery))
        assert (await backend.queue.wait(task_id, 20)).ok


async def test_a_standby_is_away(durable: PostgresqlServer, stream: str) -> None:
    """A server that only reads is no server for a queue: those who are connected, and those who come, wait until one
    writes again; it has all that was confirmed before."""
    async with await open_backend(durable.url(stream), BackendOptions()) as backend:
        task_id = await submit(backend)
        await asyncio.to_thread(durable.stop)
        (durable.data / "standby.signal").touch()
        await asyncio.to_thread(durable.start)
        with pytest.raises(BackendUnavailable, match="standby"):
            await backend.queue.pull(1, 0)
        with pytest.raises(BackendUnavailable, match="standby"):
            await open_backend(durable.url(stream), BackendOptions())
        with durable.connect() as connection:
            connection.execute("SELECT pg_promote()")
        assert (await pull_one(backend)).task.id == task_id


async def test_a_session_that_became_read_only_is_left(durable: PostgresqlServer, stream: str) -> None:
    """Error 25006 in the middle means away, and the next try looks for a server anew."""
    async with await open_backend(durable.url(stream), BackendOptions()) as backend:
        with durable.connect() as connection:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
            with pytest.raises(BackendUnavailable, match="read-only"):
                await _for_ever(lambda: submit(backend))
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
        await within(_persistently(backend, "again"))


async def test_cut_connections_cost_and_repeat_nothing(disturbed: Backend, proxy: Proxy) -> None:
    """Under one cut after the other, every task that was submitted runs once, and its stream has no gap and one
    end."""

    async def cut_again_and_again() -> None:
        for _ in range(20):
            await asyncio.sleep(0.03)
            proxy.cut()

    ended: list[str] = []
    async with background(cut_again_and_again()):
        ids = [await _persistently(disturbed, f"{number}") for number in range(60)]
        while len(ended) < 60:
            for delivery in await _insistently(lambda: disturbed.queue.pull(7, 1)):
                assert delivery.redeliveries == 0
                end = Ack(delivery=delivery, result=done(delivery), chunks=(text("x"), FINAL))
                assert await _insistently(functools.partial(disturbed.commit, [end])) == []
                ended.append(delivery.task.id)
    assert sorted(ended) == sorted(ids)
    for task_id in ids[::7]:
        assert_numbered(await all_chunks(disturbed, task_id))
    stats = await disturbed.queue.stats()
    assert (stats.ready, stats.running, stats.delayed, stats.dead) == (0, 0, 0, 0)


async def test_a_submit_whose_reply_is_lost_adds_one_task(disturbed: Backend, proxy: Proxy) -> None:
    """The ids are the submitter's: the repeated statement finds its task there, in the queue or ended already."""
    await submit(disturbed, "warm")
    lost = proxy.lose_reply(b"unmistakable")
    task_id = await disturbed.queue.submit(Task(prompt="unmistakable"))
    await lost.wait()
    found = await disturbed.queue.pull(10, 20)
    assert [delivery.task.prompt for delivery in found] == ["warm", "unmistakable"]
    assert found[1].task.id == task_id
    assert (await disturbed.queue.stats()).ready == 0


async def test_a_claim_whose_reply_is_lost_is_found(disturbed: Backend, proxy: Proxy) -> None:
    """What the server gave in a reply that never came belongs to the next pull, as a first delivery."""
    task_id = await submit(disturbed)
    lost = proxy.lose_reply(b"disturbed-")
    with pytest.raises(BackendUnavailable):
        await disturbed.queue.pull(1, 0)
    await lost.wait()
    delivery = await pull_one(disturbed)
    assert (delivery.task.id, delivery.redeliveries, delivery.first) == (task_id, 0, True)
    await disturbed.queue.ack(delivery, done(delivery))


async def test_writes_whose_replies_are_lost_take_effect_once(disturbed: Backend, proxy: Proxy) -> None:
    """Chunks, a checkpoint and an end, each repeated because nobody knows: numbers go on, records count once, and the
    end is no lost lease."""
    await submit(disturbed)
    delivery = await pull_one(disturbed)
    record = LogRecord(log="log", id="1", value=b"v", keep_s=60, counters={"sums": {"n": 1}})

    async def twice(mark: bytes, *, end: Ack | Checkpoint | None = None) -> None:
        batch = ChunkBatch(delivery=delivery, chunks=(text(mark.decode()),))
        write = disturbed.chunks.publish([batch]) if end is None else disturbed.commit([end])
        lost = proxy.lose_reply(mark)
        with pytest.raises(BackendUnavailable):
            await write
        await lost.wait()
        again = disturbed.chunks.publish([batch]) if end is None else disturbed.commit([end])
        assert await again == []

    await twice(b"chunk-one")
    await twice(b"chunk-two", end=Checkpoint(delivery=delivery, chunks=(text("chunk-two"),), records=(record,)))
    end = Ack(delivery=delivery, result=done(delivery, "the-very-end"), chunks=(FINAL,), records=(record,))
    await twice(b"the-very-end", end=end)
    chunks = await all_chunks(disturbed, delivery.task.id)
    assert_numbered(chunks)
    assert contents(chunks) == ["chunk-one", "chunk-two"]
    assert await disturbed.state.counters("sums") == {"n": 1}
    assert (await disturbed.queue.results([delivery.task.id])) == [end.result]


async def test_connections_that_lead_nowhere_are_given_up(
    postgresql_server: PostgresqlServer, proxy: Proxy, stream: str
) -> None:
    """A firewall that forgets connections: what is on them fails in time, and what comes next uses new ones."""
    async with await open_backend(postgresql_server.url(stream, port=proxy.port), SHORT) as backend:
        await submit(backend)
        delivery = await pull_one(backend)
        proxy.strand()
        with pytest.raises(BackendUnavailable, match="no answer"):
            await backend.queue.renew([delivery])
        assert await backend.queue.renew([delivery]) == []


async def test_listeners_catch_up_after_a_cut(
    disturbed: Backend, proxy: Proxy, postgresql_server: PostgresqlServer, stream: str
) -> None:
    """What was announced while the listening connection was away is found when it is back: chunks, results, keys."""
    async with await open_backend(postgresql_server.url(stream), BackendOptions()) as other:
        task_id = await submit(other)
        delivery = await pull_one(other)
        async with iterating(disturbed.state.watch("k:")) as changes:

            async def until(wanted: bytes) -> StateChange:
                async for change in changes:
                    if change.value == wanted:
                        return change
                raise AssertionError("watch() ended")

            async with background(until(b"ready")) as ready, asyncio.timeout(30):
                while not ready.done():
                    await other.state.set("k:0", b"ready")
                    await asyncio.wait([ready], timeout=0.1)
            async with (
                background(all_chunks(disturbed, task_id)) as chunks,
                background(disturbed.queue.wait(task_id, 30)) as waiter,
                background(until(b"new")) as change,
            ):
                await disturbed.queue.ping()
                await proxy.refuse()
                await other.state.set("k:1", b"new")
                end = Ack(delivery=delivery, result=done(delivery), chunks=(text("a"), text("b"), FINAL))
                assert await other.commit([end]) == []
                await proxy.accept()
                assert contents(await within(chunks)) == ["a", "b"]
                assert (await within(waiter)).ok
                assert (await within(change)).key == "k:1"


async def test_terminated_sessions_are_replaced(
    disturbed: Backend, proxy: Proxy, postgresql_server: PostgresqlServer
) -> None:
    """An administrator who ends all sessions costs a try at most, and a waiting pull gets what comes afterwards."""
    async with background(_insistently(lambda: disturbed.queue.pull(1, 30))) as pulled:
        await disturbed.queue.ping()
        await asyncio.wait([pulled], timeout=0.2)  # lets the pull begin to wait; else the test proves less
        with postgresql_server.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        task_id = await _persistently(disturbed, "after")
        assert [delivery.task.id for delivery in await within(pulled)] == [task_id]


async def test_nobody_takes_over_right_after_a_silence(durable: PostgresqlServer, stream: str) -> None:
    """While the server was away nobody could renew: for half a lease after its return, expired leases are left alone,
    and then they are not."""
    options = BackendOptions(lease_s=1.0)
    async with (
        await open_backend(durable.url(stream), options) as one,
        await open_backend(durable.url(stream), options) as other,
    ):
        await submit(one)
        delivery = await pull_one(one)
        await asyncio.to_thread(durable.kill)
        await asyncio.sleep(options.lease_s + 0.2)
        await asyncio.to_thread(durable.start)
        assert await _insistently(lambda: other.queue.pull(1, 0)) == []
        assert await _insistently(lambda: one.queue.renew([delivery])) == []
        assert (await pull_one(other)).redeliveries == 1


async def test_a_deadlock_is_tried_again(postgresql_server: PostgresqlServer, stream: str) -> None:
    """Two transactions in each other's way: PostgreSQL ends one, and ours is simply done again."""
    async with await open_backend(postgresql_server.url(stream), BackendOptions()) as backend:
        assert isinstance(backend, PostgresqlBackend)
        tries: list[int] = []

        async def work(connection: object) -> str:
            tries.append(1)
            if len(tries) < 3:
                rows = await connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")  # type: ignore[attr-defined]  # a connection
                raise AssertionError(rows)
            return "done"

        assert await backend._connections.work(work) == "done"
        assert len(tries) == 3


@pytest.fixture
def role(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A role that is asked for its password."""
    name = f"r_{uuid.uuid4().hex[:12]}"
    rules = postgresql_server.data / "pg_hba.conf"
    before = rules.read_text()
    with postgresql_server.connect() as connection:
        quoted = sql.Identifier(name)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(quoted, sql.Literal(PASSWORD)))
        rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        yield name
        rules.write_text(before)
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(quoted, quoted))


async def test_secrets_are_in_no_message(postgresql_server: PostgresqlServer, role: str, stream: str) -> None:
    """A wrong password, one that is no URL, a port where nobody is, a wrong parameter: each names what is wrong and
    shows no password; the right one, with every special character, lets in."""
    quoted = "test%20secret%3A%2F%3F%40"
    wrong = {
        "password authentication failed": postgresql_server.url(user=f"{role}:gehe%3Aim"),
        "no-such-host|resolve|translate": f"postgresql://{role}:gehe%3Aim@no-such-host.invalid/postgres",
        "percent": f"postgresql://{role}:gehe%im@127.0.0.1/postgres",
        "nonsense": postgresql_server.url(user=f"{role}:gehe%3Aim", nonsense="1"),
        "refused": f"postgresql://{role}@127.0.0.1:1/postgres?password=gehe%3Aim",
        "sslmode|SSL": postgresql_server.url(user=f"{role}:gehe%3Aim", sslmode="require"),
    }
    for pattern, url in wrong.items():
        with pytest.raises((BackendMisconfigured, BackendUnavailable), match=pattern) as caught:
            await open_backend(url, BackendOptions())
        for shown in (str(caught.value), repr(caught.value)):
            assert "gehe" not in shown
    with postgresql_server.connect() as connection:
        connection.execute(sql.SQL("GRANT CREATE ON DATABASE postgres TO {}").format(sql.Identifier(role)))
    url = postgresql_server.url(stream, user=f"{role}:{quoted}", schema=role)
    async with await open_backend(url, BackendOptions()) as backend:
        task_id = await submit(backend)
        assert isinstance(backend, PostgresqlBackend)
        assert "secret" not in repr(backend._connections.address)
        assert (await backend.queue.status([task_id]))[0].state is TaskState.READY


async def test_what_the_server_does_not_keep_is_said(postgresql_server: PostgresqlServer, stream: str) -> None:
    """A server that does not wait for its disk is not durable, and the backend says why."""
    async with await open_backend(postgresql_server.url(stream), BackendOptions()) as backend:
        assert "fsync is off" in backend.gaps[Capability.DURABLE]
        delivery_id = await submit(backend)
        assert delivery_id
        assert contents(await finish_stream(backend, await pull_one(backend))) == []


async def test_a_reset_leaves_no_socket_with_the_event_loop(
    disturbed: Backend, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver closes the socket of a listening connection that is reset; the next one to be opened gets its number.
    A loop that still watched it would refuse that one (uvloop: `File exists`), or tell the wrong one of its news."""
    loop = asyncio.get_running_loop()
    add, remove = loop.add_reader, loop.remove_reader
    watched: set[Any] = set()
    doubled: list[Any] = []

    def add_reader(fd: Any, *rest: Any) -> None:
        if fd in watched:
            doubled.append(fd)
        watched.add(fd)
        add(fd, *rest)

    def remove_reader(fd: Any) -> bool:
        watched.discard(fd)
        return bool(remove(fd))

    monkeypatch.setattr(loop, "add_reader", add_reader)
    monkeypatch.setattr(loop, "remove_reader", remove_reader)
    for number in range(5):
        task_id = await disturbed.queue.submit(Task(prompt=f"task {number}"))
        waiting = asyncio.create_task(disturbed.queue.wait(task_id, 30.0))
        [delivery] = await _insistently(lambda: disturbed.queue.pull(1, 30.0))
        proxy.cut()
        done = TaskResult(task_id=task_id, output="done", finished_at=1.0)
        await _insistently(functools.partial(disturbed.queue.ack, delivery, done))
        assert (await waiting).output == "done"
    assert doubled == []
