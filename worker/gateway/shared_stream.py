"""The chunks of one task on their way to all who watch it: one subscription of the backend, one bounded ring.

A watcher is a position in the ring and nothing else, so that a thousand of them cost no more than one. Who falls out of
the ring reads the missing part from the store, page by page, and comes back. The subscription is drawn on no further
than one ring ahead of the foremost watcher: whoever is fast sets the pace, whoever is slow hinders nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from itertools import islice
from typing import cast

import msgspec

from queue_backends import BackendUnavailable, Chunk, ChunkStream
from worker.gateway.sse_event import encode_event

RING_CHUNKS = 512
RING_BYTES = 1024 * 1024
"""Of encoded chunks, per watched task; one chunk may be larger."""
BATCH_BYTES = 48 * 1024
"""About the most that a watcher is given at once: less than what a connection takes before it has to wait."""
RETRY_S = 0.5

_encode = msgspec.json.Encoder().encode


class SharedChunk:
    """A chunk, and its bytes as a server-sent event: encoded once for all."""

    __slots__ = ("chunk", "event")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.event = encode_event(_encode(chunk), event_id=str(chunk.seq))


class SharedStream:
    """One task's chunks from `after_seq` on, for all who watch it. Ends after the final chunk, or on an error."""

    def __init__(self, source: ChunkStream, task_id: str, after_seq: int, most_bytes: Callable[[], int]) -> None:
        """`most_bytes`: how large the ring may be at this moment, if `RING_BYTES` is too much."""
        self.task_id = task_id
        self.held_bytes = 0
        """Size of the ring."""
        self.watchers = 0
        self.error: Exception | None = None
        """Why the subscription ended, if not as it should."""
        self.has_ended = False
        self._source = source
        self._ring: deque[SharedChunk] = deque()
        self._most_bytes = most_bytes
        self._after_seq = after_seq
        self._front = after_seq
        """The highest `seq` that some watcher has, or does not want."""
        self._waiting: set[asyncio.Future[None]] = set()
        self._wanted = asyncio.Event()
        self._joined: tuple[int, int, bytes] = (0, -1, b"")
        self._task: asyncio.Task[None] | None = None

    @property
    def first_seq(self) -> int:
        """Of the oldest chunk in the ring; where the ring is empty, of the first that will be in it."""
        return self._ring[0].chunk.seq if self._ring else self._after_seq + 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come yet, so that another beginning can still be chosen."""
        return not self._ring

    @property
    def last_seq(self) -> int:
        """Of the newest chunk in the ring."""
        return self._ring[-1].chunk.seq if self._ring else self._after_seq

    def wants(self, after_seq: int) -> None:
        """A watcher has everything up to `after_seq`."""
        if after_seq > self._front:
            self._front = after_seq
            self._wanted.set()

    def after(self, seq: int) -> Sequence[SharedChunk]:
        """Chunks of the ring that follow `seq`, at most about `BATCH_BYTES`."""
        start = seq + 1 - self.first_seq
        batch: list[SharedChunk] = []
        size = 0
        for item in islice(self._ring, max(0, start), None):
            size += len(item.event)
            if batch and size > BATCH_BYTES:
                break
            batch.append(item)
        return batch

    def joined(self, batch: Sequence[SharedChunk]) -> bytes:
        """The events of a batch as one text; who asks for the same as the one before gets the same object."""
        first, last = batch[0].chunk.seq, batch[-1].chunk.seq
        if self._joined[:2] != (first, last):
            self._joined = (first, last, b"".join([item.event for item in batch]))
        return self._joined[2]

    async def more(self) -> None:
        """Return when there is a new chunk, or the end."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def wake(self) -> None:
        """Let all who wait look again."""
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def start(self) -> asyncio.Task[None]:
        """Begin to draw on the subscription; the task ends with it."""
        self._task = asyncio.create_task(self._run(), name=f"chunks of {self.task_id}")
        return self._task

    def begin_at(self, after_seq: int) -> None:
        """Choose an earlier beginning, before anything has come; to be started anew."""
        self.stop()
        self._after_seq = after_seq

    def stop(self) -> None:
        """Draw no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._draw()
        except Exception as error:  # noqa: BLE001 - whatever it is, the watchers are told of it
            self.error = error
        self.has_ended = True
        self.wake()

    async def _draw(self) -> None:
        while True:
            try:
                return await self._draw_from(self.last_seq)
            except BackendUnavailable:
                if not self._ring:  # as a subscription of its own: it could not begin
                    raise
                await asyncio.sleep(RETRY_S)

    async def _draw_from(self, seq: int) -> None:
        source = cast("AsyncGenerator[Chunk, None]", self._source.subscribe(self.task_id, after_seq=seq))
        async with aclosing(source):
            async for chunk in source:
                await self._take(SharedChunk(chunk))

    async def _take(self, item: SharedChunk) -> None:
        while not self._has_room(len(item.event)):
            self._wanted.clear()
            await self._wanted.wait()
        self._ring.append(item)
        self.held_bytes += len(item.event)
        self.wake()

    def _has_room(self, size: int) -> bool:
        """Let go what some watcher has had already, as far as necessary; and whether that was enough."""
        ring = self._ring
        most_bytes = min(RING_BYTES, self._most_bytes())
        while ring and (len(ring) >= RING_CHUNKS or self.held_bytes + size > most_bytes):
            if ring[0].chunk.seq > self._front:
                return False
            self.held_bytes -= len(ring.popleft().event)
        return True
