"""Where a modelled queue stands, and how time is made to pass there: a lease or a delay ends when a test says so."""

from __future__ import annotations

import time
from typing import Protocol

import redis.asyncio

from queue_backends import Backend, BackendOptions, open_backend
from queue_backends.interfaces import Delivery
from queue_backends.memory.queue import MemoryQueue
from queue_backends.memory.store import Due, Store
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.queue import RedisQueue
from queue_backends.redis.wire import fence_of
from tests.servers import Server, fresh_stream


class Site(Protocol):
    """One queue's storage."""

    async def open(self, options: BackendOptions) -> Backend:
        """Open it once more, as another process would."""
        ...

    async def end_lease(self, delivery: Delivery) -> None:
        """From now on the delivery's lease has run out."""
        ...

    async def end_delay(self, task_id: str) -> None:
        """From now on the delayed task is due."""
        ...

    def look_around(self, backend: Backend) -> None:
        """Make the backend's next pull look for leases that have run out."""
        ...

    async def close(self) -> None:
        """Give up what the site itself holds."""
        ...


class MemorySite:
    """A named store of this process. With `composed`, the backend is the three parts without their own `commit`."""

    def __init__(self, *, composed: bool = False) -> None:
        self._url = f"memory://{fresh_stream()}"
        self._composed = composed
        self._store: Store | None = None

    async def open(self, options: BackendOptions) -> Backend:
        """A backend on the store."""
        backend = await open_backend(self._url, options)
        assert isinstance(backend.queue, MemoryQueue)
        self._store = backend.queue._store
        return Backend(backend.queue, backend.chunks, backend.state) if self._composed else backend

    def _opened(self) -> Store:
        assert self._store is not None, "open the site first"
        return self._store

    async def end_lease(self, delivery: Delivery) -> None:
        """Its moment of expiry is now."""
        running = self._opened().running
        entry, lease = running[delivery.entry_id]
        running[delivery.entry_id] = (entry, lease._replace(expires_at=time.monotonic()))

    async def end_delay(self, task_id: str) -> None:
        """It is due now."""
        delayed = self._opened().delayed
        moved = [Due(0.0, due.order, due.entry) if due.entry.task.id == task_id else due for due in delayed]
        delayed[:] = sorted(moved)

    def look_around(self, backend: Backend) -> None:
        """Every pull does."""

    async def close(self) -> None:
        """Nothing is held."""


class RedisSite:
    """A queue of its own on a server."""

    def __init__(self, server: Server) -> None:
        stream = fresh_stream()
        self._url = server.url(stream)
        self._keys = Keys(stream)
        self._client = redis.asyncio.Redis.from_url(server.url())
        self._client.response_callbacks.clear()  # the driver's reading of XCLAIM knows no JUSTID

    async def open(self, options: BackendOptions) -> Backend:
        """Another connection."""
        return await open_backend(self._url, options)

    async def end_lease(self, delivery: Delivery) -> None:
        """The entry is idle for longer than any lease; JUSTID leaves its owner and count as they are."""
        fence = fence_of(delivery)
        lane = self._keys.lanes[fence.lane - 1]
        await self._client.execute_command(
            "XCLAIM", lane, GROUP, fence.consumer, 0, fence.entry, "IDLE", 10**9, "JUSTID"
        )

    async def end_delay(self, task_id: str) -> None:
        """It was due long ago."""
        await self._client.zadd(self._keys.delayed, {task_id: 1}, xx=True)

    def look_around(self, backend: Backend) -> None:
        """At once, although the server has just been started."""
        assert isinstance(backend.queue, RedisQueue)
        puller = backend.queue._puller
        puller._next_reclaim = 0.0
        puller._client.availability._silence_ended_at = float("-inf")

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()
