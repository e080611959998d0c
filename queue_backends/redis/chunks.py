"""Chunks on Redis: a capped, expiring stream per task for replay, and a channel of the same name for live ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from queue_backends.batching import once_each
from queue_backends.errors import BackendMisconfigured, BackendUnavailable, ReplayTrimmed, TaskNotFound
from queue_backends.interfaces import BackendOptions, ChunkBatch, Delivery
from queue_backends.messages import Chunk, ChunkDraft
from queue_backends.redis import inspection
from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.pubsub import Inbox, PubSubHub
from queue_backends.redis.replay_cap import ReplayCap
from queue_backends.redis.wire import (
    CallTable,
    Holders,
    chunk_items,
    encode_chunks,
    keep_of,
)

PAGE = 500
FIRST_PAGE = 50
PAGE_BYTES = 1_000_000
"""About how much a subscription reads at once: a slow consumer holds one page, whatever the chunks' size."""
MOST_LOST = 1000
RETRY_S = 0.5
RECHECK_S = 15.0
"""A silent subscription looks into the replay stream this often, in case an announcement was lost on the way."""

_decode = msgspec.json.Decoder(Chunk).decode


class _Stream:
    """What a lease's holder knows of its task's stream."""

    __slots__ = ("cap", "next_seq", "size_bytes")

    def __init__(self, cap: ReplayCap, next_seq: int = 0) -> None:
        self.cap = cap
        self.next_seq = next_seq
        self.size_bytes = 0
        """Of what is on its way, as last encoded."""


class Numbering:
    """The next `seq` of each delivery's task, and the size of its stream. Only the lease's holder writes, so it can
    count by itself; what it does not know, because somebody had the task before, it reads once."""

    __slots__ = ("_chunk_bytes", "_client", "_keys", "_lost", "_streams")

    def __init__(self, client: RedisClient, keys: Keys, chunk_bytes: int) -> None:
        self._client = client
        self._keys = keys
        self._chunk_bytes = chunk_bytes
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._lost: dict[tuple[str, str], None] = {}
        """Deliveries that a server called lost. It may take that back, because a failover has lost the new claim: but
        by then their runs have been stopped, and what they had on its way is not known any more."""

    async def prepare(self, deliveries: Sequence[Delivery]) -> None:
        """Make sure that `next_seq` knows these."""
        unknown = [d for d in deliveries if not d.first and key_of(d) not in self._streams]
        if not unknown:
            return
        pages = await self._client.pipeline(
            [("XREVRANGE", self._keys.chunks(d.task.id), "+", "-", "COUNT", 1) for d in unknown]
        )
        found = [_Stream(ReplayCap(self._chunk_bytes), _next_seq(page)) for page in pages]
        await self._measure([(d, stream) for d, stream in zip(unknown, found, strict=True) if stream.next_seq])
        for delivery, stream in zip(unknown, found, strict=True):
            self._streams[key_of(delivery)] = stream

    async def _measure(self, found: Sequence[tuple[Delivery, _Stream]]) -> None:
        """How much a former owner has left of each stream, by the server's own estimate."""
        commands: list[tuple[str | int, ...]] = []
        for delivery, _ in found:
            key = self._keys.chunks(delivery.task.id)
            commands += (("XRANGE", key, "-", "+", "COUNT", 1), ("MEMORY", "USAGE", key, "SAMPLES", 0))
        if not commands:
            return
        try:
            replies = await self._client.pipeline(commands)
        except BackendMisconfigured:  # an ACL may hide MEMORY: then the cap holds for what each owner writes
            return
        for (_, stream), first, kept_bytes in zip(found, replies[::2], replies[1::2], strict=True):
            if first:
                stream.cap.found(_next_seq(first) - 1, stream.next_seq, kept_bytes or 0)

    def encode(self, delivery: Delivery, drafts: Sequence[ChunkDraft]) -> tuple[int, int, list[bytes]]:
        """The `seq` of the next chunk; the one before which the stream is to be cut, to make room, or 0; the chunks'
        JSON.

        Raises `ChunkTooLarge`; then nothing was written.
        """
        key = key_of(delivery)
        stream = self._streams.get(key)
        first_seq = stream.next_seq if stream else 0
        if not drafts:
            return first_seq, 0, []
        encoded = encode_chunks(delivery.task, first_seq, drafts)
        cut_before = stream.cap.trim_before() if stream is not None else 0
        if not drafts[-1].is_final:
            if stream is None:
                stream = self._streams[key] = _Stream(ReplayCap(self._chunk_bytes))
            stream.size_bytes = sum(map(len, encoded))
        return first_seq, cut_before, encoded

    def advance(self, delivery: Delivery, written: int) -> None:
        """Note that so many chunks were written, those that were encoded last."""
        if not written:
            return
        key = key_of(delivery)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream(ReplayCap(self._chunk_bytes))
        stream.cap.wrote(stream.next_seq, stream.size_bytes)
        stream.next_seq += written
        stream.size_bytes = 0

    def forget(self, delivery: Delivery) -> None:
        """The delivery is over."""
        self._streams.pop(key_of(delivery), None)

    def lose(self, delivery: Delivery) -> None:
        """The server says that the delivery is somebody else's: that stays so."""
        self.forget(delivery)
        self._lost[key_of(delivery)] = None
        if len(self._lost) > MOST_LOST:
            del self._lost[next(iter(self._lost))]

    def is_lost(self, delivery: Delivery) -> bool:
        """Whether the server has said so."""
        return bool(self._lost) and key_of(delivery) in self._lost


def _next_seq(page: Sequence[Any]) -> int:
    """The `seq` after that of the only entry of a page; entry ids are `<seq + 1>-0`."""
    return int(page[0][0].partition(b"-")[0]) if page else 0


def _page_size(page: Sequence[bytes]) -> int:
    """How many chunks to read next, if they are like these."""
    return min(PAGE, max(1, PAGE_BYTES * len(page) // (sum(map(len, page)) or 1))) if page else FIRST_PAGE


def key_of(delivery: Delivery) -> tuple[str, str]:
    """One delivery. A token alone comes back when a worker gets a task again that was retried meanwhile, and two lanes
    may give the same entry id in the same millisecond."""
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
        """Write all batches in one script call, or in more if some are of the same delivery."""
        lost: list[Delivery] = []
        for part in once_each(batches, lambda batch: key_of(batch.delivery)):
            lost += await self._publish(part, fenced=fenced)
        return lost

    async def _publish(self, batches: Sequence[ChunkBatch], *, fenced: bool) -> list[Delivery]:
        held = [batch for batch in batches if not self._numbering.is_lost(batch.delivery)]
        if len(held) < len(batches):
            lost_ids = {id(delivery) for delivery in (await self._publish(held, fenced=fenced) if held else ())}
            held_ids = {id(batch.delivery) for batch in held}
            return [each.delivery for each in batches if id(each.delivery) not in held_ids - lost_ids]
        await self._numbering.prepare([batch.delivery for batch in batches])
        lost = await self._write(batches, fenced=fenced)
        for batch in batches:
            self._numbering.advance(batch.delivery, len(batch.chunks))
        for position in lost:
            self._numbering.lose(batches[position].delivery)
        return [batches[position].delivery for position in lost]

    async def _write(self, batches: Sequence[ChunkBatch], *, fenced: bool) -> list[int]:
        """One script call; positions of what is lost."""
        table, holders = CallTable(*self._keys.lanes), Holders()
        items: list[Any] = []
        for batch in batches:
            self._pack(items, batch, table, holders.position(batch.delivery.token) if fenced else 0)
        lost: list[int] = await self._client.script(
            "publish", table.names, table.arguments((GROUP, self._keep, holders.found, items))
        )
        return lost

    def _pack(self, items: list[Any], batch: ChunkBatch, table: CallTable, holder: int) -> None:
        """Append what publish.lua takes of a batch."""
        delivery, task = batch.delivery, batch.delivery.task
        first_seq, cut_before, encoded = self._numbering.encode(delivery, batch.chunks)
        chunks = chunk_items(task, batch.chunks, encoded, table)
        items += (
            9 + len(chunks),
            holder,
            delivery.entry_id if holder else "",
            table.position(self._keys.chunks(task.id)),
            table.position(task.stream_key) if task.stream_key else 0,
            first_seq,
            cut_before,
            bool(batch.chunks) and batch.chunks[-1].is_final,
            len(batch.chunks),
            *chunks,
        )

    async def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """Replay, then live, merged by `seq`. Goes on after lost connections, for as long as the consumer likes."""
        last = after_seq
        async with self._hub.listen(self._keys.chunks(task_id)) as inbox:
            message: bytes | None = None
            count = FIRST_PAGE
            while True:
                chunk = _decode(message) if message is not None else None
                is_behind = chunk is None or chunk.seq > last + 1
                while is_behind:
                    page = await self._page(task_id, last, count, inbox)
                    if page is None:
                        return
                    for kept in map(_decode, page):
                        last = kept.seq
                        yield kept
                        if kept.is_final:
                            return
                    is_behind = len(page) == count
                    count = _page_size(page)
                if chunk is not None and chunk.seq == last + 1:
                    last = chunk.seq
                    yield chunk
                    if chunk.is_final:
                        return
                message = await inbox.get(RECHECK_S)
                if inbox.closed:
                    return

    async def _page(self, task_id: str, last: int, count: int, inbox: Inbox) -> list[bytes] | None:
        """Kept chunks after `last`, up to `count`; None after the final one, and once the backend was closed. Waits
        while the server is away."""
        while True:
            try:
                return await self._read(task_id, last, count)
            except BackendUnavailable:
                await inbox.get(RETRY_S)  # a connection that is back announces itself as a gap
                if inbox.closed:
                    return None

    async def _read(self, task_id: str, last: int, count: int) -> list[bytes] | None:
        key = self._keys.chunks(task_id)
        page = await self._client.command("XRANGE", key, f"{last + 2}-0", "+", "COUNT", count)
        if not page:
            if await self._is_over(task_id, key, last):
                return None
        elif (first_seq := _next_seq(page) - 1) > last + 1:
            raise ReplayTrimmed(task_id, first_seq)
        return [fields[1] for _, fields in page]

    async def _is_over(self, task_id: str, key: str, seen_seq: int) -> bool:
        """Nothing new after `seen_seq`: that is well for a task that goes on, the end after a final chunk, and hopeless
        for a task whose stream has expired, or that the server has lost since chunks were seen."""
        last, is_alive, ended = await self._traces(task_id, key)
        if ended and not last:
            raise TaskNotFound(f"the chunks of task {task_id} are no longer kept: read its result instead")
        if seen_seq >= 0 and not (last or is_alive):
            raise TaskNotFound(f"the server has lost task {task_id} and its chunks: submit it again")
        return _next_seq(last) <= seen_seq + 1 and any(_decode(fields[1]).is_final for _, fields in last)

    async def _traces(self, task_id: str, key: str) -> tuple[Sequence[Any], bool, bool]:
        """A page with the last entry of the task's stream, whether the task is in the queue, whether it has ended."""
        lane, entry = self._keys.lanes[1], task_id if inspection.is_entry_id(task_id) else "0-0"
        moved, entries, last, ended = await self._client.pipeline(
            [
                ("HGET", self._keys.moved, task_id),
                ("XRANGE", lane, entry, entry),
                ("XREVRANGE", key, "+", "-", "COUNT", 1),
                ("HEXISTS", self._keys.results, task_id),  # last: a task that ends has its result when its entry goes
            ]
        )
        return last, bool(moved or entries), bool(ended)

    async def close(self) -> None:
        """End all subscriptions."""
        await self._hub.close()
