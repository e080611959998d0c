"""Cancelling: who waits ends at once, who runs is told through its worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from nats.aio.msg import Msg

from queue_backends.interfaces import BackendOptions, CancelOutcome
from queue_backends.messages import RUN_CANCELLED
from queue_backends.nats.chunk_writing import ChunkWriter, next_seq_after
from queue_backends.nats.ending import cancelled, final_error
from queue_backends.nats.entries import entry_of
from queue_backends.nats.holding import Holdings
from queue_backends.nats.ledger import Ledger, Stored
from queue_backends.nats.records import Stage, TaskRecord, decode_record, encode_record
from queue_backends.nats.repeating import until_as_expected
from queue_backends.nats.subjects import is_token
from queue_backends.nats.writes import Write


class Canceller:
    """Ends tasks that wait, and asks for the end of those that run."""

    def __init__(self, ledger: Ledger, writer: ChunkWriter, options: BackendOptions) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._writer = writer
        self._options = options

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        """One outcome for each id, in order."""
        return [await self._cancel(task_id) for task_id in ids]

    async def _cancel(self, task_id: str) -> CancelOutcome:
        if not is_token(task_id):
            return CancelOutcome.UNKNOWN
        return await until_as_expected(lambda: self._try(task_id), f"cancel of task {task_id}")

    async def _try(self, task_id: str) -> CancelOutcome:
        kept = await self._ledger.last(self._subjects.task(task_id), fresh=True)
        record = decode_record(kept) if kept else None
        if kept is not None and record is not None:
            if record.stage is Stage.ENDED:
                return CancelOutcome.FINISHED
            if record.stage is Stage.RUNNING:
                await self._request(task_id, record, kept)
                return CancelOutcome.REQUESTED
        asked = [self._subjects.lane("*", task_id), self._subjects.later(task_id)]
        entries = (await self._ledger.last_of(asked)).values()
        run = record.run if record else 0
        present = [stored for stored in entries if record is None or entry_of(stored).run == run]
        if not present:
            return CancelOutcome.UNKNOWN
        await self._end(task_id, present, record, kept)
        return CancelOutcome.CANCELLED

    async def _request(self, task_id: str, record: TaskRecord, kept: Stored) -> None:
        """The record remembers it, whoever the task goes to; its worker hears of it now."""
        if not record.cancel:
            asked = TaskRecord(**{name: getattr(record, name) for name in record.__struct_fields__} | {"cancel": True})
            await self._ledger.write(self._write(task_id, asked, kept, self._options.unfinished_ttl_s))
        await self._ledger.connection.publish(self._subjects.cancel, task_id.encode())

    async def _end(
        self, task_id: str, entries: Sequence[Stored], record: TaskRecord | None, kept: Stored | None
    ) -> None:
        newest = max(entries, key=lambda stored: stored.revision)
        next_seq = 0
        if record is not None:
            next_seq = next_seq_after(await self._ledger.last_matching(self._subjects.chunks(task_id)))
        notes = entry_of(newest)
        ended = TaskRecord(stage=Stage.ENDED, run=notes.run, result=cancelled(task_id, notes.spent))
        await self._ledger.write_all(
            [
                *self._writer.messages(task_id, next_seq, [final_error(RUN_CANCELLED)]),
                self._write(task_id, ended, kept, self._options.result_retention_s),
            ]
        )
        # Whoever is offered an entry from now on drops it; deleting them only spares the trouble.
        await asyncio.gather(*(self._ledger.purge(stored.subject, before=stored.revision + 1) for stored in entries))

    def _write(self, task_id: str, record: TaskRecord, kept: Stored | None, ttl_s: float) -> Write:
        expected = kept.revision if kept else 0
        return Write(self._subjects.task(task_id), encode_record(record), expected=expected, ttl_s=ttl_s)


class CancelRequests:
    """Tells who listens here of requests for tasks that are held here, once for each delivery."""

    def __init__(self, ledger: Ledger, holdings: Holdings) -> None:
        self._ledger = ledger
        self._holdings = holdings
        self._asked: dict[str, str] = {}
        """Token of a delivery -> its task, for those whose end was asked for."""
        self._listeners: set[asyncio.Event] = set()

    async def start(self) -> None:
        """Listen for requests."""
        await self._ledger.connection.listen(self._ledger.subjects.cancel, self._receive)

    async def _receive(self, message: Msg) -> None:
        self.asked(message.data.decode(errors="replace"))

    def asked(self, task_id: str) -> None:
        """The end of this task is wanted; if it is held here, somebody is told."""
        token = self._holdings.token_of(task_id)
        if not token:
            return
        self._asked = {known: name for known, name in self._asked.items() if self._holdings.holds(known)}
        self._asked[token] = task_id
        for news in self._listeners:
            news.set()

    async def iterate(self) -> AsyncIterator[str]:
        """Each request once per delivery."""
        told: set[str] = set()
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            while True:
                news.clear()
                fresh = [(token, task_id) for token, task_id in self._asked.items() if token not in told]
                told = (told & self._asked.keys()) | {token for token, _ in fresh}
                for _, task_id in fresh:
                    yield task_id
                if not fresh:
                    await news.wait()
        finally:
            self._listeners.discard(news)
