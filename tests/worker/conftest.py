"""A worker in this process, on the memory backend, with the scripted provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from queue_backends import Backend, BackendOptions, open_backend
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
def fleet_of(backend: Backend) -> WorkerFactory:
    """Starts a worker: `async with fleet_of(script=..., **settings) as (fleet, worker)`."""

    @asynccontextmanager
    async def start(*, script: Any = None, **settings: Any) -> AsyncIterator[tuple[Fleet, Worker]]:
        overrides = {"agent.model": "scripted", "agent.provider": "scripted", "retry_base_s": 0.0, **settings}
        if script is not None:
            overrides["agent.options"] = {"script": script}
        loaded = load_settings({}, file=None, overrides=overrides)
        async with open_worker(loaded, backend) as worker:
            yield Fleet(backend), worker

    return start
