"""A backend whose queue, chunks and state are on different engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from types import MappingProxyType

from queue_backends.capabilities import Capability
from queue_backends.interfaces import Backend, ChunkBatch, ChunkStream, Delivery, LeaseRenewer, TaskQueue
from queue_backends.messages import Chunk


class ForeignChunks:
    """Chunks on another engine than the queue: the queue is asked for the lease first, and the chunks follow.

    Two steps instead of one: a lease that is lost between them lets a late chunk through. And a task that is cancelled
    while it waits ends on the queue's engine alone: its consumers here hear of it through its result.
    """

    def __init__(self, queue: TaskQueue, chunks: ChunkStream) -> None:
        self._queue = queue
        self._chunks = chunks

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        """Renew, then publish what is still owned."""
        lost = await self._queue.renew([batch.delivery for batch in batches]) if fenced else []
        owned = [batch for batch in batches if batch.delivery not in lost]
        if owned:
            await self._chunks.publish(owned, fenced=False)
        return lost

    def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """As the other engine has them."""
        return self._chunks.subscribe(task_id, after_seq=after_seq)

    async def close(self) -> None:
        """Close the other engine's stream."""
        await self._chunks.close()


class ComposedBackend(Backend):
    """Three engines, or two; each is closed with it.

    It lacks what its queue lacks, what any of its engines lacks that all of them would need, and one step for all.
    """

    def __init__(self, queue: Backend, chunks: Backend, state: Backend) -> None:
        stream = queue.chunks if chunks is queue else ForeignChunks(queue.queue, chunks.chunks)
        super().__init__(queue.queue, stream, state.state, url=queue.url)
        self.gaps = _gaps(queue, chunks, state)
        self._queue_engine = queue
        self._engines = tuple({id(backend): backend for backend in (queue, chunks, state)}.values())

    def lease_renewer(self) -> LeaseRenewer | None:
        """The queue's."""
        return self._queue_engine.lease_renewer()

    async def close(self) -> None:
        """Close all engines, whatever happens to one of them."""
        async with AsyncExitStack() as stack:
            for engine in self._engines:
                stack.push_async_callback(engine.close)


def _gaps(queue: Backend, chunks: Backend, state: Backend) -> Mapping[Capability, str]:
    own = {Capability.ATOMIC_COMMIT: "a crash in the middle of a run's end leaves some of it written, some not"}
    if chunks is not queue:
        own[Capability.FENCED_CHUNKS] = "a worker that has just lost its lease may still publish what was under way"
        own[Capability.CANCEL_WAITING] = (
            "a task that is cancelled while it waits has a result, and a stream without an end"
        )
    elif Capability.FENCED_CHUNKS in queue.gaps:
        own[Capability.FENCED_CHUNKS] = queue.gaps[Capability.FENCED_CHUNKS]
    of_all = {
        capability: f"{role}: {engine.gaps[capability]}"
        for role, engine in (("state", state), ("chunks", chunks), ("queue", queue))
        for capability in (Capability.DURABLE, Capability.SHARED)
        if capability in engine.gaps
    }
    of_queue = {each: gap for each, gap in queue.gaps.items() if each is not Capability.FENCED_CHUNKS}
    return MappingProxyType({**of_queue, **of_all, **own})
