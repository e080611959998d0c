"""Streams of tasks, shared among all that watch them in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, cast

from queue_backends import Backend, BackendUnavailable, Chunk, ReplayTrimmed
from worker.gateway.shared_stream import RETRY_S, SharedChunk, SharedStream

PAGE_CHUNKS = 200
PAGE_BYTES = 256 * 1024
"""Of what one watcher that fell behind reads from the store at once."""
MOST_BYTES = 256 * 1024 * 1024
LEAST_BYTES = 16 * 1024
"""That much is held of each watched task, however many there are."""
MOST_REPLAYS = 32
"""So many watchers read from the store at a time; the others wait for their turn."""


class ChunkHub:
    """One subscription of the backend for each task that is watched, whatever the number of its watchers."""

    def __init__(self, backend: Backend, *, most_bytes: int = MOST_BYTES) -> None:
        """`most_bytes` of chunks are held in all, beside what clients have not taken yet."""
        self._chunks = backend.chunks
        self._streams: dict[str, SharedStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._replays = asyncio.Semaphore(MOST_REPLAYS)
        self._is_closed = False
        self._most_bytes = most_bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all streams, wherever they are, and give up the subscriptions."""
        self._is_closed = True
        for stream in self._streams.values():
            stream.stop()
            stream.wake()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def is_closed(self) -> bool:
        """Whether it has been closed, which ends its streams early."""
        return self._is_closed

    @property
    def open_streams(self) -> Sequence[SharedStream]:
        """The tasks that are watched."""
        return tuple(self._streams.values())

    async def follow(self, task_id: str, *, after_seq: int = -1) -> AsyncGenerator[Chunk, None]:
        """All chunks with a `seq` greater than `after_seq`: kept ones first, then live ones; no gap, no duplicate.

        Ends after the final chunk, and without one when the hub is closed. Raises `ReplayTrimmed`, `TaskNotFound`,
        and `BackendUnavailable` if it cannot begin. A watcher that takes its time costs the others nothing.
        """
        async with aclosing(self._batches(task_id, after_seq)) as batches:
            async for _, batch in batches:
                for item in batch:
                    yield item.chunk

    async def follow_events(self, task_id: str, *, after_seq: int = -1) -> AsyncGenerator[bytes, None]:
        """As `follow`, as server-sent events whose `id` is the `seq`, encoded once for all; those that are there
        already come together."""
        async with aclosing(self._batches(task_id, after_seq)) as batches:
            async for stream, batch in batches:
                yield stream.joined(batch)

    async def _batches(
        self, task_id: str, after_seq: int
    ) -> AsyncGenerator[tuple[SharedStream, Sequence[SharedChunk]], None]:
        last = after_seq
        while not self._is_closed:
            stream = self._join(task_id, last)
            try:
                while batch := await self._next(stream, last):
                    last = batch[-1].chunk.seq
                    yield stream, batch
                    if batch[-1].chunk.is_final:
                        return
            except ReplayTrimmed as error:
                if error.first_seq > last + 1:
                    raise
                continue  # it was another watcher who wanted more than there is
            finally:
                self._leave(stream)
            return

    async def _next(self, stream: SharedStream, last: int) -> Sequence[SharedChunk]:
        """What follows `last`; nothing: nothing ever will."""
        stream.wants(last)
        while not self._is_closed:
            if last + 1 < stream.first_seq and not stream.is_empty:
                return await self._replayed(stream, last)
            if batch := stream.after(last):
                return batch
            if stream.error is not None:
                raise stream.error
            if stream.has_ended:
                break
            await stream.more()
        return ()

    async def _replayed(self, stream: SharedStream, last: int) -> Sequence[SharedChunk]:
        """A page of what is no longer in the ring: read from the store, for this watcher alone."""
        while True:
            try:
                async with self._replays:
                    return await self._page(stream, last)
            except BackendUnavailable:
                if self._is_closed:
                    raise
                await asyncio.sleep(RETRY_S)

    async def _page(self, stream: SharedStream, last: int) -> Sequence[SharedChunk]:
        page: list[SharedChunk] = []
        room = PAGE_BYTES
        source = cast("AsyncGenerator[Chunk, None]", self._chunks.subscribe(stream.task_id, after_seq=last))
        async with aclosing(source):
            async for chunk in source:
                page.append(SharedChunk(chunk))
                room -= len(page[-1].event)
                if room <= 0 or len(page) == PAGE_CHUNKS or chunk.seq + 1 >= stream.first_seq:
                    break
        return page

    def _share(self) -> int:
        return max(LEAST_BYTES, self._most_bytes // max(1, len(self._streams)))

    def _join(self, task_id: str, after_seq: int) -> SharedStream:
        stream = self._streams.get(task_id)
        if stream is None or stream.has_ended:
            stream = self._streams[task_id] = SharedStream(self._chunks, task_id, after_seq, self._share)
            self._draw(stream)
        elif stream.is_empty and after_seq + 1 < stream.first_seq:
            stream.begin_at(after_seq)
            self._draw(stream)
        stream.watchers += 1
        return stream

    def _leave(self, stream: SharedStream) -> None:
        stream.watchers -= 1
        if not stream.watchers:
            stream.stop()
            self._forget(stream)

    def _draw(self, stream: SharedStream) -> None:
        task = stream.start()
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._drawn(ended, stream))

    def _drawn(self, task: asyncio.Task[None], stream: SharedStream) -> None:
        self._tasks.discard(task)
        if stream.has_ended:  # whoever comes now reads the store: the task may have been brought back meanwhile
            self._forget(stream)

    def _forget(self, stream: SharedStream) -> None:
        if self._streams.get(stream.task_id) is stream:
            del self._streams[stream.task_id]
