"""Masters die, hang and hand over slots while tasks run: what was accepted ends once, and no process is restarted."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from queue_backends import (
    Ack,
    Backend,
    BackendOptions,
    BackendUnavailable,
    Chunk,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Task,
    TaskResult,
)
from queue_backends.conformance.support import (
    assert_numbered,
    background,
    done,
    eventually,
    iterating,
    pull_one,
    submit,
    text,
    within,
)
from queue_backends.redis_cluster import open_backend
from tests.cluster_servers import Cluster
from tests.servers import debian_redis_program, valkey_program
from worker.assembly import open_worker
from worker.settings import load_settings

LIMIT_S = 60
ANSWER = "one two three four five six seven eight nine ten"
CHUNKS = (text("a"), ChunkDraft(type=ChunkType.DONE, is_final=True))
PROGRAMS = {"valkey": valkey_program, "redis": debian_redis_program}


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three masters with a replica each, of each kind of server."""
    program = PROGRAMS[request.param]()
    if program is None:
        pytest.skip(f"no {request.param} on this machine")
    with Cluster(program) as started:
        yield started


on_valkey = pytest.mark.parametrize("cluster", ["valkey"], indirect=True)
"""For what does not differ between them, and takes a while."""


async def persistently(write: Callable[[], Awaitable[object]]) -> object:
    """Repeat a write that is safe to repeat, as every worker and engine does."""
    while True:
        try:
            return await write()
        except BackendUnavailable:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running(worker: Backend, runs: Counter[str]) -> AsyncIterator[None]:
    """Take tasks, run them with a chunk each, and end them, until the block ends; counts the runs of each task."""

    stopping = asyncio.Event()

    async def work() -> None:
        while not stopping.is_set():
            try:
                deliveries = await worker.queue.pull(20, 0.3)
            except BackendUnavailable:
                await asyncio.sleep(0.05)
                continue
            runs.update(delivery.task.id for delivery in deliveries)
            outcomes = [Ack(delivery=each, result=done(each, each.task.prompt), chunks=CHUNKS) for each in deliveries]
            await persistently(functools.partial(worker.commit, outcomes))

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        stopping.set()  # and no cancel: what it has taken would be left to its lease
        await working


class Engine:
    """Submits task after task under idempotency keys, and repeats what it was not told the outcome of."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.ids: dict[str, str] = {}
        self.grown = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            key = f"task {len(self.ids)}"
            task = Task(prompt=key, idempotency_key=key)
            self.ids[key] = str(await persistently(functools.partial(self._backend.queue.submit, task)))
            self.grown.set()
            await asyncio.sleep(0.005)

    async def more(self, count: int) -> None:
        """Return once so many more were accepted."""
        wanted = len(self.ids) + count
        while len(self.ids) < wanted:
            self.grown.clear()
            await self.grown.wait()

    async def results(self) -> dict[str, TaskResult]:
        """Of all that was accepted, once they are there."""
        return {key: await self._backend.queue.wait(task_id, LIMIT_S) for key, task_id in self.ids.items()}


async def test_a_master_dies_under_load(cluster: Cluster, stream: str) -> None:
    """Every task that was confirmed with `wait_replicas=1` ends once, with its own answer and one whole stream of
    chunks; the other partitions go on meanwhile; the server that died comes back as a replica."""
    url = cluster.url(stream, partitions=4, wait_replicas=1)
    options, key = BackendOptions(lease_s=3.0), f"{{{stream}:0}}"
    runs: Counter[str] = Counter()
    async with (
        asyncio.timeout(LIMIT_S),
        await open_backend(url, options) as one,
        await open_backend(url, options) as other,
    ):
        engine = Engine(one)
        async with running(one, runs), running(other, runs), background(engine.run()):
            await engine.more(30)
            dead = cluster.kill_master(key)
            await asyncio.to_thread(cluster.await_failover, key, dead)
            await asyncio.to_thread(dead.start)  # until then, the new master has no replica that could confirm
            await engine.more(30)
        async with running(one, runs), running(other, runs):
            results = await engine.results()
            assert {key: result.output for key, result in results.items()} == {key: key for key in engine.ids}
            assert len(set(engine.ids.values())) == len(engine.ids)
            for task_id in engine.ids.values():
                async with iterating(one.chunks.subscribe(task_id)) as chunks:
                    assert [(chunk.seq, chunk.type) async for chunk in chunks] == [
                        (0, ChunkType.CONTENT),
                        (1, ChunkType.DONE),
                    ]

            async def is_empty() -> bool:
                stats = await one.queue.stats()
                return (stats.ready, stats.running) == (0, 0)

            await eventually(is_empty)
        assert set(runs) >= set(engine.ids.values())


@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_slot_is_moved_under_load(cluster: Cluster, stream: str, partitions: int) -> None:
    """Key by key, as resharding does it: what meets the slot on its way waits, and goes on at the new master."""
    key = f"{{{stream}}}" if partitions == 1 else f"{{{stream}:0}}"
    runs: Counter[str] = Counter()
    refused: list[str] = []
    async with (
        asyncio.timeout(LIMIT_S),
        await open_backend(cluster.url(stream, partitions=partitions), BackendOptions()) as worker,
        await open_backend(cluster.url(stream), BackendOptions()) as submitter,
    ):
        engine = Engine(submitter)
        async with running(worker, runs), background(engine.run()):
            await engine.more(20)
            loop = asyncio.get_running_loop()

            async def refusal() -> None:
                while not refused:
                    try:
                        await submitter.queue.submit_many(
                            [Task(prompt="x", idempotency_key=f"probe {number}") for number in range(16)]
                        )
                    except BackendUnavailable as error:
                        refused.append(str(error))

            def while_it_is_open() -> None:
                asyncio.run_coroutine_threadsafe(asyncio.wait_for(refusal(), 30), loop).result(40)

            target = next(node for node in cluster.masters() if node is not cluster.master_of(key))
            await asyncio.to_thread(cluster.migrate, key, target, pause=while_it_is_open)
            await engine.more(20)
        async with running(worker, runs):
            results = await engine.results()
        assert {key: result.output for key, result in results.items()} == {key: key for key in engine.ids}
        assert {runs[task_id] for task_id in engine.ids.values()} == {1}
    assert cluster.master_of(key) is target
    assert "rehashing of slot" in refused[0] or "is moving" in refused[0]


async def test_a_subscription_follows_its_slot(cluster: Cluster, stream: str) -> None:
    """Live chunks, results and cancels arrive after the slot's channels have gone to another server."""
    async with (
        asyncio.timeout(LIMIT_S),
        await open_backend(cluster.url(stream), BackendOptions()) as worker,
        await open_backend(cluster.url(stream), BackendOptions()) as consumer,
    ):
        task_id = await submit(worker)
        delivery = await pull_one(worker)
        cancels = worker.queue.cancellations()
        async with (
            iterating(consumer.chunks.subscribe(task_id)) as chunks,
            background(consumer.queue.wait(task_id, LIMIT_S)) as result,
            background(anext(cancels)) as cancel,
        ):
            assert await worker.chunks.publish([ChunkBatch(delivery=delivery, chunks=(text("before"),))]) == []
            assert (await within(anext(chunks))).content == "before"
            key = f"{{{stream}}}"
            target = next(node for node in cluster.masters() if node is not cluster.master_of(key))
            await asyncio.to_thread(cluster.migrate, key, target)
            batch = [ChunkBatch(delivery=delivery, chunks=(text("after"),))]
            assert await worker.chunks.publish(batch) == []  # redirected, and nobody notices
            assert (await within(anext(chunks))).content == "after"
            await consumer.queue.cancel([task_id])
            await worker.queue.renew([delivery])
            assert await within(cancel) == task_id
            await worker.queue.ack(delivery, done(delivery, "ended"))
            assert (await within(result)).output == "ended"


@on_valkey
async def test_a_master_that_hangs_is_replaced(cluster: Cluster, stream: str) -> None:
    """It answers nothing and closes nothing: other partitions are served meanwhile, and its own by its replica then,
    although the process still waits for an answer of the old one."""
    async with (
        asyncio.timeout(LIMIT_S),
        await open_backend(cluster.url(stream, partitions=4), BackendOptions()) as backend,
    ):
        key = f"{{{stream}:0}}"
        tasks = [Task(prompt=str(number)) for number in range(40)]
        await backend.queue.submit_many(tasks)
        held = [each for _ in range(8) for each in await backend.queue.pull(40, 0)]
        assert len(held) == 40
        outcomes = [Ack(delivery=each, result=done(each, each.task.prompt)) for each in held]
        master = cluster.master_of(key)
        on_others = [each.task.id for each in held if cluster.master_of(_key(stream, each.task.id)) is not master]
        with cluster.frozen(master):
            async with background(persistently(functools.partial(backend.commit, outcomes))) as committing:
                for task_id in on_others:
                    await within(backend.queue.wait(task_id, LIMIT_S))
                await asyncio.to_thread(cluster.await_failover, key, master)
                assert await within(committing) == []
        ids = [each.task.id for each in held]
        found = await backend.queue.results(ids)
        assert sorted(result.output for result in found if result) == sorted(task.prompt for task in tasks)
    await asyncio.to_thread(cluster.await_whole)


def _key(stream: str, task_id: str) -> str:
    return f"{{{stream}:{task_id.rpartition('.')[2]}}}"


@on_valkey
async def test_too_few_replicas_confirm_nothing(cluster: Cluster, stream: str) -> None:
    """A cluster whose masters have one replica each cannot keep a promise of two: said before the first task."""
    with pytest.raises(BackendUnavailable, match="of the wanted 2 replicas"):
        await open_backend(cluster.url(stream, wait_replicas=2), BackendOptions())


@on_valkey
async def test_two_workers_run_their_tasks_through_a_failover(cluster: Cluster, stream: str) -> None:
    """Whole workers, with journal, usage and streaming: a master dies while their models speak, and every task has its
    answer, its stream from the first word to the last, and one usage record per model call."""
    script = {"scenarios": [{"turns": [{"text": ANSWER, "chunk_delay_s": 0.05}]}]}
    overrides = {
        "agent.model": "scripted",
        "agent.provider": "scripted",
        "agent.options": {"script": script},
        "retry_base_s": 0.0,
    }
    settings = load_settings({}, file=None, overrides=overrides)
    url = cluster.url(stream, partitions=4, wait_replicas=1)
    async with asyncio.timeout(LIMIT_S), AsyncExitStack() as stack:
        engine, *backends = [
            await stack.enter_async_context(await open_backend(url, settings.backend)) for _ in range(3)
        ]
        for backend in backends:
            await stack.enter_async_context(open_worker(settings, backend))
        ids = await engine.queue.submit_many([Task(prompt=str(number)) for number in range(24)])
        streams = [asyncio.create_task(all_chunks(engine, task_id, patience_s=LIMIT_S)) for task_id in ids]
        stack.callback(lambda: [stream.cancel() for stream in streams])
        key = f"{{{stream}:1}}"
        first = next(task_id for task_id in ids if task_id.endswith(".1"))
        async with iterating(engine.chunks.subscribe(first)) as chunks:
            await within(anext(chunks))
        dead = cluster.kill_master(key)
        await asyncio.to_thread(cluster.await_failover, key, dead)
        await asyncio.to_thread(dead.start)  # until then, the new master has no replica that could confirm
        for task_id in ids:
            result = await engine.queue.wait(task_id, LIMIT_S)
            assert (result.output, result.error) == (ANSWER, "")
        for stream_of_one in streams:
            chunks_of_one = await stream_of_one
            assert_numbered(chunks_of_one)
            assert shown(chunks_of_one) == ANSWER
        records = await engine.state.read_log("usage", limit=100)
        assert len({record.id for record in records}) == len(records) >= len(ids)
        assert {record.id.partition(":")[0] for record in records} == set(ids)
        await asyncio.to_thread(cluster.await_whole)


async def all_chunks(backend: Backend, task_id: str, *, patience_s: float) -> list[Chunk]:
    """A task's chunks up to the final one."""
    async with asyncio.timeout(patience_s), iterating(backend.chunks.subscribe(task_id)) as chunks:
        return [chunk async for chunk in chunks]


def shown(chunks: list[Chunk]) -> str:
    """The text that a consumer shows in the end: of the last attempt."""
    last = max(chunk.attempt for chunk in chunks if chunk.type is ChunkType.CONTENT)
    return "".join(chunk.content for chunk in chunks if chunk.type is ChunkType.CONTENT and chunk.attempt == last)
