"""Redis going wrong in every way it has, on real servers: what is told, what goes on, and what is not lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio
import redis.exceptions
from structlog.testing import capture_logs

from queue_backends import (
    Ack,
    Backend,
    BackendMisconfigured,
    BackendOptions,
    BackendUnavailable,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Dead,
    Delivery,
    Outcome,
    QueueError,
    Retry,
    StateChange,
    Task,
    TaskNotFound,
    TaskResult,
    TaskState,
    open_backend,
)
from queue_backends.redis import scripts
from tests.proxies import Proxy
from tests.servers import PROGRAMS, Server, valkey_program
from worker.persistence import persistently

LIMIT_S = 20


@pytest.fixture(scope="module", params=list(PROGRAMS))
def dialect(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each kind of server that is installed, shared by the tests of this file: they set its configuration back."""
    program = PROGRAMS[request.param]()
    if program is None:
        pytest.skip(f"no {request.param} server on this machine")
    with Server(program) as server:
        yield server


@pytest.fixture
async def proxy(valkey_server: Server) -> AsyncIterator[Proxy]:
    """A way to the shared server that can be disturbed."""
    async with Proxy(valkey_server.port) as opened:
        yield opened


@pytest.fixture
def quick_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given up after ten seconds is given up after less: nobody answers anyway."""
    for module in ("client", "pubsub", "submitting", "renewing"):
        monkeypatch.setattr(f"queue_backends.redis.{module}.COMMAND_TIMEOUT_S", 0.4)
    monkeypatch.setattr("queue_backends.redis.pulling.REPLY_WITHIN_S", 0.4)
    monkeypatch.setattr("queue_backends.redis.pubsub.QUIET_S", 0.3)
    monkeypatch.setattr("queue_backends.redis.pubsub.ANSWER_S", 0.3)


def chunk_of(delivery: Delivery, text: str, *, is_final: bool = False) -> ChunkBatch:
    """A batch of one chunk."""
    kind = ChunkType.DONE if is_final else ChunkType.CONTENT
    return ChunkBatch(delivery=delivery, chunks=(ChunkDraft(type=kind, content=text, is_final=is_final),))


def ack_of(delivery: Delivery, output: str = "ok") -> Ack:
    """The end of a run, with its final chunk."""
    final = ChunkDraft(type=ChunkType.DONE, is_final=True)
    result = TaskResult(task_id=delivery.task.id, output=output)
    return Ack(delivery=delivery, result=result, chunks=(final,))


async def pulled(backend: Backend) -> Delivery:
    """The next task, however often the server fails before."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            if found := await persistently(lambda: backend.queue.pull(1, 1.0), "pull"):
                return found[0]


async def published(backend: Backend, delivery: Delivery, text: str) -> list[Delivery]:
    """Publish, however often the server fails before."""
    return await persistently(lambda: backend.chunks.publish([chunk_of(delivery, text)]), "publish")


async def works(backend: Backend) -> None:
    """A task goes all the way: nobody is deaf."""
    async with asyncio.timeout(LIMIT_S):
        task_id = await persistently(lambda: backend.queue.submit(Task(prompt="still there?")), "submit")
        delivery = await pulled(backend)
        assert delivery.task.id == task_id
        assert await persistently(lambda: backend.commit([ack_of(delivery)]), "commit") == []
        assert (await backend.queue.wait(task_id, LIMIT_S)).output == "ok"


@asynccontextmanager
async def admin_of(server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """A raw client, past all proxies."""
    async with redis.asyncio.Redis.from_url(server.url(), protocol=2, decode_responses=True) as client:
        yield client


def said(logs: list[Any]) -> list[str]:
    """The lines about the broker, those below `info` left out."""
    return [line["event"] for line in logs if "broker" in line["event"] and line["log_level"] != "debug"]


# Connections


async def test_cut_connections_are_replaced_and_said_once(proxy: Proxy, stream: str) -> None:
    """Everybody's connection is reset at once: all go on, and the log has one line for it and one for its end."""
    async with await open_backend(proxy.url(stream)) as backend:
        ids = await backend.queue.submit_many([Task(prompt=str(number)) for number in range(50)])
        deliveries = await backend.queue.pull(50, LIMIT_S)
        with capture_logs() as logs:
            pulling = asyncio.create_task(pulled(backend))
            publishing = [asyncio.create_task(published(backend, delivery, "a")) for delivery in deliveries]
            await asyncio.sleep(0)  # until all of them are on their way
            await proxy.refuse()
            async with asyncio.timeout(LIMIT_S):
                with pytest.raises(BackendUnavailable):
                    await backend.queue.ping()
                await proxy.accept()
                assert await asyncio.gather(*publishing) == [[]] * 50
                assert await persistently(lambda: backend.commit([ack_of(d) for d in deliveries]), "commit") == []
                late = await persistently(lambda: backend.queue.submit(Task(prompt="late")), "submit")
                assert (await pulling).task.id == late
        assert said(logs) == ["the broker is away, trying until it is back", "the broker is back"]
        for task_id in ids:
            chunks = [chunk async for chunk in backend.chunks.subscribe(task_id)]
            assert [(chunk.seq, chunk.content) for chunk in chunks] == [(0, "a"), (1, "")]


@pytest.mark.parametrize("silently", [False, True], ids=["cut", "half-open"])
@pytest.mark.usefixtures("quick_timeouts")
async def test_task_in_a_reply_that_never_came_is_pulled_again(proxy: Proxy, stream: str, silently: bool) -> None:
    """The server has handed the task over, to a blocked read that has lost its connection: no lease runs out."""
    async with await open_backend(proxy.url(stream), BackendOptions(lease_s=600)) as backend:
        trap = proxy.lose_reply(b"XREADGROUP", silently=silently)
        pulling = asyncio.create_task(pulled(backend))
        async with asyncio.timeout(LIMIT_S):
            await trap.caught.wait()
            task_id = await backend.queue.submit(Task(prompt="hi"))
            await trap.wait()
            delivery = await pulling
        assert (delivery.task.id, delivery.redeliveries) == (task_id, 0)
        assert await backend.commit([ack_of(delivery)]) == []


@pytest.mark.parametrize("silently", [False, True], ids=["cut", "half-open"])
@pytest.mark.usefixtures("quick_timeouts")
async def test_task_that_was_ready_and_lost_on_its_way_is_pulled_again(
    proxy: Proxy, stream: str, silently: bool
) -> None:
    """The same for a task that was there when it was asked for, while a run of the same process goes on undisturbed."""
    async with await open_backend(proxy.url(stream), BackendOptions(lease_s=600)) as backend:
        ids = await backend.queue.submit_many([Task(prompt="running"), Task(prompt="lost on its way")])
        running = await pulled(backend)
        trap = proxy.lose_reply(b"EVALSHA", silently=silently)
        with pytest.raises(BackendUnavailable):
            await backend.queue.pull(1, 1.0)
        await trap.wait()
        delivery = await pulled(backend)
        assert [running.task.id, delivery.task.id] == ids
        assert await backend.commit([ack_of(running), ack_of(delivery)]) == []


async def test_waiting_for_a_result_outlasts_an_outage(
    proxy: Proxy, valkey_server: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits learns of the result that came meanwhile; not even looking for it in vain ends the wait."""
    monkeypatch.setattr("queue_backends.redis.queue.RESULT_RECHECK_S", 0.05)
    async with (
        await open_backend(proxy.url(stream)) as engine,
        await open_backend(valkey_server.url(stream)) as worker,
    ):
        task_id = await engine.queue.submit(Task(prompt="hi"))
        waiting = asyncio.create_task(engine.queue.wait(task_id, LIMIT_S))
        await subscribed(engine, 1)
        await proxy.refuse()
        await worker.commit([ack_of(await pulled(worker))])
        await asyncio.sleep(0.2)  # a few looks in vain
        assert not waiting.done()
        await proxy.accept()
        assert (await waiting).output == "ok"


@pytest.mark.parametrize("silently", [False, True], ids=["cut", "half-open"])
@pytest.mark.usefixtures("quick_timeouts")
async def test_submit_whose_reply_is_lost_adds_the_task_once(proxy: Proxy, stream: str, silently: bool) -> None:
    """The engine learns the id that the task has got, without an idempotency key, and nobody runs it twice."""
    async with await open_backend(proxy.url(stream)) as backend:
        await backend.queue.submit(Task(prompt="earlier"))
        trap = proxy.lose_reply(b":submitter:", silently=silently)
        ids = await asyncio.gather(*(backend.queue.submit(Task(prompt=str(number))) for number in range(5)))
        await trap.wait()
        trap = proxy.lose_reply(b":submitter:", silently=silently)
        ids += await backend.queue.submit_many([Task(prompt="many"), Task(prompt="more")])
        await trap.wait()
        waiting = await backend.queue.pull(100, LIMIT_S)
        assert [delivery.task.id for delivery in waiting[1:]] == ids
        assert [delivery.task.prompt for delivery in waiting[1:]] == ["0", "1", "2", "3", "4", "many", "more"]


@pytest.mark.usefixtures("quick_timeouts")
async def test_submit_into_silence_ends_and_says_what_is_not_known(
    proxy: Proxy, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing hangs: after its limit the engine is told that the outcome is open, and how to repeat it safely."""
    monkeypatch.setattr("queue_backends.redis.submitting.SUBMIT_LIMIT_S", 1.0)
    async with await open_backend(proxy.url(stream)) as backend:
        proxy.silence()
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(BackendUnavailable, match="idempotency_key"):
                await backend.queue.submit(Task(prompt="hi"))
        proxy.heal()
        await works(backend)


@pytest.mark.parametrize("kind", ["commit", "publish"])
@pytest.mark.parametrize("silently", [False, True], ids=["cut", "half-open"])
@pytest.mark.usefixtures("quick_timeouts")
async def test_write_whose_reply_is_lost_takes_effect_once(
    proxy: Proxy, stream: str, kind: str, silently: bool
) -> None:
    """Repeated until it is answered: chunks stand there once, and the result too."""
    async with await open_backend(proxy.url(stream)) as backend:
        task_id = await backend.queue.submit(Task(prompt="hi"))
        delivery = await pulled(backend)
        for text in ("a", "b"):
            trap = proxy.lose_reply(b"CONTENT", silently=silently) if kind == "publish" else None
            assert await published(backend, delivery, text) == []
            if trap is not None:
                await trap.wait()
        trap = proxy.lose_reply(b"DONE", silently=silently) if kind == "commit" else None
        assert await persistently(lambda: backend.commit([ack_of(delivery)]), "commit") == []
        if trap is not None:
            await trap.wait()
        chunks = [chunk async for chunk in backend.chunks.subscribe(task_id)]
        assert [(chunk.seq, chunk.content, chunk.is_final) for chunk in chunks] == [
            (0, "a", False),
            (1, "b", False),
            (2, "", True),
        ]
        assert (await backend.queue.wait(task_id, LIMIT_S)).output == "ok"


@pytest.mark.usefixtures("quick_timeouts")
async def test_everybody_gets_over_a_network_that_swallows(proxy: Proxy, stream: str) -> None:
    """Half-open connections: pulls, writes, renewals, subscriptions, waits, cancels and watches all find new ones."""
    async with await open_backend(proxy.url(stream), BackendOptions(lease_s=60)) as backend:
        task_id = await backend.queue.submit(Task(prompt="hi"))
        delivery = await pulled(backend)
        cancels, changes = backend.queue.cancellations(), backend.state.watch("k")
        consuming = asyncio.create_task(collected(backend, task_id))
        waiting = asyncio.create_task(backend.queue.wait(task_id, LIMIT_S))
        cancelled, changed = asyncio.ensure_future(anext(cancels)), asyncio.ensure_future(anext(changes))
        pulling = asyncio.create_task(pulled(backend))
        async with asyncio.timeout(LIMIT_S):
            await subscribed(backend, 4)
            proxy.strand()
            assert await published(backend, delivery, "a") == []
            await persistently(lambda: backend.queue.cancel([task_id]), "cancel")
            assert await persistently(lambda: backend.queue.renew([delivery]), "renew") == []
            await persistently(lambda: backend.state.set("k", b"v"), "set")
            next_id = await persistently(lambda: backend.queue.submit(Task(prompt="next")), "submit")
            assert await persistently(lambda: backend.commit([ack_of(delivery)]), "commit") == []
            assert await consuming == ["a", ""]
            assert (await waiting).output == "ok"
            assert await cancelled == task_id
            assert await changed == StateChange(key="k", value=b"v")
            assert (await pulling).task.id == next_id
        for iterator in (cancels, changes):
            await cast("AsyncGenerator[object]", iterator).aclose()


async def collected(backend: Backend, task_id: str) -> list[str]:
    """All chunks' texts, to the final one."""
    return [chunk.content async for chunk in backend.chunks.subscribe(task_id)]


async def subscribed(backend: Any, channels: int) -> None:
    """Return when so many channels are confirmed."""
    known = backend._hub._channels
    while len(known) < channels:
        await asyncio.sleep(0.005)
    for channel in list(known.values()):
        await channel.confirmed.wait()


# Restarts


async def test_a_watch_whose_connection_has_just_closed_is_left_quietly(
    valkey_server: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop says of a transport that it is closed by a RuntimeError of its own: to whoever leaves a watch just then,
    that is a lost connection like any other."""
    unsubscribed = asyncio.Event()

    async def refuse(pubsub: object, verb: str, *names: str) -> None:
        unsubscribed.set()
        raise RuntimeError(f"unable to perform {verb} on <TCPTransport closed=True>; the handler is closed")

    async with await open_backend(valkey_server.url(stream)) as backend:
        changes = cast("AsyncGenerator[StateChange, None]", backend.state.watch("here/"))
        waiting = asyncio.ensure_future(anext(changes))
        while not waiting.done():  # the watch has begun once it tells
            await backend.state.set("here/x", b"1")
            await asyncio.wait([waiting], timeout=0.05)
        with monkeypatch.context() as patched:
            patched.setattr(redis.asyncio.client.PubSub, "execute_command", refuse)
            await changes.aclose()
    assert unsubscribed.is_set()


async def test_restart_with_data_goes_on_as_if_nothing_had_been(durable_server: Server, stream: str) -> None:
    """The same deliveries publish without a gap and commit once; nobody takes over what nobody could renew."""
    options = BackendOptions(lease_s=1.0)
    async with (
        await open_backend(durable_server.url(stream), options) as worker,
        await open_backend(durable_server.url(stream), options) as other,
    ):
        task_id = await worker.queue.submit(Task(prompt="hi"))
        delivery = await pulled(worker)
        await worker.chunks.publish([chunk_of(delivery, "a")])
        await asyncio.to_thread(durable_server.kill)
        publishing = asyncio.create_task(
            persistently(lambda: worker.chunks.publish([chunk_of(delivery, "b")]), "publish")
        )
        waiting = asyncio.create_task(persistently(lambda: other.queue.pull(1, 0.2), "pull"))
        await asyncio.sleep(1.5)  # longer than a lease
        await asyncio.to_thread(durable_server.start)
        async with asyncio.timeout(LIMIT_S):
            assert await waiting == []
            assert await persistently(lambda: worker.queue.renew([delivery]), "renew") == []
            assert await publishing == []
            assert await worker.commit([ack_of(delivery)]) == []
            chunks = [chunk async for chunk in worker.chunks.subscribe(task_id)]
        assert [(chunk.seq, chunk.content) for chunk in chunks] == [(0, "a"), (1, "b"), (2, "")]
        await works(other)


async def test_server_that_stood_still_hands_over_nothing_that_lives(stream: str) -> None:
    """A look for expired leases that waited in its socket is carried out before anybody could renew: it finds none."""
    program = valkey_program()
    assert program is not None
    options = BackendOptions(lease_s=1.0)
    with Server(program) as server:
        async with (
            await open_backend(server.url(stream), options) as worker,
            await open_backend(server.url(stream), options) as other,
        ):
            await worker.queue.submit(Task(prompt="hi"))
            delivery = await pulled(worker)
            assert await other.queue.pull(1, 0.6) == []  # it has looked around by now, and knows the server's clock
            await asyncio.sleep(0.3)  # until it is time to look again
            await worker.queue.renew([delivery])
            with server.frozen():
                looking = asyncio.create_task(other.queue.pull(1, 0))
                await asyncio.sleep(1.5)  # longer than the lease
            assert await looking == []
            assert await worker.queue.renew([delivery]) == []
            again = await pulled(other)  # nobody renews any more
            assert (again.task.id, again.redeliveries) == (delivery.task.id, 1)
            assert await worker.commit([ack_of(delivery)]) != []


async def test_restart_without_data_ends_what_was_and_serves_what_comes(stream: str) -> None:
    """Group, scripts, tasks and leases are gone: the worker is told so, a consumer's stream ends, new tasks are run."""
    program = valkey_program()
    assert program is not None
    with Server(program) as server:
        async with (
            await open_backend(server.url(stream)) as worker,
            await open_backend(server.url(stream)) as engine,
        ):
            task_id = await engine.queue.submit(Task(prompt="hi"))
            delivery = await pulled(worker)
            await worker.chunks.publish([chunk_of(delivery, "a")])
            consumer = engine.chunks.subscribe(task_id)
            assert (await anext(consumer)).content == "a"
            pulling = asyncio.create_task(pulled(worker))
            await asyncio.to_thread(server.restart)
            async with asyncio.timeout(LIMIT_S):
                lost = await published(worker, delivery, "b")
                assert lost == [delivery]
                assert await persistently(lambda: worker.queue.renew([delivery]), "renew") == [delivery]
                outcome = ack_of(delivery)
                assert await worker.commit([outcome]) == [outcome]
                with pytest.raises(TaskNotFound):
                    await anext(consumer)
                assert (await engine.queue.status([task_id]))[0].state is TaskState.UNKNOWN
                stats = await engine.queue.stats()
                assert (stats.ready, stats.running, stats.delayed) == (0, 0, 0)
                assert await engine.queue.list_tasks() == []
                next_id = await persistently(lambda: engine.queue.submit(Task(prompt="next")), "submit")
                assert (await pulling).task.id == next_id
            await works(worker)
            async with admin_of(server) as admin:
                assert not await admin.exists(f"{stream}:chunks:{task_id}", f"{stream}-dead")


async def test_flushed_data_and_scripts_are_made_again(valkey_server: Server, stream: str) -> None:
    """NOSCRIPT and NOGROUP on a server that stayed up, with a read blocked on the very stream that vanishes."""
    async with await open_backend(valkey_server.url(stream)) as backend, admin_of(valkey_server) as admin:
        pulling = asyncio.create_task(pulled(backend))
        await asyncio.sleep(0.1)  # until it blocks: nothing tells
        await admin.delete(stream, f"{stream}:high", f"{stream}:low")
        await admin.script_flush()
        task_id = await backend.queue.submit(Task(prompt="hi"))
        assert (await pulling).task.id == task_id
        await works(backend)


# Failover


async def test_failover_behind_one_address(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The master is demoted and a replica takes over: the same delivery commits there, and everybody follows, also
    who only listens, on a connection that has nothing wrong with it."""
    monkeypatch.setattr("queue_backends.redis.pubsub.TRUSTED_S", 0.0)
    monkeypatch.setattr("queue_backends.redis.chunks.RECHECK_S", 600.0)
    program = valkey_program()
    assert program is not None
    at_once = ["--repl-diskless-sync-delay", "0"]
    with Server(program, options=at_once) as first, Server(program) as second:
        async with (
            admin_of(first) as old,
            admin_of(second) as new,
            Proxy(first.port) as proxy,
            await open_backend(proxy.url(stream)) as backend,
        ):
            await new.replicaof("127.0.0.1", first.port)
            task_id = await backend.queue.submit(Task(prompt="hi"))
            delivery = await pulled(backend)
            await backend.chunks.publish([chunk_of(delivery, "a")])
            consuming = asyncio.create_task(collected(backend, task_id))
            await subscribed(backend, 1)
            pulling = asyncio.create_task(pulled(backend))
            async with asyncio.timeout(LIMIT_S):
                while not await new.exists(f"{stream}:chunks:{task_id}"):
                    await asyncio.sleep(0.01)  # until it has copied all: nothing tells
            with capture_logs() as logs:
                await new.replicaof("no", "one")
                await old.replicaof("127.0.0.1", 1)
                writes: list[Callable[[], Awaitable[object]]] = [
                    lambda: backend.chunks.publish([chunk_of(delivery, "b")]),
                    lambda: backend.queue.submit(Task(prompt="refused")),
                    lambda: backend.queue.renew([delivery]),
                ]
                for write in writes:
                    with pytest.raises(BackendUnavailable, match="cannot work right now"):
                        await write()
                # Whoever resolves the address anew comes to the new master; old connections still lead to the old one.
                proxy.point_at(second.port, cut=False)
                async with asyncio.timeout(LIMIT_S):
                    assert await published(backend, delivery, "b") == []
                    next_id = await persistently(lambda: backend.queue.submit(Task(prompt="next")), "submit")
                    assert (await pulling).task.id == next_id
                    assert await persistently(lambda: backend.commit([ack_of(delivery)]), "commit") == []
                    assert await consuming == ["a", "b", ""]
            assert said(logs)[0] == "the broker is away, trying until it is back"
            assert len(said(logs)) <= 2
            assert await new.xlen(f"{stream}:chunks:{task_id}") == 3


# What a server answers that cannot work now


async def test_full_server_takes_no_tasks_and_lets_those_in_hand_end(dialect: Server, stream: str) -> None:
    """OOM: submit is refused whole and at once; what was accepted is pulled, streamed, committed, cancelled."""
    async with await open_backend(dialect.url(stream)) as backend, admin_of(dialect) as admin:
        ids = await backend.queue.submit_many([Task(prompt=text) for text in ("one", "two", "three", "four")])
        first = await pulled(backend)
        before = await everything(dialect, stream)
        await admin.config_set("maxmemory", 1)
        try:
            for refused in (
                backend.queue.submit(Task(prompt="more", idempotency_key="k")),
                backend.queue.submit_many([Task(prompt="more")]),
                backend.state.set("k", b"v"),
            ):
                with pytest.raises(BackendUnavailable, match="memory"):
                    await refused
            assert await everything(dialect, stream) == before
            assert await backend.queue.renew([first]) == []
            assert await backend.chunks.publish([chunk_of(first, "a")]) == []
            assert await backend.commit([ack_of(first)]) == []
            second, third = await pulled(backend), await pulled(backend)
            failed = Dead(delivery=second, result=TaskResult(task_id=ids[1], error="no"))
            outcomes: list[Outcome] = [failed, Retry(delivery=third, error="later", retry_in_s=600)]
            assert await backend.commit(outcomes) == []
            assert (await backend.queue.cancel([ids[2], ids[3]])) == ["cancelled", "cancelled"]
            results = await backend.queue.results(ids)
        finally:
            await admin.config_set("maxmemory", 0)
        assert [result and (result.output, result.error) for result in results] == [
            ("ok", ""),
            ("", "no"),
            ("", "run cancelled"),
            ("", "run cancelled"),
        ]
        assert await collected(backend, ids[0]) == ["a", ""]
        await works(backend)


async def everything(server: Server, stream: str) -> dict[bytes, bytes | None]:
    """A queue's keys, and each one's value as the server dumps it; without the one that comes and goes by itself."""
    async with redis.asyncio.Redis.from_url(server.url(), protocol=2) as client:
        names = [key async for key in client.scan_iter(match=f"{stream}*")]
        return {key: await client.dump(key) for key in names if not key.endswith(b":reclaimer")}


@asynccontextmanager
async def being_replica(admin: redis.asyncio.Redis, **settings: str) -> AsyncIterator[None]:
    """A demoted server whose new master cannot be reached."""
    await admin.replicaof("127.0.0.1", 1)
    for name, value in settings.items():
        await admin.config_set(name.replace("_", "-"), value)
    try:
        yield
    finally:
        await admin.replicaof("no", "one")
        await admin.config_set("replica-serve-stale-data", "yes")


@asynccontextmanager
async def being_busy(server: Server) -> AsyncIterator[None]:
    """A server that runs somebody's endless script."""
    async with admin_of(server) as admin, admin_of(server) as other:
        await admin.config_set("lua-time-limit", 10)
        running = asyncio.create_task(other.execute_command("EVAL", "while true do end", 0))
        await asyncio.sleep(0.1)  # until it is late: nothing tells
        try:
            yield
        finally:
            await admin.script_kill()
            with pytest.raises(redis.exceptions.ResponseError):
                await running
            await admin.config_set("lua-time-limit", 5000)


@pytest.mark.parametrize("trouble", ["READONLY", "MASTERDOWN", "BUSY"])
async def test_state_that_passes_is_waited_out(dialect: Server, stream: str, trouble: str) -> None:
    """Every write says "unavailable" and changes nothing; afterwards the same deliveries go on."""
    async with await open_backend(dialect.url(stream)) as backend, admin_of(dialect) as admin:
        await backend.queue.submit(Task(prompt="hi"))
        delivery = await pulled(backend)
        states: dict[str, Callable[[], AbstractAsyncContextManager[None]]] = {
            "READONLY": lambda: being_replica(admin),
            "MASTERDOWN": lambda: being_replica(admin, replica_serve_stale_data="no"),
            "BUSY": lambda: being_busy(dialect),
        }
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: backend.queue.submit(Task(prompt="x")),
            lambda: backend.queue.pull(1, 0),
            lambda: backend.queue.renew([delivery]),
            lambda: backend.chunks.publish([chunk_of(delivery, "a")]),
            lambda: backend.commit([ack_of(delivery)]),
            lambda: backend.state.set("k", b"v"),
        ]
        async with states[trouble]():
            for write in writes:
                with pytest.raises(BackendUnavailable, match="cannot work right now"):
                    await write()
        assert await published(backend, delivery, "a") == []
        assert await persistently(lambda: backend.commit([ack_of(delivery)]), "commit") == []
        assert await collected(backend, delivery.task.id) == ["a", ""]
        await works(backend)


async def test_disk_errors_and_missing_replicas_are_waited_out(stream: str) -> None:
    """MISCONF, when the server cannot save its data, and NOREPLICAS: nothing is accepted that could be lost."""
    program = valkey_program()
    assert program is not None
    with Server(program) as server:
        async with await open_backend(server.url(stream)) as backend, admin_of(server) as admin:
            await admin.config_set("min-replicas-to-write", 1)
            with pytest.raises(BackendUnavailable, match="NOREPLICAS"):
                await backend.queue.submit(Task(prompt="x"))
            await admin.config_set("min-replicas-to-write", 0)
            await works(backend)
            (server.folder / "dump.rdb").mkdir()  # so that it cannot be written
            await admin.config_set("save", "3600 1")
            await admin.bgsave()
            async with asyncio.timeout(LIMIT_S):
                while (await admin.info("persistence"))["rdb_last_bgsave_status"] == "ok":
                    await asyncio.sleep(0.01)  # until it has failed: nothing tells
            with pytest.raises(BackendUnavailable, match="MISCONF"):
                await backend.queue.submit(Task(prompt="x"))
            await admin.config_set("save", "")
            await works(backend)


async def test_loading_is_waited_out(stream: str) -> None:
    """A server that reads its data answers LOADING: for as long as that takes, everybody tries again."""
    program = valkey_program()
    assert program is not None
    slowly = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"]
    with Server(program, durable=True, options=slowly) as server:
        async with await open_backend(server.url(stream)) as backend, admin_of(server) as admin:
            await admin.mset({f"filler:{number}": "x" for number in range(1000)})
            await admin.execute_command("BGREWRITEAOF")
            while (await admin.info("persistence"))["aof_rewrite_in_progress"]:
                await asyncio.sleep(0.01)
            await backend.queue.submit(Task(prompt="hi"))
            await asyncio.to_thread(server.kill)
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            answers: set[str] = set()
            async with asyncio.timeout(LIMIT_S):
                while not starting.done():
                    try:
                        await backend.queue.stats()
                    except BackendUnavailable as error:
                        answers.add(str(error))
                await starting
                assert any("cannot work right now" in answer and "loading" in answer for answer in answers)
                assert (await pulled(backend)).task.prompt == "hi"


# Rights


async def test_changed_password_is_waited_out_once_inside(stream: str) -> None:
    """At the start a wrong password is a set-up error; later somebody is about to mend it, and nothing is given up."""
    program = valkey_program()
    assert program is not None
    with Server(program) as server:
        async with admin_of(server) as admin:
            await admin.execute_command("ACL", "SETUSER", "fleet", "on", ">old", "~*", "&*", "+@all")
            url = f"redis://fleet:old@127.0.0.1:{server.port}?stream={stream}"
            async with await open_backend(url) as backend:
                await backend.queue.submit(Task(prompt="hi"))
                delivery = await pulled(backend)
                with capture_logs() as logs:
                    await admin.execute_command("ACL", "SETUSER", "fleet", "resetpass", ">new")
                    await admin.execute_command("CLIENT", "KILL", "USER", "fleet")
                    for _ in range(3):
                        with pytest.raises(BackendUnavailable, match="refuses these credentials"):
                            await backend.chunks.publish([chunk_of(delivery, "a")])
                    with pytest.raises(BackendMisconfigured, match="refuses these credentials"):
                        await open_backend(url)
                    await admin.execute_command("ACL", "SETUSER", "fleet", ">old")
                    assert await backend.commit([ack_of(delivery)]) == []
                assert said(logs) == ["the broker is away, trying until it is back", "the broker is back"]
                assert "old" not in str(logs)


@pytest.mark.parametrize("missing", ["-publish", "-hset", "-xadd", "-evalsha", "-xclaim"])
async def test_missing_right_is_one_clear_error_at_the_start(dialect: Server, stream: str, missing: str) -> None:
    """A script that is refused a command in its middle would leave half a result: so it is asked for beforehand."""
    async with admin_of(dialect) as admin:
        rights = ["reset", "on", ">pw", f"~{stream}*", "resetchannels", f"&{stream}*", "+@all", missing]
        await admin.execute_command("ACL", "SETUSER", "fleet", *rights)
    with pytest.raises(BackendMisconfigured, match="ACL"):
        await open_backend(f"redis://fleet:pw@127.0.0.1:{dialect.port}?stream={stream}")


async def test_list_that_the_acl_forbids_costs_no_other_lease(stream: str) -> None:
    """Leases are renewed together; one task that names a list out of bounds must not be in the others' way."""
    program = valkey_program()
    assert program is not None
    with Server(program) as server:
        async with admin_of(server) as admin, await open_backend(server.url(stream)) as backend:
            await admin.execute_command("ACL", "SETUSER", "default", "resetkeys", f"~{stream}*")
            await backend.queue.submit_many([Task(prompt="good"), Task(prompt="bad", stream_key="elsewhere")])
            good, bad = await backend.queue.pull(2, LIMIT_S)
            assert await backend.queue.renew([good, bad]) == []
            with pytest.raises(BackendMisconfigured, match="ACL"):
                await backend.commit([ack_of(good), ack_of(bad)])
            assert await backend.commit([ack_of(good)]) == []


def test_rights_are_asked_for_every_command_of_the_scripts() -> None:
    """A script that learns a new command must not be the first to find out that it is forbidden."""
    folder = Path(scripts.__file__).parent
    texts = {path.name: path.read_text() for path in folder.glob("*.lua")}
    asked = set(re.findall(r"ask\('([A-Z]+)'", texts.pop("rights.lua")))
    used = set(re.findall(r"redis\.p?call\('([A-Z]+)'", "".join(texts.values())))
    may_be_missing = {"MEMORY", "XAUTOCLAIM"}
    assert used - may_be_missing <= asked


async def test_result_that_the_server_can_never_take_is_refused_for_good(stream: str) -> None:
    """A server cuts the connection on a too long argument: that is no outage, and repeating it would never end."""
    program = valkey_program()
    assert program is not None
    with Server(program, options=["--proto-max-bulk-len", "1mb"]) as server:
        async with await open_backend(server.url(stream)) as backend:
            await backend.queue.submit(Task(prompt="hi"))
            delivery = await pulled(backend)
            with pytest.raises(QueueError, match="proto-max-bulk-len") as caught:
                await persistently(lambda: backend.commit([ack_of(delivery, "x" * 2_000_000)]), "commit")
            assert not isinstance(caught.value, BackendUnavailable)
            assert await backend.commit([ack_of(delivery)]) == []
