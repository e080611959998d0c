"""`ChunkStream` in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from queue_backends.errors import LeaseLost, ReplayTrimmed, TaskNotFound
from queue_backends.interfaces import BackendOptions, ChunkBatch, Delivery
from queue_backends.memory.store import Store
from queue_backends.messages import Chunk

RECHECK_S = 15.0


class MemoryChunks:
    """`ChunkStream` on a `Store`: a subscription reads what is kept and waits for more."""

    def __init__(self, store: Store, options: BackendOptions) -> None:
        self._store = store
        self._options = options
        self._closed = False

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        """Write all batches whose lease holds. Raises `ChunkTooLarge`; then nothing was written."""
        for batch in batches:
            self._store.check_chunks(batch.delivery.task.id, batch.chunks)
        lost = []
        for batch in batches:
            try:
                self.write(batch, fenced=fenced)
            except LeaseLost:
                lost.append(batch.delivery)
        await asyncio.sleep(0)
        return lost

    def write(self, batch: ChunkBatch, *, fenced: bool = True) -> None:
        """Write one batch. Raises `LeaseLost` or `ChunkTooLarge`."""
        if fenced:
            self._store.owned(batch.delivery)
        self._store.write_chunks(batch.delivery.task.id, batch.chunks, self._options)

    async def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """Kept chunks, then new ones as they are written."""
        last = after_seq
        while not self._closed:
            for chunk in self._after(task_id, last):
                last = chunk.seq
                yield chunk
                if chunk.is_final:
                    return
            if self._is_over(task_id, last):
                return
            if not self._closed and not self._after(task_id, last):
                await self._store.changed.wait(RECHECK_S)

    def _is_over(self, task_id: str, last: int) -> bool:
        """Whether the final chunk is among those that were seen."""
        stream = self._store.stream(task_id)
        return stream is not None and stream.ended and last >= stream.next_seq - 1

    def _after(self, task_id: str, last: int) -> list[Chunk]:
        stream = self._store.stream(task_id)
        if stream is None:
            if task_id in self._store.results:
                raise TaskNotFound(f"the chunks of task {task_id} are no longer kept: read its result instead")
            return []
        if stream.chunks and stream.chunks[0].seq > last + 1:
            raise ReplayTrimmed(task_id, stream.chunks[0].seq)
        return [chunk for chunk in stream.chunks if chunk.seq > last]

    async def close(self) -> None:
        """End all subscriptions that were made here."""
        self._closed = True
        self._store.changed.notify()
