"""In this process."""

from __future__ import annotations

import time

from queue_backends import Backend, BackendOptions, open_backend
from queue_backends.interfaces import Delivery
from queue_backends.memory.queue import MemoryQueue
from queue_backends.memory.store import Due, Store
from tests.servers import fresh_stream


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
