"""A live worker keeps its tasks, whatever its event loop is busy with; a dead one loses them soon."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from providers import CallTool, ChunkFn
from queue_backends import Backend, BackendOptions, Delivery, Task, open_backend
from queue_backends.composed import ComposedBackend
from queue_backends.redis.keys import GROUP
from tests.servers import Server
from tests.worker.redis_fleets import LIMIT_S, provider_of, rival, worker_on
from worker.health import HealthServer, HealthState
from worker.loop_watch import LOOK_EVERY_S, LoopWatch
from worker.metric_families import families
from worker.metrics import Metrics
from worker.side_loop import SideLoop

LEASE_S = 0.4
SHORT = BackendOptions(lease_s=LEASE_S)


class Gate:
    """Where a run stops until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Semaphore(0)
        self.open = asyncio.Event()

    async def pass_through(self) -> None:
        self.reached.release()
        await self.open.wait()

    async def wait_for(self, runs: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            for _ in range(runs):
                await self.reached.acquire()


async def test_task_that_blocks_the_loop_costs_nobody_a_lease(queue_url: str) -> None:
    """It blocks for four leases, beside a neighbour; neither is stolen by a worker that waits for it."""
    gate, runs = Gate(), []

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        runs.append(task.prompt)
        await gate.pass_through()
        if task.prompt == "blocks":
            time.sleep(4 * LEASE_S)
        return "done"

    async with worker_on(queue_url, lease_s=LEASE_S, **{"agent.provider": provider_of("blocking", run)}) as (fleet, _):
        handles = await fleet.submit_many(["blocks", "neighbour"])
        await gate.wait_for(2)
        async with rival(queue_url, LEASE_S) as stolen:
            gate.open.set()
            results = [await handle.result(LIMIT_S) for handle in handles]
    assert stolen == []
    assert [result.output for result in results] == ["done", "done"]
    assert sorted(runs) == ["blocks", "neighbour"]


async def test_run_of_ten_leases_runs_once(queue_url: str) -> None:
    """A lease bounds how long a dead worker's task waits, not how long a live one's may take."""
    runs: list[str] = []
    started = asyncio.Event()

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        runs.append(task.id)
        started.set()
        await asyncio.sleep(10 * LEASE_S)
        return "done"

    async with worker_on(queue_url, lease_s=LEASE_S, **{"agent.provider": provider_of("slow", run)}) as (fleet, _):
        handle = await fleet.submit("hi")
        async with asyncio.timeout(LIMIT_S):
            await started.wait()
        async with rival(queue_url, LEASE_S) as stolen:
            result = await handle.result(LIMIT_S)
    assert stolen == []
    assert (result.output, runs) == ("done", [handle.id])


async def test_worker_that_hangs_for_too_long_lets_its_tasks_go(queue_url: str) -> None:
    """Longer than any run may take: another worker gets the task, and the hung one writes nothing when it is back."""
    gate = Gate()

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        await gate.pass_through()
        hang()
        return "too late"

    def hang() -> None:
        waited = time.monotonic() + LIMIT_S
        while not stolen and time.monotonic() < waited:
            time.sleep(0.02)

    settings = {"agent.provider": provider_of("hanging", run), "timeout_s": 1}
    with capture_logs() as logs:
        async with worker_on(queue_url, lease_s=LEASE_S, **settings) as (fleet, worker):
            handle = await fleet.submit("hi")
            await gate.wait_for(1)
            async with rival(queue_url, LEASE_S) as stolen:
                gate.open.set()
                async with asyncio.timeout(LIMIT_S):
                    while worker.running:
                        await asyncio.sleep(0.01)
                assert [delivery.task.id for delivery in stolen] == [handle.id]
                assert await fleet.backend.queue.results([handle.id]) == [None]
    assert any("leases are let go" in line["event"] for line in logs)


async def test_draining_worker_keeps_what_it_finishes(queue_url: str) -> None:
    """A worker that was told to stop renews for as long as it lets its runs end."""
    gate = Gate()

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        await gate.pass_through()
        await asyncio.sleep(4 * LEASE_S)
        return "finished"

    settings = {"agent.provider": provider_of("unhurried", run)}
    async with worker_on(queue_url, lease_s=LEASE_S, **settings) as (fleet, worker):
        handle = await fleet.submit("hi")
        await gate.wait_for(1)
        async with rival(queue_url, LEASE_S) as stolen:
            worker.stop()
            gate.open.set()
            assert (await handle.result(LIMIT_S)).output == "finished"
    assert stolen == []


# Who holds up the loop


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, watch: LoopWatch, seconds: float) -> None:
        """Let time pass as the watching thread sees it, which looks all the while."""
        for _ in range(round(seconds / LOOK_EVERY_S)):
            self.now += LOOK_EVERY_S
            watch.look()


def crunch(work: Callable[[], None]) -> None:
    """Hold up the loop while another thread does `work`."""
    beside = threading.Thread(target=work)
    beside.start()
    beside.join()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def health() -> HealthState:
    return HealthState()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def watch(metrics: Metrics, health: HealthState, clock: FakeClock) -> LoopWatch:
    return LoopWatch(metrics.worker, health, lease_s=30, clock=clock)


async def test_whoever_blocks_the_loop_is_named_once(watch: LoopWatch, clock: FakeClock) -> None:
    """The task's name, and where in its code it is; as an error when it goes on for longer than a lease."""

    async def run() -> None:
        crunch(lambda: clock.pass_by(watch, 20))
        crunch(lambda: clock.pass_by(watch, 20))

    with capture_logs() as logs, watch.watching():
        await asyncio.create_task(run(), name="1700000000000-0")
        watch._tick()  # the loop's timers go by another clock
        watch.look()
    assert [(line["log_level"], line["event"].partition(":")[0]) for line in logs] == [
        ("warning", "event loop blocked"),
        ("error", "event loop blocked for longer than a lease"),
        ("warning", "event loop turns again"),
    ]
    for line in logs[:2]:
        assert line["by"] == "1700000000000-0"
        shown = [line["at"], *line["called_from"]]
        assert any(frame.startswith("test_leases.py:") and frame.endswith(" crunch") for frame in shown)
    assert [line.get("for_s") for line in logs] == [3.0, 30.0, None]
    assert logs[2]["blocked_s"] == 39.5


async def test_loop_that_turns_is_no_matter(watch: LoopWatch, clock: FakeClock) -> None:
    """Short spells, however many, are not reported."""
    with capture_logs() as logs, watch.watching():
        for _ in range(20):
            crunch(lambda: clock.pass_by(watch, 2))
            watch._tick()
    assert logs == []


async def test_process_that_stood_still_blames_no_task(watch: LoopWatch, clock: FakeClock) -> None:
    """SIGSTOP, or a machine that slept: all threads were stopped, so no task held up the loop."""
    with capture_logs() as logs, watch.watching():
        clock.now += 60
        watch.look()
        watch._tick()
        clock.pass_by(watch, 1)
    assert [line["event"].partition(":")[0] for line in logs] == ["this process stood still"]
    assert logs[0]["for_s"] == 60.0


async def test_blocked_loop_shows_in_figures_and_health(
    watch: LoopWatch, clock: FakeClock, metrics: Metrics, health: HealthState
) -> None:
    """Not ready at once; not alive once nothing can be waited for any more; well again afterwards."""
    health.longest_block_s = 60
    server = HealthServer(health, metrics)
    verdicts = []

    def look_on() -> None:
        for seconds in (2, 8, 60):
            clock.pass_by(watch, seconds)
            verdicts.append((server.healthz().ok, asyncio.run(server.readyz()).ok))

    with watch.watching():
        crunch(look_on)
        watch._tick()
        watch.look()
        verdicts.append((server.healthz().ok, (await server.readyz()).ok))
    assert verdicts == [(True, True), (True, False), (False, False), (True, True)]
    (family,) = [family for family in families(metrics) if family.name == "worker.loop_blocked"]
    assert (family.kind, family.unit, family.samples[0].value) == ("counter", "seconds", 69.5)


# What keeps leases on Redis from another loop


@pytest.fixture
async def side() -> AsyncIterator[SideLoop]:
    async with SideLoop("beside") as opened:
        yield opened


async def pulled(backend: Backend, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < count:
            found += await backend.queue.pull(count - len(found), LIMIT_S)
    return found


async def test_renewer_keeps_what_the_queue_pulled(
    valkey_server: Server, stream: str, queue_url: str, side: SideLoop
) -> None:
    """It renews in another loop over a connection of its own, tells what is lost, and is no consumer of the group."""
    async with await open_backend(queue_url, SHORT) as backend, await open_backend(queue_url, SHORT) as other:
        await backend.queue.submit_many([Task(prompt="kept"), Task(prompt="ended")])
        kept, ended = await pulled(backend, 2)
        await backend.queue.nack(ended, "", dead=True)
        renewer = backend.lease_renewer()
        assert renewer is not None
        lost = []
        for _ in range(10):
            lost.append(await side.run(renewer.renew([kept, ended])))
            assert await other.queue.pull(5, LEASE_S / 3) == []
        assert lost == [[ended]] * 10
        async with redis.asyncio.Redis.from_url(valkey_server.url()) as client:
            consumers = await client.xinfo_consumers(stream, GROUP)
        assert len(consumers) == 2
        await side.run(renewer.close())
        assert await backend.queue.renew([kept]) == []


@pytest.mark.parametrize("kind", ["embedded", "composed"])
async def test_backends_that_wrap_redis_offer_its_renewer(
    queue_url: str, side: SideLoop, tmp_path: Path, kind: str
) -> None:
    """The embedded server, and a queue whose chunks or state are elsewhere."""
    async with await open_backend("memory://") as elsewhere:
        inner = await open_backend(f"embedded://{tmp_path}" if kind == "embedded" else queue_url)
        async with ComposedBackend(inner, inner, elsewhere) if kind == "composed" else inner as backend:
            await backend.queue.submit(Task(prompt="kept"))
            (kept,) = await pulled(backend, 1)
            renewer = backend.lease_renewer()
            assert renewer is not None
            assert await side.run(renewer.renew([kept])) == []
            await side.run(renewer.close())
        assert elsewhere.lease_renewer() is None


async def test_renewer_hears_of_cancels_it_was_not_told_of(queue_url: str, side: SideLoop) -> None:
    """Each request that was made since it last asked, by one command, whoever runs the task."""
    async with await open_backend(queue_url) as backend:
        first, second = await backend.queue.submit_many([Task(prompt="1"), Task(prompt="2")])
        await pulled(backend, 2)
        renewer = backend.lease_renewer()
        assert renewer is not None
        assert await side.run(renewer.cancel_requests()) == []
        await backend.queue.cancel([first])
        assert await side.run(renewer.cancel_requests()) == [first]
        await asyncio.sleep(0.002)  # requests of the same millisecond are told twice
        await backend.queue.cancel([second])
        assert second in await side.run(renewer.cancel_requests())
        await side.run(renewer.close())


async def test_cancel_whose_announcement_got_lost_is_noticed(
    valkey_server: Server, stream: str, queue_url: str
) -> None:
    """Nothing but the note of the request is left, and no renewal is due for minutes: the run ends all the same."""
    started = asyncio.Event()

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        started.set()
        await asyncio.sleep(3600)
        return "never"

    async with worker_on(queue_url, lease_s=900, **{"agent.provider": provider_of("endless", run)}) as (fleet, _):
        handle = await fleet.submit("hi")
        async with asyncio.timeout(LIMIT_S), redis.asyncio.Redis.from_url(valkey_server.url()) as client:
            await started.wait()
            await client.zadd(f"{stream}:cancelled", {handle.id: time.time() * 1000})
            result = await handle.result(LIMIT_S)
    assert result.error == "run cancelled"


# Expiry


async def test_expired_task_comes_before_a_long_queue(queue_url: str) -> None:
    """A worker whose every pull is filled by waiting tasks finds the lost one among the first."""
    async with await open_backend(queue_url, SHORT) as dead, await open_backend(queue_url, SHORT) as alive:
        lost_id = await dead.queue.submit(Task(prompt="lost"))
        (lost,) = await pulled(dead, 1)
        await dead.queue.submit_many([Task(prompt="waits") for _ in range(1000)])
        await expired(dead, lost)
        found: list[str] = []
        async with asyncio.timeout(LIMIT_S):
            while lost_id not in found:
                for delivery in await alive.queue.pull(1, 0):
                    found.append(delivery.task.id)
                    await alive.queue.nack(delivery, "", dead=True)
        assert (await alive.queue.stats()).ready > 500


async def test_expired_task_is_found_behind_many_live_ones(queue_url: str) -> None:
    """A worker with a single free slot sees it at its first look, however many tasks run."""
    async with await open_backend(queue_url, SHORT) as busy, await open_backend(queue_url, SHORT) as free:
        await busy.queue.submit_many([Task(prompt=str(number)) for number in range(300)])
        *live, lost = await pulled(busy, 300)
        await expired(busy, lost, keep=live)
        assert await busy.queue.renew(live) == []
        assert [found.task.id for found in await free.queue.pull(1, 0)] == [lost.task.id]


async def expired(backend: Backend, delivery: Delivery, keep: Sequence[Delivery] = ()) -> None:
    """Return when the lease has run out; those to keep are renewed meanwhile."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            (status,) = await backend.queue.status([delivery.task.id])
            if (status.leased_s or 0.0) > LEASE_S:
                return
            await backend.queue.renew(keep)
            await asyncio.sleep(LEASE_S / 10)


async def test_worker_does_not_steal_from_itself(queue_url: str) -> None:
    """After a pause of the whole process, pulls must not take what the next renewal will keep."""
    async with await open_backend(queue_url, SHORT) as backend:
        await backend.queue.submit(Task(prompt="held"))
        (held,) = await pulled(backend, 1)
        await expired(backend, held)
        assert await backend.queue.pull(1, 0) == []
        assert await backend.queue.renew([held]) == []
