"""Chunks in tables: a row per task's stream, a row per chunk for replay, and announcements for live ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import msgspec

from queue_backends.errors import BackendUnavailable, ReplayTrimmed, TaskNotFound
from queue_backends.interfaces import ChunkBatch, Delivery
from queue_backends.messages import Chunk
from queue_backends.postgresql.channels import Channel
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.inbox import Inbox
from queue_backends.postgresql.listening import Hub
from queue_backends.postgresql.names import id_of, key_of
from queue_backends.postgresql.writing import Writer

PAGE = 500
FIRST_PAGE = 50
PAGE_BYTES = 1_000_000
"""About how much a subscription reads at once: a slow consumer holds one page, whatever the chunks' size."""
RETRY_S = 0.5
RECHECK_S = 15.0
"""A silent subscription looks into its stream this often, in case an announcement was lost on the way."""

_decode = msgspec.json.Decoder(Chunk).decode


class Page(NamedTuple):
    """What was read of a stream."""

    chunks: list[Chunk]
    size_bytes: int
    is_last: bool
    """The stream has ended, and nothing comes after what was seen."""


class PostgresqlChunks:
    """`ChunkStream` on PostgreSQL."""

    def __init__(self, connections: Connections, queue_id: int, hub: Hub, writer: Writer) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._hub = hub
        self._writer = writer

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        """Write all batches in one statement, or in more if some are of the same task."""
        return await self._writer.publish(batches, fenced=fenced)

    async def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """Replay, then live, merged by `seq`. Goes on after lost connections, for as long as the consumer likes."""
        last, count = after_seq, FIRST_PAGE
        async with self._hub.listen(Channel.CHUNKS, task_id) as inbox:
            news: list[Chunk] | None = None
            while True:
                is_behind = news is None or news[0].seq > last + 1
                while is_behind:
                    page = await self._page(task_id, last, count, inbox)
                    for chunk in page.chunks:
                        last = chunk.seq
                        yield chunk
                        if chunk.is_final:
                            return
                    if page.is_last or inbox.closed:
                        return
                    is_behind = len(page.chunks) == count
                    count = _page_size(page)
                for chunk in news or ():
                    if chunk.seq == last + 1:
                        last = chunk.seq
                        yield chunk
                        if chunk.is_final:
                            return
                heard: Any = await inbox.get(RECHECK_S)
                if inbox.closed:
                    return
                news = [_decode(json) for json in heard] if heard else None

    async def _page(self, task_id: str, last: int, count: int, inbox: Inbox) -> Page:
        """Kept chunks after `last`, up to `count`. Waits while the server is away."""
        while True:
            try:
                return await self._read(task_id, last, count)
            except BackendUnavailable:
                await inbox.get(RETRY_S)  # a connection that is back announces itself as a gap
                if inbox.closed:
                    raise

    async def _read(self, task_id: str, last: int, count: int) -> Page:
        parameters = {
            "queue": self._queue_id,
            "task": key_of(task_id),
            "id": id_of(task_id),
            "after": last,
            "limit": count,
        }
        rows = await self._connections.execute("read_chunks", parameters)
        next_seq, has_ended, has_result, is_waiting, *_ = rows[0]
        kept = [row[4] for row in rows if row[4] is not None]
        chunks = [_decode(json) for json in kept]
        if chunks and chunks[0].seq > last + 1:
            raise ReplayTrimmed(task_id, chunks[0].seq)
        if next_seq is None and has_result:
            raise TaskNotFound(f"the chunks of task {task_id} are no longer kept: read its result instead")
        if next_seq is None and last >= 0 and not is_waiting:
            raise TaskNotFound(f"the server has lost task {task_id} and its chunks: submit it again")
        is_last = not chunks and bool(has_ended) and next_seq <= last + 1
        return Page(chunks, sum(map(len, kept)), is_last)

    async def close(self) -> None:
        """End all subscriptions."""
        await self._hub.close()


def _page_size(page: Page) -> int:
    """How many chunks to read next, if they are like these."""
    if not page.chunks:
        return FIRST_PAGE
    return min(PAGE, max(1, PAGE_BYTES * len(page.chunks) // (page.size_bytes or 1)))
