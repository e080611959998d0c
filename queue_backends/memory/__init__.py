"""`memory://`: everything in this process, for unit tests and for work that need not outlive it.

Each `open_backend("memory://")` has a store of its own; those opened with a name, `memory://name`, share one as long as
any of them lives.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import MappingProxyType

from queue_backends.capabilities import Capability
from queue_backends.errors import LeaseLost
from queue_backends.interfaces import (
    Ack,
    Backend,
    BackendOptions,
    ChunkBatch,
    Dead,
    P,
    Progress,
    Release,
    Retry,
)
from queue_backends.memory.chunks import MemoryChunks
from queue_backends.memory.queue import MemoryQueue
from queue_backends.memory.state import MemoryState
from queue_backends.memory.store import Store

__all__ = ["MemoryBackend", "open_backend"]

_named: weakref.WeakValueDictionary[str, Store] = weakref.WeakValueDictionary()


class MemoryBackend(Backend):
    """All three in memory. Nothing awaits between the check of a fence and the writes behind it."""

    gaps = MappingProxyType(
        {
            Capability.DURABLE: "everything is gone when this process ends",
            Capability.SHARED: "no other process can see this queue",
            Capability.LEASE_THREAD: "a task that holds up the event loop for longer than a lease is run again",
        }
    )

    def __init__(self, store: Store, options: BackendOptions, *, url: str = "memory://") -> None:
        self._queue = MemoryQueue(store, options)
        self._chunks = MemoryChunks(store, options)
        self._state = MemoryState(store)
        self._store = store
        super().__init__(self._queue, self._chunks, self._state, url=url)

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """Each outcome as a whole, or not at all."""
        lost: list[P] = []
        for outcome in outcomes:
            try:
                await self._carry_out(outcome)
            except LeaseLost:
                lost.append(outcome)
        return lost

    async def _carry_out(self, outcome: Progress) -> None:
        delivery = outcome.delivery
        self._store.owned(delivery)
        if outcome.chunks:
            self._chunks.write(ChunkBatch(delivery=delivery, chunks=outcome.chunks))
        await self._state.append_once(outcome.records)
        match outcome:
            case Ack(result=result):
                await self._queue.ack(delivery, result)
            case Dead(result=result, next_attempt=next_attempt):
                self._queue.bury(delivery, result, next_attempt=next_attempt)
            case Retry(retry_in_s=retry_in_s, next_attempt=next_attempt, spent=spent, counts=counts):
                self._queue.bring_back(
                    delivery, retry_in_s=retry_in_s, next_attempt=next_attempt, spent=spent, counts=counts
                )
            case Release(next_attempt=next_attempt, spent=spent):
                self._queue.bring_back(delivery, retry_in_s=None, next_attempt=next_attempt, spent=spent)


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """A backend on the store that the URL names."""
    name = url.partition("://")[2].partition("?")[0]
    store = _named.get(name) if name else None
    if store is None:
        store = Store()
        if name:
            _named[name] = store
    return MemoryBackend(store, options, url=url)
