"""From a run's deltas to published chunks: joined for a few milliseconds per task, written for all tasks at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from queue_backends import Backend, ChunkBatch, ChunkDraft, ChunkType, Delivery, QueueError
from queue_backends.batching import batches as bounded
from queue_backends.batching import chunk_chars
from worker.metrics import WorkerMetrics
from worker.persistence import persistently

JOIN_S = 0.004
"""Text that follows other text of its task more closely than this waits so long for more. A task's first chunk, one
after a pause, tool chunks and final ones do not wait."""
LONGEST_CHUNK_CHARS = 16_384
MOST_PENDING_CHARS = 262_144
"""A run that is this far ahead of the broker waits for it."""

_TEXT = frozenset({ChunkType.CONTENT, ChunkType.THINKING})

log = structlog.get_logger(__name__)


class _Piece:
    """A chunk in the making; text is joined when it is taken."""

    __slots__ = ("attempt", "kind", "metadata", "size", "texts", "turn")

    def __init__(self, kind: ChunkType, text: str, turn: int, attempt: int, metadata: Mapping[str, Any]) -> None:
        self.kind = kind
        self.texts = [text]
        self.size = len(text)
        self.turn = turn
        self.attempt = attempt
        self.metadata = metadata

    def draft(self) -> ChunkDraft:
        return ChunkDraft(
            type=self.kind,
            content="".join(self.texts),
            turn=self.turn,
            attempt=self.attempt,
            metadata=dict(self.metadata),
        )


_NO_METADATA: Mapping[str, Any] = {}


class ChunkWriter:
    """The chunk function of one run. `turn` and `attempt` are what its chunks carry from now on."""

    __slots__ = ("_idle", "_pending_chars", "_pieces", "_publisher", "_taken_at", "attempt", "delivery", "lost", "turn")

    def __init__(self, publisher: ChunkPublisher, delivery: Delivery) -> None:
        self.delivery = delivery
        self.turn = 0
        self.attempt = delivery.next_attempt
        self.lost = False
        """The lease is gone: nothing more is written."""
        self._publisher = publisher
        self._pieces: list[_Piece] = []
        self._pending_chars = 0
        self._taken_at = -JOIN_S
        self._idle: asyncio.Event | None = None
        """Set when nothing is on its way; None as long as nothing ever was, which is how short runs end."""

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        """Add to the stream; waits while too much of this run is unpublished."""
        if self.lost:
            return
        is_text = kind in _TEXT
        self._add(kind, content, metadata or _NO_METADATA, joinable=is_text)
        self._publisher.wake(self, urgent=not is_text or time.monotonic() - self._taken_at >= JOIN_S)
        if self._pending_chars > MOST_PENDING_CHARS:
            await self._publisher.room(self)

    def _add(self, kind: ChunkType, content: str, metadata: Mapping[str, Any], *, joinable: bool) -> None:
        self._pending_chars += len(content)
        last = self._pieces[-1] if self._pieces else None
        if (
            joinable
            and last is not None
            and last.kind is kind
            and last.turn == self.turn
            and last.attempt == self.attempt
            and last.size + len(content) <= LONGEST_CHUNK_CHARS
        ):
            last.texts.append(content)
            last.size += len(content)
            return
        for start in range(0, max(len(content), 1), LONGEST_CHUNK_CHARS) if joinable else (0,):
            piece = content[start : start + LONGEST_CHUNK_CHARS] if joinable else content
            self._pieces.append(_Piece(kind, piece, self.turn, self.attempt, metadata))

    def take(self) -> tuple[ChunkDraft, ...]:
        """What is not published yet, in order; it is the caller's to publish."""
        pieces, self._pieces, self._pending_chars = self._pieces, [], 0
        self._taken_at = time.monotonic()
        return tuple(piece.draft() for piece in pieces)

    @property
    def is_congested(self) -> bool:
        """Whether the run should wait."""
        return self._pending_chars > MOST_PENDING_CHARS and not self.lost

    async def finish(self) -> tuple[ChunkDraft, ...]:
        """What remains to be published with the run's outcome, once nothing of it is under way."""
        self._publisher.leave(self)
        if self._idle is not None:
            await self._idle.wait()
        return self.take()

    def set_busy(self, busy: bool) -> None:
        """Whether chunks of this run are on their way right now."""
        if self._idle is None:
            self._idle = asyncio.Event()
        if busy:
            self._idle.clear()
        else:
            self._idle.set()


class ChunkPublisher:
    """Publishes the chunks of all runs of a worker: one round trip at a time, each with all that has gathered."""

    def __init__(self, backend: Backend, metrics: WorkerMetrics) -> None:
        self._backend = backend
        self._metrics = metrics
        self._waiting: dict[ChunkWriter, None] = {}
        self._awake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._flushed = asyncio.Condition()

    def wake(self, writer: ChunkWriter, *, urgent: bool) -> None:
        """`writer` has something to publish."""
        if writer not in self._waiting:
            self._waiting[writer] = None
            self._awake.set()
        if urgent:
            self._urgent.set()

    def leave(self, writer: ChunkWriter) -> None:
        """`writer`'s run is over; the rest goes with its outcome."""
        self._waiting.pop(writer, None)

    async def room(self, writer: ChunkWriter) -> None:
        """Return when `writer` may go on."""
        self._urgent.set()
        async with self._flushed:
            await self._flushed.wait_for(lambda: not writer.is_congested)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._awake.wait()
            await self._gather()
            self._awake.clear()
            self._urgent.clear()
            writers, self._waiting = list(self._waiting), {}
            if writers:
                await self._publish(writers)

    async def _gather(self) -> None:
        if self._urgent.is_set():
            return
        try:
            async with asyncio.timeout(JOIN_S):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _publish(self, writers: list[ChunkWriter]) -> None:
        batches, published = [], []
        for writer in writers:
            if drafts := writer.take():
                writer.set_busy(True)
                published.append(writer)
                batches.append(ChunkBatch(delivery=writer.delivery, chunks=drafts))
        try:
            # The very same batches until it succeeds: their numbers make a repetition harmless.
            lost = [delivery for part in bounded(batches, _chars) for delivery in await self._write(part)]
        finally:
            for writer in published:
                writer.set_busy(False)
        gone = {delivery.token + delivery.entry_id for delivery in lost}
        for writer in published:
            if gone and writer.delivery.token + writer.delivery.entry_id in gone:
                writer.lost = True
        self._metrics.chunks_published += sum(len(batch.chunks) for batch in batches)
        async with self._flushed:
            self._flushed.notify_all()

    async def _write(self, batches: Sequence[ChunkBatch]) -> list[Delivery]:
        """Publish; what the broker refuses for good is dropped alone, because a stream never fails a run."""
        try:
            return await persistently(lambda: self._backend.chunks.publish(batches), "publish chunks")
        except QueueError:
            if len(batches) == 1:
                log.exception("chunks cannot be published", task=batches[0].delivery.task.id)
                return []
        return [delivery for batch in batches for delivery in await self._write([batch])]


def _chars(batch: ChunkBatch) -> int:
    return chunk_chars(batch.chunks)
