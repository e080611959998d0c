"""`ChunkStream` on JetStream: kept under subjects of the task's own, announced on core subjects by the server."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from queue_backends.batching import once_each
from queue_backends.errors import BackendUnavailable, ReplayTrimmed, TaskNotFound
from queue_backends.interfaces import ChunkBatch, Delivery
from queue_backends.messages import Chunk
from queue_backends.nats.chunk_writing import ChunkWriter, chunks_of, next_seq_after
from queue_backends.nats.holding import Held, Holdings
from queue_backends.nats.ledger import Ledger, Stored, stored_of
from queue_backends.nats.listening import Inbox, Listeners
from queue_backends.nats.records import Stage, decode_record
from queue_backends.nats.refusals import Conflict
from queue_backends.nats.repeating import pauses
from queue_backends.nats.subjects import is_token, token

PAGE = 50
RECHECK_S = 15.0
"""A silent subscription looks into the stream this often, in case an announcement was lost on the way."""
RETRY_S = 0.5
MOST_FOREIGN = 10_000


class NatsChunks:
    """`ChunkStream` on one stream."""

    def __init__(self, ledger: Ledger, holdings: Holdings, writer: ChunkWriter, listeners: Listeners) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._holdings = holdings
        self._writer = writer
        self._listeners = listeners
        self._foreign: OrderedDict[str, int] = OrderedDict()
        """Tasks of another engine's queue -> the number of the next chunk."""

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        """Write all batches, those of different tasks at the same time. Raises `ChunkTooLarge`; then nothing was
        written."""
        for batch in batches:
            self._writer.check(batch.delivery.task.id, batch.chunks)
        lost: list[Delivery] = []
        publish = self._publish if fenced else self._publish_unfenced
        for part in once_each(batches, lambda batch: batch.delivery.task.id):
            outcomes = await asyncio.gather(*map(publish, part), return_exceptions=True)
            for batch, outcome in zip(part, outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    raise outcome
                if not outcome:
                    lost.append(batch.delivery)
        return lost

    async def _publish(self, batch: ChunkBatch) -> bool:
        """Write one batch under its fence; says whether the lease holds."""
        held = self._holdings.get(batch.delivery)
        if held is None:
            return False
        async with held.lock:
            for pause_s in pauses():
                await self._writer.prepare(held, batch.chunks)
                writes = self._writer.writes(held, batch.chunks)
                try:
                    revisions = await self._ledger.write_all(writes)
                except Conflict:
                    if not await self._is_still_ours(held):
                        return False
                    await asyncio.sleep(pause_s)
                    continue
                except BaseException:
                    self._writer.doubt(held, batch.chunks)
                    raise
                before = self._writer.wrote(held, batch.chunks, writes, revisions)
                await self._writer.trim(held.task_id, before)
                return True
        raise BackendUnavailable(f"chunks of task {held.task_id} could not be written: its record keeps changing")

    async def _is_still_ours(self, held: Held) -> bool:
        stored = await self._ledger.last(self._subjects.task(held.task_id), fresh=True)
        record = decode_record(stored) if stored else None
        if stored is None or record is None or record.stage is not Stage.RUNNING:
            return False
        if record.token != held.delivery.token:
            return False
        held.record, held.revision = record, stored.revision
        return True

    async def _publish_unfenced(self, batch: ChunkBatch) -> bool:
        task_id = token(batch.delivery.task.id)
        for pause_s in pauses():
            next_seq = self._foreign.pop(task_id, None)
            if next_seq is None:
                next_seq = next_seq_after(await self._ledger.last_matching(self._subjects.chunks(task_id)))
            writes = self._writer.messages(task_id, next_seq, batch.chunks)
            try:
                await self._ledger.write_all(writes)
            except Conflict:  # somebody has used that number: look which is free
                last = await self._ledger.last_matching(self._subjects.chunks(task_id))
                if last is not None and writes and last.data == writes[-1].data:
                    return True  # it was this very call, and its answer did not arrive
                await asyncio.sleep(pause_s)
                continue
            if not (batch.chunks and batch.chunks[-1].is_final):
                self._foreign[task_id] = next_seq + len(batch.chunks)
            if len(self._foreign) > MOST_FOREIGN:
                self._foreign.popitem(last=False)
            return True
        raise BackendUnavailable(f"chunks of task {task_id} could not be written: others write them, too")

    async def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """Replay, then live, merged by `seq`. Goes on after lost connections, for as long as the consumer likes."""
        name = task_id if is_token(task_id) else token(task_id)
        last, revision = after_seq, 0
        async with self._listeners.listen(self._subjects.live_of(self._subjects.chunks(name))) as inbox:
            stored: Stored | None = None
            while not inbox.closed:
                chunks = chunks_of(stored.data) if stored is not None else []
                if not chunks or chunks[0].seq > last + 1:
                    inbox.missed = False
                    page: list[Stored] | None = [stored] if stored else []
                    while page is not None:
                        page = await self._page(name, last, revision, inbox)
                        for kept in page or ():
                            revision = kept.revision
                            for chunk in chunks_of(kept.data):
                                if chunk.seq > last:
                                    last = chunk.seq
                                    yield chunk
                                    if chunk.is_final:
                                        return
                        if page == []:
                            break
                    if page is None:
                        return
                for chunk in chunks:
                    if chunk.seq > last:
                        last = chunk.seq
                        yield chunk
                        if chunk.is_final:
                            return
                if stored is not None:
                    revision = max(revision, stored.revision)
                message = await inbox.get(RECHECK_S)
                stored = stored_of(message) if message is not None else None

    async def _page(self, task_id: str, last: int, revision: int, inbox: Inbox) -> list[Stored] | None:
        """Kept chunks that come next; empty if there are none, None after the final one. Waits while the server is
        away."""
        while True:
            try:
                return await self._read(task_id, last, revision)
            except BackendUnavailable:
                if inbox.closed:
                    return None
                await inbox.get(RETRY_S)

    async def _read(self, task_id: str, last: int, revision: int) -> list[Stored] | None:
        page, _ = await self._ledger.page(self._subjects.chunks(task_id), start=revision + 1, limit=PAGE)
        if not page:
            return None if await self._is_over(task_id, last) else []
        if (first_seq := int(page[0].name)) > last + 1:
            raise ReplayTrimmed(task_id, first_seq)
        return page

    async def _is_over(self, task_id: str, seen_seq: int) -> bool:
        """Nothing new after `seen_seq`: that is well for a task that goes on, the end after a final chunk, and hopeless
        for a task whose chunks have expired, or that the server has lost since chunks were seen."""
        task = self._subjects.task(task_id)
        found = await self._ledger.last_of([task, self._subjects.lane("*", task_id), self._subjects.later(task_id)])
        newest = await self._ledger.last_matching(self._subjects.chunks(task_id))
        if newest is None:
            record = decode_record(found[task]) if task in found else None
            if record is not None and record.stage is Stage.ENDED:
                raise TaskNotFound(f"the chunks of task {task_id} are no longer kept: read its result instead")
            if seen_seq >= 0 and not found:
                raise TaskNotFound(f"the server has lost task {task_id} and its chunks: submit it again")
            return False
        final = chunks_of(newest.data)[-1]
        return final.is_final and final.seq <= seen_seq

    async def close(self) -> None:
        """End all subscriptions."""
        self._listeners.close()
