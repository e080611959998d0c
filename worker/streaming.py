"""From a run's deltas to published chunks: joined for a few milliseconds per task, written for all tasks at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from queue_backends import (
    Backend,
    Checkpoint,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Delivery,
    LeaseLost,
    LogRecord,
    QueueError,
)
from queue_backends.batching import MOST_ITEMS, chunk_chars, outcome_chars
from queue_backends.batching import batches as bounded
from worker.chunk_bounds import LONGEST_CHUNK_CHARS, encodable, json_chars, shortened, split
from worker.metrics import WorkerMetrics
from worker.persistence import persistently

JOIN_S = 0.004
"""Text that follows other text of its task more closely than this waits so long for more. A task's first chunk, one
after a pause, tool chunks and final ones do not wait."""
MOST_PENDING_CHARS = 262_144
"""A run that is this far ahead of the broker waits for it."""
MOST_PENDING_CHARS_OF_ALL = 16_777_216
"""When all runs together are this far ahead, those wait that have more to say: first come, first served."""
ROUNDS = 2
"""So many round trips are under way at once. Where the event loop has much to do, most of a round trip is the way of
its answer through that loop, and others' chunks need not wait for it: with 1,000 streams the median chunk is a fifth
sooner there (measured). Those of one run go one after the other."""
_CONTENT, _THINKING = ChunkType.CONTENT, ChunkType.THINKING  # as in `providers.tool_loop`
MOST_PIECES = 64
"""Short texts weigh more than their characters: so many of one chunk are put together while they wait."""

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

    __slots__ = (
        "_idle",
        "_kept",
        "_pending_chars",
        "_pieces",
        "_publisher",
        "_records",
        "_stored",
        "_taken_at",
        "attempt",
        "delivery",
        "is_busy",
        "lost",
        "on_lost",
        "turn",
    )

    def __init__(
        self, publisher: ChunkPublisher, delivery: Delivery, on_lost: Callable[[], None] | None = None
    ) -> None:
        """`on_lost` is called when a write is refused because the lease is lost."""
        self.delivery = delivery
        self.turn = 0
        self.attempt = delivery.next_attempt
        self.lost = False
        """The lease is gone: nothing more is written."""
        self._publisher = publisher
        self.on_lost = on_lost
        """To be taken back at the run's end: run and writer hold each other, and would keep the task with its prompt
        until the garbage collector comes by, which costs a tenth of a task's CPU (measured)."""
        # Empty containers of its own would make a waiting run 180 bytes heavier.
        self._pieces: list[_Piece] | None = None
        self._records: tuple[LogRecord, ...] = ()
        self._stored: asyncio.Future[None] | None = None
        """What `store` waits for; taken together with the records."""
        self._pending_chars = 0
        self._kept: dict[str, tuple[str, int]] | None = None
        """Call id -> where the output is kept that is longer than what the model reads, and how long it is."""
        self._taken_at = -JOIN_S
        self.is_busy = False
        """Chunks of this run are on their way right now."""
        self._idle: asyncio.Event | None = None
        """Set when they no longer are; made by whoever waits for that."""

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        """Add to the stream; waits while too much of this run, or of all runs, is unpublished.

        Text of any length is split into chunks; of other chunks that are too long, the beginning is shown.
        """
        is_text = kind is _CONTENT or kind is _THINKING  # a set would call the enum's own hash
        if is_text and len(content) > LONGEST_CHUNK_CHARS:
            for text in split(content):
                await self(kind, text, metadata)
            return
        publisher = self._publisher
        if self._pending_chars > MOST_PENDING_CHARS or publisher.pending_chars > MOST_PENDING_CHARS_OF_ALL:
            await publisher.room(self)
        if self.lost:
            return
        metadata = metadata or _NO_METADATA
        size = len(content)
        if not is_text:
            content, metadata = shortened(content, self._with_reference(metadata))
            size = len(content) + json_chars(metadata)
        elif not content.isascii():
            content = encodable(content)
        self._add(kind, content, metadata, size, joinable=is_text)
        publisher.wake(self, urgent=not is_text or time.monotonic() - self._taken_at >= JOIN_S)

    def put_now(self, kind: ChunkType, text: str) -> bool:
        """Add a piece of text, if that needs no waiting; if not, nothing is added."""
        publisher = self._publisher
        if (
            self._pending_chars > MOST_PENDING_CHARS
            or publisher.pending_chars > MOST_PENDING_CHARS_OF_ALL
            or len(text) > LONGEST_CHUNK_CHARS
        ):
            return False
        if not self.lost:
            if not text.isascii():
                text = encodable(text)
            self._add(kind, text, _NO_METADATA, len(text), joinable=True)
            publisher.wake(self, urgent=time.monotonic() - self._taken_at >= JOIN_S)
        return True

    def note_kept(self, call_id: str, reference: str, chars: int) -> None:
        """The whole output of a tool call, so many characters, can be read at `reference`: its chunk will say so."""
        self._kept = self._kept or {}
        self._kept[call_id] = (reference, chars)

    def _with_reference(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        kept = self._kept.pop(str(metadata.get("id", "")), None) if self._kept else None
        return metadata if kept is None else {**metadata, "truncated": True, "chars": kept[1], "stored": kept[0]}

    def _add(self, kind: ChunkType, content: str, metadata: Mapping[str, Any], size: int, *, joinable: bool) -> None:
        self._pending_chars += size
        self._publisher.pending_chars += size
        pieces = self._pieces
        last = pieces[-1] if pieces else None
        if (
            joinable
            and last is not None
            and last.kind is kind
            and last.turn == self.turn
            and last.attempt == self.attempt
            and last.size + size <= LONGEST_CHUNK_CHARS
        ):
            if len(last.texts) >= MOST_PIECES:
                last.texts = ["".join(last.texts)]
            last.texts.append(content)
            last.size += size
            return
        piece = _Piece(kind, content, self.turn, self.attempt, metadata)
        if pieces is None:
            self._pieces = [piece]
        else:
            pieces.append(piece)

    def note(self, *records: LogRecord) -> None:
        """Records to be written with the next `store`, or with the run's outcome."""
        self._records += records

    @property
    def has_news(self) -> bool:
        """Whether there is something to `store`, or to learn from it."""
        return self.lost or bool(self._records)

    async def store(self) -> None:
        """Write what was noted, together with all chunks so far, in one step; return when that is done.

        Raises `LeaseLost`, or the `QueueError` with which the broker refused it.
        """
        if self.lost:
            raise lease_lost(self.delivery)
        if not self._records:
            return
        if self._stored is None:
            self._stored = asyncio.get_running_loop().create_future()
        self._publisher.wake(self, urgent=True)
        await asyncio.shield(self._stored)

    def take_step(self) -> tuple[Checkpoint, asyncio.Future[None]] | None:
        """What somebody waits to have stored, and whom to tell; None if nobody waits for anything."""
        stored, self._stored = self._stored, None
        if stored is None:
            return None
        return Checkpoint(delivery=self.delivery, chunks=self.take(), records=self.take_records()), stored

    def take_records(self) -> tuple[LogRecord, ...]:
        """What was noted and is not stored yet; it is the caller's to store."""
        records, self._records = self._records, ()
        return records

    def lose(self) -> None:
        """The lease is lost: write nothing more, and say so to the run."""
        self.lost = True
        if self.on_lost is not None:
            self.on_lost()

    def take(self) -> tuple[ChunkDraft, ...]:
        """What is not published yet, in order; it is the caller's to publish."""
        self._publisher.pending_chars -= self._pending_chars
        pieces, self._pieces, self._pending_chars = self._pieces, None, 0
        self._taken_at = time.monotonic()
        return tuple([piece.draft() for piece in pieces]) if pieces else ()

    @property
    def is_congested(self) -> bool:
        """Whether the run should wait."""
        return self._pending_chars > MOST_PENDING_CHARS and not self.lost

    async def finish(self) -> tuple[ChunkDraft, ...]:
        """What remains to be published with the run's outcome, once nothing of it is under way."""
        self._publisher.leave(self)
        if self.is_busy:
            self._idle = asyncio.Event()
            await self._idle.wait()
        if self._stored is not None:  # whoever waited for it was cancelled
            self._stored.cancel()
        rest = self.take()
        self._publisher.freed()
        return rest

    def came_back(self) -> None:
        """What was on its way is written, or never will be."""
        self.is_busy = False
        if self._idle is not None:
            self._idle.set()


class ChunkPublisher:
    """Publishes the chunks of all runs of a worker: few round trips at a time, each with all that has gathered."""

    __slots__ = (
        "_awake",
        "_backend",
        "_complaint",
        "_gathering",
        "_metrics",
        "_queue",
        "_urgent",
        "_waiting",
        "pending_chars",
    )

    def __init__(self, backend: Backend, metrics: WorkerMetrics) -> None:
        self._backend = backend
        self._metrics = metrics
        self._waiting: dict[ChunkWriter, None] = {}
        self._awake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._gathering = asyncio.Lock()
        self._queue: list[asyncio.Future[None]] = []
        """Runs that wait for room, in the order in which they came."""
        self._complaint = ""
        self.pending_chars = 0
        """Of all runs: what waits to be published, and what is on its way."""

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
        while writer.is_congested or (self.is_full and not writer.lost):
            place = asyncio.get_running_loop().create_future()
            self._queue.append(place)
            await place

    @property
    def is_full(self) -> bool:
        """Whether all runs together have too much unpublished."""
        return self.pending_chars > MOST_PENDING_CHARS_OF_ALL

    def freed(self) -> None:
        """Something has left: whoever finds no room now lines up again, in the same order."""
        if self._queue and not self.is_full:
            places, self._queue = self._queue, []
            for place in places:
                if not place.done():
                    place.set_result(None)

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(ROUNDS):
                group.create_task(self._run(), name=f"publish chunks {number}")

    async def _run(self) -> None:
        while True:
            async with self._gathering:
                await self._awake.wait()
                await self._gather()
                self._awake.clear()
                self._urgent.clear()
                writers = self._due()
            if writers:
                await self._publish(writers)

    def _due(self) -> list[ChunkWriter]:
        """Those whose turn it is now: as many as one write takes, and none of whom something is on its way."""
        free = [writer for writer in self._waiting if not writer.is_busy]
        due = free[:MOST_ITEMS]
        for writer in due:
            del self._waiting[writer]
        if len(free) > len(due):
            self._hurry()
        return due

    def _hurry(self) -> None:
        """Somebody has waited long enough."""
        self._awake.set()
        self._urgent.set()

    async def _gather(self) -> None:
        if self._urgent.is_set():
            return
        try:
            async with asyncio.timeout(JOIN_S):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _publish(self, writers: list[ChunkWriter]) -> None:
        batches: list[ChunkBatch] = []
        steps: list[_Step] = []
        published: list[ChunkWriter] = []
        before = self.pending_chars
        for writer in writers:
            if step := writer.take_step():
                steps.append(step)
            elif drafts := writer.take():
                batches.append(ChunkBatch(delivery=writer.delivery, chunks=drafts))
            else:
                continue
            writer.is_busy = True
            published.append(writer)
        taken_chars = before - self.pending_chars
        self.pending_chars = before
        try:
            # The very same batches until it succeeds: their numbers make a repetition harmless.
            lost = [delivery for part in bounded(batches, _chars) for delivery in await self._write(part)]
            for part in bounded(steps, _step_chars):
                lost += await self._store(part)
        finally:
            self.pending_chars -= taken_chars
            for writer in published:
                writer.came_back()
            if not self._waiting.keys().isdisjoint(published):
                self._hurry()
        gone = {delivery.token + delivery.entry_id for delivery in lost}
        for writer in published:
            if gone and writer.delivery.token + writer.delivery.entry_id in gone:
                writer.lose()
        self._metrics.chunks_published += sum(len(batch.chunks) for batch in batches)
        self._metrics.chunks_published += sum(len(step.chunks) for step, _ in steps)
        self.freed()

    async def _write(self, batches: Sequence[ChunkBatch]) -> list[Delivery]:
        """Publish; what the broker refuses for good is dropped alone, because a stream never fails a run."""
        try:
            return await persistently(lambda: self._backend.chunks.publish(batches), "publish chunks")
        except QueueError as error:
            if len(batches) == 1:
                self._complain(batches[0], error)
                return []
        return [delivery for batch in batches for delivery in await self._write([batch])]

    def _complain(self, batch: ChunkBatch, error: QueueError) -> None:
        """A run that is refused once is refused with every batch: said for the first."""
        if self._complaint != str(error):
            self._complaint = str(error)
            log.error("chunks cannot be published", task=batch.delivery.task.id, error=self._complaint)

    async def _store(self, steps: Sequence[_Step]) -> list[Delivery]:
        """Store checkpoints, and tell those who wait for them; a refused one fails its own run alone."""
        checkpoints = [checkpoint for checkpoint, _ in steps]
        try:
            lost = await persistently(lambda: self._backend.commit(checkpoints), "store progress")
        except QueueError as error:
            if len(steps) > 1:
                return [delivery for step in steps for delivery in await self._store([step])]
            _settle(steps[0][1], error)
            return []
        gone = {id(checkpoint) for checkpoint in lost}
        for checkpoint, stored in steps:
            _settle(stored, lease_lost(checkpoint.delivery) if id(checkpoint) in gone else None)
        return [checkpoint.delivery for checkpoint in lost]


_Step = tuple[Checkpoint, asyncio.Future[None]]


def _settle(stored: asyncio.Future[None], error: QueueError | None) -> None:
    if stored.done():
        return
    if error is None:
        stored.set_result(None)
    else:
        stored.set_exception(error)
        stored.exception()  # seen, even if the run that waited was cancelled meanwhile


def lease_lost(delivery: Delivery) -> LeaseLost:
    """What a run is told that is no longer its task's owner."""
    return LeaseLost(f"task {delivery.task.id} has another owner")


def _step_chars(step: _Step) -> int:
    return outcome_chars(step[0])


def _chars(batch: ChunkBatch) -> int:
    return chunk_chars(batch.chunks)
