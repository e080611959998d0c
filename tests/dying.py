"""A backend whose holder dies at its n-th write: just before it, or just after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from queue_backends import Backend, ChunkBatch, Delivery
from queue_backends.interfaces import P


class Dying(Backend):
    """From its death on every write is refused, as those of a worker are whose tasks somebody else has."""

    def __init__(self, inner: Backend, at: int, when: Literal["before", "after"]) -> None:
        super().__init__(_DyingQueue(inner.queue, self), _DyingChunks(inner.chunks, self), inner.state)  # type: ignore[arg-type]  # they pass on all else
        self.inner = inner
        self.at = at
        self.when = when
        self.writes = 0
        self.dead = asyncio.Event()

    async def write(self, items: Sequence[Any], write: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        """Carry out a write unless its time has come; returns what is lost."""
        if self.dead.is_set():
            return list(items)
        self.writes += 1
        if self.writes < self.at:
            return await write()
        if self.when == "after":
            await write()
        self.dead.set()
        return list(items)

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        return await self.write(outcomes, lambda: self.inner.commit(outcomes))


class _DyingChunks:
    def __init__(self, inner: Any, life: Dying) -> None:
        self.inner = inner
        self.life = life

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def publish(self, batches: Sequence[ChunkBatch]) -> list[Delivery]:
        lost = await self.life.write(batches, lambda: self.inner.publish(batches))
        return [batch.delivery if isinstance(batch, ChunkBatch) else batch for batch in lost]


class _DyingQueue:
    def __init__(self, inner: Any, life: Dying) -> None:
        self.inner = inner
        self.life = life

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return list(deliveries) if self.life.dead.is_set() else await self.inner.renew(deliveries)

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        if self.life.dead.is_set():
            await asyncio.Event().wait()
        return await self.inner.pull(limit, wait_s)  # type: ignore[no-any-return]  # a queue's
