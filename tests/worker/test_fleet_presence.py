"""What workers tell of themselves, and who can find them by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from queue_backends import (
    Backend,
    BackendMisconfigured,
    BackendUnavailable,
    CallOutcome,
    Task,
    TaskState,
    TokenUsage,
    UsageRecord,
    open_backend,
)
from tests.servers import Server
from tests.worker.conftest import WorkerFactory
from worker.errors import WorkerNotFound
from worker.fleet import heartbeat, presence
from worker.fleet.heartbeat import Heartbeat
from worker.fleet.monitor import Monitor, oldest_tasks, per_minute
from worker.fleet.presence import (
    MOST_CIRCUITS,
    MOST_TASKS,
    CircuitState,
    DrainRequest,
    LastMinute,
    Presence,
    RunningTask,
    Workers,
    find_worker,
    worker_id,
)
from worker.metrics import Metrics
from worker.usage import UsageLedger
from worker.worker import Worker

LIMIT_S = 20.0
SLOW = {"scenarios": [{"turns": [{"text": "slow", "delay_s": 600}]}]}


def told(name: str, **fields: object) -> Presence:
    """What a worker of this name tells."""
    return Presence(**{"id": name, "host": "web-1", "pid": 4711, **fields})  # type: ignore[arg-type] # loose on purpose


@asynccontextmanager
async def beating(
    backend: Backend, worker: Worker, *, drain: Callable[[DrainRequest], None] = lambda _request: None
) -> AsyncIterator[Heartbeat]:
    """A heartbeat for a worker of this process."""
    beat = Heartbeat(
        Workers(backend.state),
        worker_id(backend.queue),
        worker,
        metrics=Metrics(),
        ledger=UsageLedger(),
        drain=drain,
    )
    running = asyncio.create_task(beat.run())
    try:
        yield beat
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what the heartbeat does in its own time."""
    async with asyncio.timeout(LIMIT_S):
        while not await look():
            await asyncio.sleep(0.02)


async def test_a_worker_tells_what_it_runs(
    fleet_of: WorkerFactory, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the name that the queue knows it by, with the oldest of its tasks, a bounded number of them."""
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)
    monkeypatch.setattr(heartbeat, "EARLY_BEAT_S", 0.02)
    workers = Workers(backend.state)
    async with fleet_of(script=SLOW, concurrency=MOST_TASKS + 5, grace_s=0) as (fleet, worker):
        handles = await fleet.submit_many([f"{n}" for n in range(MOST_TASKS + 5)])
        async with beating(backend, worker) as beat:

            async def all_run() -> bool:
                return any(found.running == MOST_TASKS + 5 for found in await workers.all())

            await eventually(all_run)
            [mine] = await workers.all()
            assert mine.id == beat.id == (await handles[0].status()).worker
            assert len(mine.tasks) == MOST_TASKS
            assert mine.tasks[0].id == handles[0].id
            assert mine.tasks[0].started_at == pytest.approx(time.time(), abs=LIMIT_S)
            assert mine.rss_bytes > 1_000_000
        assert await workers.all() == []


async def test_a_worker_tells_for_whom_it_works_and_which_circuits_are_open(
    fleet_of: WorkerFactory, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task with its tenant and what it has used so far; circuits of its routes, a bounded number of them."""
    async with fleet_of(script=SLOW, grace_s=0) as (fleet, worker):
        handle = await fleet.submit(Task(prompt="hi", tenant="acme"))

        async def runs() -> bool:
            return (await handle.status()).state is TaskState.RUNNING and worker.running == 1

        await eventually(runs)
        async with beating(backend, worker) as beat:
            known = [("openai", f"gpt-{number}", "open") for number in range(MOST_CIRCUITS + 1)]
            monkeypatch.setattr(beat._metrics.routing, "circuits", lambda: known)
            told_now = beat.presence()
    [task] = told_now.tasks
    assert (task.tenant, task.tokens, task.cost_usd) == ("acme", 0, None)
    assert len(told_now.circuits) == MOST_CIRCUITS
    assert told_now.circuits[0] == CircuitState(provider="openai", model="gpt-0", circuit="open")


async def test_a_drain_request_reaches_the_worker(
    fleet_of: WorkerFactory, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, with the name of who asked; the goodbye takes the request away."""
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.01)
    workers = Workers(backend.state)
    requests: list[DrainRequest] = []
    async with fleet_of() as (_, worker), beating(backend, worker, drain=requests.append) as beat:
        await workers.request_drain(beat.id, by="ops@web-1")

        async def was_told() -> bool:
            return bool(requests)

        await eventually(was_told)
        await asyncio.sleep(0.05)  # time enough for a second one, which there must not be
        assert [request.by for request in requests] == ["ops@web-1"]
        beat.leaving()

        async def is_draining() -> bool:
            return any(found.draining for found in await workers.all())

        await eventually(is_draining)
    assert await workers.drain_requested(beat.id) is None


async def test_silence_while_the_broker_is_away(
    fleet_of: WorkerFactory, durable_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat goes on by itself when the server is back."""
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)
    async with await open_backend(durable_server.url()) as remote, fleet_of() as (_, worker):
        workers = Workers(remote.state)
        async with beating(remote, worker) as beat:

            async def is_there() -> bool:
                with suppress(BackendUnavailable):
                    return await workers.is_there(beat.id)
                return False

            await eventually(is_there)
            durable_server.kill()
            with pytest.raises(BackendUnavailable):
                await workers.all()
            durable_server.start()
            await workers.forget(beat.id)
            await eventually(is_there)


async def test_a_store_that_refuses_is_named_once(
    fleet_of: WorkerFactory, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing permission, say: the worker works, but nobody sees it."""
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.001)
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.001)
    refusals = 0

    async def refuse(key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        nonlocal refusals
        refusals += 1
        raise BackendMisconfigured("no permission to write")

    async def often() -> bool:
        return refusals > 3

    async with fleet_of() as (_, worker):
        monkeypatch.setattr(backend.state, "set", refuse)
        with capture_logs() as lines:
            async with beating(backend, worker):
                await eventually(often)
    assert [line["error"] for line in lines if "cannot tell of itself" in line["event"]] == ["no permission to write"]


async def test_who_was_killed_is_forgotten(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A presence ends by itself, in the store and with whoever follows it."""
    monkeypatch.setattr(presence, "TTL_S", 0.05)
    workers = Workers(backend.state)
    changes = workers.changes()
    await workers.tell(told("a"))
    await changes.look()

    async def gone() -> bool:
        return not await workers.is_there("a") and not changes.workers

    await eventually(gone)


async def test_followers_see_who_comes_and_goes(backend: Backend) -> None:
    """Without asking again; what cannot be read, being of another version, is left out."""
    workers = Workers(backend.state)
    changes = workers.changes()
    await workers.tell(told("a"))
    await changes.look()
    following = asyncio.create_task(changes.follow())
    try:
        await asyncio.sleep(0)
        await workers.tell(told("b", running=3))
        await backend.state.set(f"{presence.KEY_PREFIX}c", b"\xff")

        async def both() -> bool:
            return [worker.id for worker in changes.workers] == ["a", "b"]

        await eventually(both)
        await workers.forget("a")

        async def one() -> bool:
            return [worker.id for worker in changes.workers] == ["b"]

        await eventually(one)
    finally:
        following.cancel()
    assert [worker.id for worker in await workers.all()] == ["b"]


@pytest.mark.parametrize("name", ["web-1-4711-3f2a", "web-1-4711", "web-1:4711"])
def test_a_worker_has_several_names(name: str) -> None:
    """Its id, the beginning of it, host and process."""
    workers = [told("web-1-4711-3f2a"), told("web-1-99-0000", pid=99)]
    assert find_worker(workers, name) is workers[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("web-2", "no worker 'web-2': there are web-1-4711-3f2a, web-1-99-0000"),
        ("web-1", "'web-1' means several workers: web-1-4711-3f2a, web-1-99-0000"),
        ("", "no worker ''"),
    ],
)
def test_a_name_that_means_none_or_several_is_refused(name: str, reason: str) -> None:
    """Saying which ones there are."""
    with pytest.raises(WorkerNotFound, match=reason):
        find_worker([told("web-1-4711-3f2a"), told("web-1-99-0000", pid=99)], name)


async def test_a_worker_tells_whether_its_cost_is_known(fleet_of: WorkerFactory, backend: Backend) -> None:
    """Since its start and of the last minute: not before the first call, nor after one that has a price."""
    stages: list[tuple[tuple[float | None, ...], bool]] = [((), False), ((None,), True), ((None, 0.25), False)]
    async with fleet_of() as (_, worker), beating(backend, worker) as beat:
        for costs, is_unpriced in stages:
            for number, cost_usd in enumerate(costs):
                beat._ledger.log_record(a_call(number, cost_usd))
            found = beat.presence()
            assert found.is_unpriced is found.last_minute.is_unpriced is is_unpriced
            assert (found.known_cost_usd is None) is is_unpriced
        assert (found.known_cost_usd, found.last_minute.known_cost_usd) == (0.25, 0.25)


def a_call(number: int, cost_usd: float | None) -> UsageRecord:
    """A model call that a worker has made."""
    usage = TokenUsage(input_tokens=2, output_tokens=3)
    return UsageRecord(
        id=f"t:{number}:0",
        task_id="t",
        provider="p",
        model="m",
        usage=usage,
        cost_usd=cost_usd,
        started_at=1.0,
        duration_ms=1,
        outcome=CallOutcome.COMPLETED,
    )


async def test_a_rate_of_which_no_price_is_known_is_not_nothing(backend: Backend) -> None:
    """Without any priced call the fleet's cost is unknown; with some, it is theirs; without calls, it is 0."""
    workers = Workers(backend.state)
    monitor = Monitor(backend)
    await monitor.look()
    assert (await monitor.snapshot()).cost_usd_per_hour == 0
    unpriced = LastMinute(seconds=60, tasks=5, tokens=1000, is_unpriced=True)
    await workers.tell(told("a", last_minute=unpriced))
    await workers.tell(told("b", last_minute=LastMinute(seconds=60)))
    monitor = Monitor(backend)
    await monitor.look()
    assert (await monitor.snapshot()).cost_usd_per_hour is None
    await workers.tell(told("b", last_minute=LastMinute(seconds=60, cost_usd=0.5)))
    monitor = Monitor(backend)
    await monitor.look()
    assert (await monitor.snapshot()).cost_usd_per_hour == 30


async def test_a_snapshot_survives_a_broken_queue(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are the last minute's, of all workers together; without the queue the last figures stay, and the reason."""
    workers = Workers(backend.state)
    minute = LastMinute(seconds=30, tasks=5, tokens=1000, cost_usd=0.5)
    old = RunningTask(id="1-0", started_at=100.0)
    young = RunningTask(id="2-0", started_at=200.0)
    await workers.tell(told("a", last_minute=minute, running=1, tasks=(young,)))
    await workers.tell(told("b", last_minute=minute, running=1, tasks=(old,)))
    monitor = Monitor(backend)
    await monitor.look()
    snapshot = await monitor.snapshot()
    assert (snapshot.tasks_per_minute, snapshot.tokens_per_minute, snapshot.cost_usd_per_hour) == (20, 4000, 120)
    assert [task.id for task, _ in oldest_tasks(snapshot.workers, 5)] == ["1-0", "2-0"]
    assert [task.id for task, _ in oldest_tasks(snapshot.workers, 1)] == ["1-0"]

    async def away() -> None:
        raise BackendUnavailable("the server is away")

    monkeypatch.setattr(backend.queue, "stats", away)
    broken = await monitor.snapshot()
    assert broken.problem == "the server is away"
    assert broken.queue == snapshot.queue
    assert per_minute(LastMinute(seconds=0.0, tasks=1), 1) == 2, "a worker that began a moment ago is not a rocket"
