"""What a worker says of itself follows from what happens to it, not from what somebody sets."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from providers import AgentConfig, CallTool, ChunkFn
from queue_backends import Backend, BackendOptions, Task, open_backend
from queue_backends.redis.keys import GROUP
from tests.servers import Server
from tests.worker.redis_fleets import LIMIT_S, provider_of
from worker.assembly.parts import open_parts, surroundings_of
from worker.client import Fleet
from worker.health import HealthState
from worker.metrics import Metrics
from worker.prometheus import render
from worker.settings import Settings
from worker.worker import Worker

LEASE_S = 0.4
LONG_S = 100.0


class Clock:
    """A clock that a test turns."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """What the worker's health goes by."""
    return Clock()


@asynccontextmanager
async def working(backend: Backend, clock: Clock, provider: str) -> AsyncIterator[tuple[Worker, Metrics]]:
    """A worker with one slot, and its figures."""
    settings = Settings(agent=AgentConfig(model="m", provider=provider), retry_base_s=0.0)
    async with open_parts(settings, backend) as parts:
        metrics, health = parts.records.metrics, HealthState(clock=clock)
        around = functools.partial(surroundings_of, settings, backend, parts)
        worker = Worker(backend, around, metrics=metrics, health=health, concurrency=1, lease_s=LEASE_S)
        running = asyncio.create_task(worker.run())
        try:
            yield worker, metrics
        finally:
            worker.stop()
            async with asyncio.timeout(LIMIT_S):
                await running


def shown(metrics: Metrics, name: str) -> float:
    """The figure of this name on the worker's page."""
    found = re.search(rf"^shoal_{name} (\S+)$", render(metrics), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


async def until(metrics: Metrics, name: str, count: float) -> None:
    """Wait until the page shows that much."""
    async with asyncio.timeout(LIMIT_S):
        while shown(metrics, name) < count:
            await asyncio.sleep(0.01)  # the page wakes nobody


async def test_who_is_full_or_leaves_is_not_said_to_pull_nothing(clock: Clock) -> None:
    """The alert is for workers that could take a task: a run of ten minutes in the only slot is no fault."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        started.set()
        await go_on.wait()
        return "done"

    async with await open_backend("memory://") as backend:
        handle = await Fleet(backend).submit("hi")
        async with working(backend, clock, provider_of("long", run)) as (worker, metrics), asyncio.timeout(LIMIT_S):
            await started.wait()
            await asyncio.sleep(0)  # the pull loop finds no free slot
            clock.now += LONG_S
            assert shown(metrics, "worker_last_pull_age_seconds") == 0
            worker.stop()
            await asyncio.sleep(0)
            clock.now += LONG_S
            assert shown(metrics, "worker_last_pull_age_seconds") == 0
            go_on.set()
            assert (await handle.result(LIMIT_S)).output == "done"


async def test_a_queue_that_never_answers_shows(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to a worker that has not had a single answer."""
    asked = asyncio.Event()

    async def hang(*_: object) -> list[object]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with await open_backend("memory://") as backend:
        monkeypatch.setattr(backend.queue, "pull", hang)
        async with working(backend, clock, "scripted") as (_, metrics), asyncio.timeout(LIMIT_S):
            await asked.wait()
            clock.now += LONG_S
            assert shown(metrics, "worker_last_pull_age_seconds") == LONG_S


async def test_tries_and_ends_are_counted(clock: Clock) -> None:
    """One task that is answered at the first try, and one that fails until it is given up."""

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        if task.prompt == "fails":
            raise RuntimeError("no luck")
        return "done"

    async with await open_backend("memory://") as backend:
        fleet = Fleet(backend)
        handles = await fleet.submit_many(["fails", "works"])
        async with working(backend, clock, provider_of("unlucky", run)) as (_, metrics):
            results = [await handle.result(LIMIT_S) for handle in handles]
            await until(metrics, "worker_commit_batch_sum", 5)
    assert [bool(result.error) for result in results] == [True, False]
    assert shown(metrics, "worker_pulled_total") == 5
    assert shown(metrics, "worker_retried_total") == 3
    assert shown(metrics, "worker_dead_total") == 1
    assert shown(metrics, "worker_lease_lost_total") == 0
    assert shown(metrics, "worker_chunks_published_total") > 0
    assert shown(metrics, "worker_running") == 0


async def test_a_lost_lease_is_counted(valkey_server: Server, stream: str, clock: Clock) -> None:
    """Somebody else has claimed the entry: the run is stopped, once."""
    started = asyncio.Event()

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    options = BackendOptions(lease_s=LEASE_S)
    async with (
        await open_backend(valkey_server.url(stream), options) as backend,
        redis.asyncio.Redis.from_url(valkey_server.url()) as raw,
        working(backend, clock, provider_of("robbed", run)) as (worker, metrics),
        asyncio.timeout(LIMIT_S),
    ):
        handle = await Fleet(backend).submit("hi")
        await started.wait()
        await raw.xclaim(stream, GROUP, "thief", 0, [handle.id])
        await until(metrics, "worker_lease_lost_total", 1)
        while worker.running:
            await asyncio.sleep(0.01)  # as above
        assert shown(metrics, "worker_lease_lost_total") == 1
