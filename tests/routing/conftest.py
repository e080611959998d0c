"""Workers whose agent takes a route, on a memory backend of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from providers import register
from queue_backends import Backend, BackendOptions, StateStore, open_backend
from tests.routing.stage import CUES, Cue, Stage
from worker.assembly import open_worker
from worker.client import Fleet
from worker.settings import load_settings
from worker.worker import Worker

WorkerFactory = Callable[..., AbstractAsyncContextManager[tuple[Fleet, Worker]]]


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A memory backend of the test's own."""
    async with await open_backend("memory://", BackendOptions(lease_s=5)) as opened:
        yield opened


@pytest.fixture
def routed(backend: Backend) -> WorkerFactory:
    """Starts a worker with routes: `async with routed({"main": [...]}, **settings) as (fleet, worker)`. Its agent takes
    the first of them."""

    @asynccontextmanager
    async def start(routes: dict[str, Any], **settings: Any) -> AsyncIterator[tuple[Fleet, Worker]]:
        overrides = {"routes": routes, "agent.route": next(iter(routes), ""), "retry_base_s": 0.0, **settings}
        async with open_worker(load_settings({}, file=None, overrides=overrides), backend) as worker:
            yield Fleet(backend), worker

    return start


@pytest.fixture
def cues() -> Iterator[dict[str, Cue]]:
    """The models `first`, `second` and `third` of the provider `stage`."""
    CUES.clear()
    CUES.update(first=Cue(), second=Cue(), third=Cue())
    register("stage", Stage)
    yield CUES
    CUES.clear()


@pytest.fixture
def memory(backend: Backend) -> StateStore:
    """A state store of the test's own."""
    return backend.state
