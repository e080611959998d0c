"""Group commit: how any number of runs ended, or how far they have come, in one fenced statement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg.rows import TupleRow

from queue_backends.batching import batches, chunk_chars, once_each, outcome_chars
from queue_backends.errors import QueueError
from queue_backends.interfaces import (
    Ack,
    BackendOptions,
    Checkpoint,
    ChunkBatch,
    Dead,
    Delivery,
    LogRecord,
    P,
    Progress,
    Release,
    Retry,
    Spent,
)
from queue_backends.messages import RUN_CANCELLED, ChunkDraft, ChunkType, TaskResult
from queue_backends.postgresql.announcing import Announcer
from queue_backends.postgresql.arrays import Bytes
from queue_backends.postgresql.cleaning import Cleaner
from queue_backends.postgresql.columns import Columns, Kind, Line
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.names import fence_of, key_of
from queue_backends.postgresql.numbering import Numbering
from queue_backends.postgresql.rows import decode_spent, encode_result, encode_spent, lane_of, state_of
from queue_backends.postgresql.sessions import Connection, run
from queue_backends.postgresql.statements import statement

_ENDS = (Kind.ENDED, Kind.DEAD)


class Written(NamedTuple):
    """What became of one line."""

    verdict: str
    """`written`, `lost`, `ended` (by an earlier try, whose reply got lost) or `cancel`: asked to end, so not given
    back."""
    spent: bytes | None
    keep_from: int | None


class Writer:
    """Writes under fences, and knows which deliveries this process holds."""

    def __init__(
        self,
        connections: Connections,
        queue_id: int,
        numbering: Numbering,
        announcer: Announcer,
        cleaner: Cleaner,
        options: BackendOptions,
    ) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._numbering = numbering
        self._announcer = announcer
        self._cleaner = cleaner
        self._options = options
        self.held: dict[tuple[str, str], Delivery] = {}
        """By entry and token."""

    def hold(self, delivery: Delivery) -> None:
        """Note that a delivery was handed out."""
        self.held[delivery.entry_id, delivery.token] = delivery

    def drop(self, delivery: Delivery) -> None:
        """Note that a delivery is over, whatever its end."""
        self.held.pop((delivery.entry_id, delivery.token), None)
        self._numbering.forget(delivery)

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """Write them; returns those whose lease was lost, of which nothing was written."""
        lost: list[P] = []
        for batch in batches(outcomes, outcome_chars):
            for part in once_each(batch, lambda outcome: outcome.delivery.task.id):
                lost += await self._commit(part)
        return lost

    async def _commit(self, outcomes: Sequence[P]) -> list[P]:
        await self._numbering.prepare([outcome.delivery for outcome in outcomes if outcome.chunks])
        lines = [self._line(outcome) for outcome in outcomes]
        written = await self._write(lines, [outcome.records for outcome in outcomes])
        lost: list[P] = []
        for outcome, line, found in zip(outcomes, lines, written, strict=True):
            if found.verdict == "cancel":
                instead = _cancelled(outcome, found.spent)
                lost += [outcome] if await self._commit([instead]) else []
                continue
            self._settle(outcome.delivery, line, found)
            if found.verdict == "lost":
                lost.append(outcome)
        return lost

    async def refuse(self, outcome: Dead, letter: bytes | None) -> None:
        """Give up an entry that cannot be read; `letter` is what is kept of one that is too large."""
        await self._numbering.prepare([outcome.delivery])
        line = self._line(outcome)._replace(letter=letter)
        (found,) = await self._write([line], ())
        self._settle(outcome.delivery, line, found)

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool) -> list[Delivery]:
        """Write chunks; returns the deliveries whose lease was lost. Raises `ChunkTooLarge`: nothing was written."""
        lost: list[Delivery] = []
        for batch in batches:
            self._check_sizes(batch)
        for part in once_each(batches, lambda batch: batch.delivery.task.id):
            await self._numbering.prepare([batch.delivery for batch in part])
            kind = Kind.RUNNING if fenced else Kind.UNFENCED
            lines = [self._plain_line(kind, batch.delivery, batch.chunks) for batch in part]
            for batch, line, found in zip(part, lines, await self._write(lines, ()), strict=True):
                self._settle(batch.delivery, line, found)
                if found.verdict == "lost":
                    lost.append(batch.delivery)
        return lost

    def _check_sizes(self, batch: ChunkBatch) -> None:
        """Before the first of several statements. The rest of a chunk's JSON is much shorter than its text may be."""
        if chunk_chars(batch.chunks) > 100_000 or any(draft.metadata for draft in batch.chunks):
            self._numbering.encode(batch.delivery, batch.chunks)

    async def append(self, records: Sequence[LogRecord]) -> int:
        """Append records that belong to no run; returns how many were new."""
        added = 0
        for part in batches(records, lambda record: len(record.value)):
            columns = Columns()
            for record in part:
                columns.add_record(record, owner=0)
            rows = await self._connections.execute("write", self._parameters(columns))
            added += rows[0][-1]
        return added

    async def end_in(self, connection: Connection, end: Ack) -> Sequence[bytes]:
        """End a task as part of a transaction that has made it ours; returns the chunks that were written."""
        streams = await self.run(connection, "streams", {"tasks": Bytes([key_of(end.delivery.task.id)])})
        self._numbering.know(end.delivery, streams[0] if streams else None)
        try:
            line = self._line(end)
            columns = Columns()
            columns.add_line(line)
            await self.run(connection, "write", self._parameters(columns))
        finally:
            self._numbering.forget(end.delivery)
        return line.piece.jsons

    async def run(self, connection: Connection, name: str, parameters: dict[str, Any]) -> list[TupleRow]:
        """One statement of a transaction."""
        text = statement(name, self._connections.address.schema)
        return await run(connection, text, {"queue": self._queue_id, **parameters})

    async def _write(self, lines: Sequence[Line], records: Sequence[Sequence[LogRecord]]) -> list[Written]:
        if not lines:
            return []
        columns = Columns()
        for line in lines:
            columns.add_line(line)
        for owner, of_one in enumerate(records, start=1):
            for record in of_one:
                columns.add_record(record, owner=owner)
        rows = await self._connections.execute("write", self._parameters(columns))
        return [Written(*row[1:4]) for row in rows]

    def _parameters(self, columns: Columns) -> dict[str, Any]:
        try:
            arrays = columns.arrays()
        except (OverflowError, ValueError) as error:
            raise QueueError(f"a record or a result cannot be written: {error}") from error
        return arrays | {
            "queue": self._queue_id,
            "keep_open": float(self._options.unfinished_ttl_s),
            "keep_ended": float(self._options.chunk_retention_s),
        }

    def _settle(self, delivery: Delivery, line: Line, found: Written) -> None:
        """Tell whoever waits for what was written, and count on from there."""
        if found.verdict == "lost":
            self.drop(delivery)
            return
        piece = line.piece
        if piece.jsons:
            self._announcer.chunks(delivery.task.id, piece.jsons)
        if line.kind in _ENDS:
            self._announcer.done(delivery.task.id)
        if line.kind in (Kind.RUNNING, Kind.UNFENCED):
            self._numbering.wrote(delivery, piece, found.keep_from)
            return
        if line.kind is Kind.BACK:
            self._announcer.work()
        if line.kind is Kind.DEAD:
            self._cleaner.buried()
        self._cleaner.wrote()
        self.drop(delivery)

    def _plain_line(self, kind: Kind, delivery: Delivery, chunks: tuple[ChunkDraft, ...]) -> Line:
        task_id, token = fence_of(delivery) if kind is not Kind.UNFENCED else (None, None)
        return Line(kind, task_id, token, key_of(delivery.task.id), self._numbering.encode(delivery, chunks))

    def _line(self, outcome: Progress) -> Line:
        delivery = outcome.delivery
        line = self._plain_line(_KINDS[type(outcome)], delivery, outcome.chunks)
        match outcome:
            case Ack(result=result):
                return line._replace(result=encode_result(result), state=state_of(result))
            case Dead(result=result, next_attempt=next_attempt):
                return line._replace(
                    result=encode_result(result),
                    state=state_of(result),
                    error=result.error.encode(errors="replace"),
                    lane=lane_of(delivery.task.priority),
                    attempt=delivery.task.attempt + 1,
                    next_attempt=max(next_attempt, delivery.next_attempt),
                )
            case Retry() | Release():
                return _given_back(line, outcome)
            case _:
                return line


def _given_back(line: Line, outcome: Retry | Release) -> Line:
    task = outcome.delivery.task
    is_retry = isinstance(outcome, Retry)
    failures = 1 if isinstance(outcome, Retry) and outcome.counts else 0
    return line._replace(
        attempt=task.attempt + failures,
        next_attempt=max(outcome.next_attempt, outcome.delivery.next_attempt),
        lane=lane_of(task.priority) if is_retry else 0,
        delay_s=outcome.retry_in_s if isinstance(outcome, Retry) else 0.0,
        spent=encode_spent(outcome.spent) if outcome.spent else None,
    )


_KINDS: dict[type[Progress], Kind] = {
    Ack: Kind.ENDED,
    Retry: Kind.BACK,
    Dead: Kind.DEAD,
    Release: Kind.BACK,
    Checkpoint: Kind.RUNNING,
}


def cancelled_end(delivery: Delivery, spent: Spent) -> Ack:
    """The end of a task that was asked to end while nobody ran it."""
    return Ack(
        delivery=delivery,
        result=TaskResult(
            task_id=delivery.task.id,
            error=RUN_CANCELLED,
            usage=spent.usage,
            cost_usd=spent.cost_usd,
            finished_at=time.time(),
        ),
        chunks=(ChunkDraft(type=ChunkType.ERROR, content=RUN_CANCELLED, is_final=True),),
    )


def _cancelled(outcome: Progress, spent: bytes | None) -> Ack:
    """A run that was asked to end, and was given back instead: it ends, whatever its worker had in mind."""
    own = outcome.spent if isinstance(outcome, Retry | Release) else None
    end = cancelled_end(outcome.delivery, own or decode_spent(spent))
    return Ack(delivery=end.delivery, result=end.result, chunks=outcome.chunks + end.chunks, records=outcome.records)
