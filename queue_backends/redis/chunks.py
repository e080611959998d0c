"""Chunks on Redis: a capped, expiring stream per task for replay, and a channel of the same name for live ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import structlog

from queue_backends.errors import BackendUnavailable, ReplayTrimmed, TaskNotFound
from queue_backends.interfaces import BackendOptions, ChunkBatch, Delivery
from queue_backends.messages import Chunk
from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.pubsub import Inbox, PubSubHub
from queue_backends.redis.wire import NO_FENCE, CallTable, Fence, encode_chunks, fence_of, keep_of

PAGE = 500
RETRY_S = 0.5
RECHECK_S = 15.0
"""A silent subscription looks into the replay stream this often, in case an announcement was lost on the way."""

log = structlog.get_logger(__name__)

_decode = msgspec.json.Decoder(Chunk).decode


class Numbering:
    """The next `seq` of each delivery's task. Only the lease's holder writes, so it can count by itself; what it does
    not know, because somebody had the task before, it reads once."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._next: dict[tuple[str, str], int] = {}

    async def prepare(self, deliveries: Sequence[Delivery]) -> None:
        """Make sure that `next_seq` knows these."""
        unknown = [d for d in deliveries if not d.first and _key(d) not in self._next]
        if not unknown:
            return
        replies = await self._client.pipeline(
            [("XREVRANGE", self._keys.chunks(d.task.id), "+", "-", "COUNT", 1) for d in unknown]
        )
        for delivery, last in zip(unknown, replies, strict=True):
            seq = int(last[0][0].partition(b"-")[0]) if last else 0
            self._next[_key(delivery)] = seq

    def next_seq(self, delivery: Delivery) -> int:
        """The `seq` of the next chunk."""
        return self._next.get(_key(delivery), 0)

    def advance(self, delivery: Delivery, written: int) -> None:
        """Note that so many chunks were written."""
        self._next[_key(delivery)] = self.next_seq(delivery) + written

    def forget(self, delivery: Delivery) -> None:
        """The delivery is over."""
        self._next.pop(_key(delivery), None)


def _key(delivery: Delivery) -> tuple[str, str]:
    """One delivery. A token alone comes back when a worker gets a task again that was retried meanwhile."""
    return delivery.entry_id, delivery.token


class RedisChunks:
    """`ChunkStream` on Redis."""

    def __init__(
        self, client: RedisClient, keys: Keys, hub: PubSubHub, numbering: Numbering, options: BackendOptions
    ) -> None:
        self._client = client
        self._keys = keys
        self._hub = hub
        self._numbering = numbering
        self._keep = keep_of(options)

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        """Write all batches in one script call."""
        if not batches:
            return []
        await self._numbering.prepare([batch.delivery for batch in batches])
        table = CallTable(*self._keys.lanes)
        packed = [self._pack(batch, table, fence_of(batch.delivery) if fenced else NO_FENCE) for batch in batches]
        lost = await self._client.script("publish", table.names, table.arguments((GROUP, self._keep, packed)))
        for batch in batches:
            self._numbering.advance(batch.delivery, len(batch.chunks))
        for position in lost:
            self._numbering.forget(batches[position].delivery)
        return [batches[position].delivery for position in lost]

    def _pack(self, batch: ChunkBatch, table: CallTable, fence: Fence) -> tuple[Any, ...]:
        delivery = batch.delivery
        task = delivery.task
        first_seq = self._numbering.next_seq(delivery)
        return (
            fence.lane,
            fence.entry,
            fence.consumer,
            fence.deliveries,
            table.position(self._keys.chunks(task.id)),
            table.position(task.stream_key) if task.stream_key else 0,
            first_seq,
            encode_chunks(task, first_seq, batch.chunks),
            bool(batch.chunks) and batch.chunks[-1].is_final,
        )

    async def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """Replay, then live, merged by `seq`. Goes on after lost connections, for as long as the consumer likes."""
        last = after_seq
        async with self._hub.listen(self._keys.chunks(task_id)) as inbox:
            message: bytes | None = None
            while True:
                chunk = _decode(message) if message is not None else None
                is_behind = chunk is None or chunk.seq > last + 1
                while is_behind:
                    page = await self._page(task_id, last, inbox)
                    for kept in page:
                        last = kept.seq
                        yield kept
                        if kept.is_final:
                            return
                    is_behind = len(page) == PAGE
                if chunk is not None and chunk.seq == last + 1:
                    last = chunk.seq
                    yield chunk
                    if chunk.is_final:
                        return
                message = await inbox.get(RECHECK_S)
                if inbox.closed:
                    return

    async def _page(self, task_id: str, last: int, inbox: Inbox) -> list[Chunk]:
        """Kept chunks after `last`, up to `PAGE`; waits while the server is away."""
        complained = False
        while True:
            try:
                return await self._read(task_id, last)
            except BackendUnavailable as error:
                if not complained:
                    log.warning("cannot read chunks, trying again", task=task_id, error=str(error))
                    complained = True
                await inbox.get(RETRY_S)  # a connection that is back announces itself as a gap
                if inbox.closed:
                    raise

    async def _read(self, task_id: str, last: int) -> list[Chunk]:
        key = self._keys.chunks(task_id)
        page = await self._client.command("XRANGE", key, f"{last + 2}-0", "+", "COUNT", PAGE)
        chunks = [_decode(fields[1]) for _, fields in page]
        if not chunks:
            await self._check_kept(task_id, key)
        elif chunks[0].seq > last + 1:
            raise ReplayTrimmed(task_id, chunks[0].seq)
        return chunks

    async def _check_kept(self, task_id: str, key: str) -> None:
        """Nothing new: that is well for a task that goes on, and hopeless for one whose stream has expired."""
        ended, kept = await self._client.pipeline([("HEXISTS", self._keys.results, task_id), ("EXISTS", key)])
        if ended and not kept:
            raise TaskNotFound(f"the chunks of task {task_id} are no longer kept: read its result instead")

    async def close(self) -> None:
        """End all subscriptions."""
        await self._hub.close()
