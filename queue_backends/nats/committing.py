"""Carrying out outcomes: one atomic batch for all that gathered; what was not as expected is tried again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from queue_backends.batching import batches, once_each, outcome_chars
from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.interfaces import BackendOptions, Dead, P
from queue_backends.nats.chunk_writing import ChunkWriter
from queue_backends.nats.clients import COMMAND_TIMEOUT_S
from queue_backends.nats.counting import Counting, once_each_record
from queue_backends.nats.ending import Endings, Step
from queue_backends.nats.holding import Held, Holdings
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.records import Stage, decode_record
from queue_backends.nats.refusals import Conflict
from queue_backends.nats.repeating import pauses
from queue_backends.nats.writes import MOST_PER_BATCH

TRIM_LETTERS_EVERY = 50


class _Job:
    """The steps of one caller, and whoever waits to hear which of them are lost."""

    __slots__ = ("lost", "steps")

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.lost: asyncio.Future[list[Step]] = asyncio.get_running_loop().create_future()

    @classmethod
    def remaining(cls, job: _Job) -> _Job:
        """The same job without what is done."""
        rest = cls([step for step in job.steps if not step.done])
        rest.lost = job.lost
        return rest

    def settle(self, outcome: list[Step] | Exception) -> None:
        """It is known what became of them."""
        if self.lost.done():
            return
        if isinstance(outcome, list):
            self.lost.set_result(outcome)
        else:
            self.lost.set_exception(outcome)


class Committer:
    """Writes how runs end and how far they have come."""

    def __init__(
        self,
        ledger: Ledger,
        holdings: Holdings,
        writer: ChunkWriter,
        counting: Counting,
        options: BackendOptions,
    ) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._holdings = holdings
        self._writer = writer
        self._counting = counting
        self._options = options
        self._buried = 0
        self._jobs: list[_Job] = []
        self._running: asyncio.Task[None] | None = None
        self.endings = Endings(ledger, writer, options)

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """Carry out all of them. Returns those whose lease was lost.

        Raises `ChunkTooLarge`; then nothing was written.
        """
        for outcome in outcomes:
            self._writer.check(outcome.delivery.task.id, outcome.chunks)
        lost: list[P] = []
        for part in once_each(outcomes, lambda outcome: outcome.delivery.token):
            for batch in batches(part, outcome_chars):
                lost += await self._commit(batch)
        return lost

    async def _commit(self, outcomes: Sequence[P]) -> list[P]:
        steps: list[Step] = []
        lost: list[P] = []
        by_step: dict[int, P] = {}
        for outcome in outcomes:
            held = self._holdings.get(outcome.delivery)
            if held is None:
                lost.append(outcome)
                continue
            step = Step(outcome, held, once_each_record(outcome.records))
            by_step[id(step)] = outcome
            steps.append(step)
        async with self._locked([step.held for step in steps]):
            gone = await self._joint(steps) if steps else []
        lost += [by_step[id(step)] for step in gone]
        return [outcome for outcome in outcomes if outcome in lost] if len(lost) > 1 else lost

    @asynccontextmanager
    async def _locked(self, helds: Sequence[Held]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for held in sorted(helds, key=lambda held: held.delivery.token):  # in one order, so that nobody deadlocks
                await stack.enter_async_context(held.lock)
            yield

    async def _joint(self, steps: Sequence[Step]) -> list[Step]:
        """Carry out, together with what other callers have meanwhile. A caller who leaves keeps his tasks locked until
        it is known what became of them."""
        job = _Job(steps)
        self._jobs.append(job)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="commit")
        try:
            return await asyncio.shield(job.lost)
        except asyncio.CancelledError:
            await asyncio.wait([job.lost], timeout=2 * COMMAND_TIMEOUT_S)
            if job.lost.done() and not job.lost.cancelled():
                job.lost.exception()  # looked at: nobody else will
            raise

    async def _run(self) -> None:
        while self._jobs:
            jobs, self._jobs = self._jobs, []
            await self._run_jobs(jobs)

    async def _run_jobs(self, jobs: Sequence[_Job]) -> None:
        try:
            lost = await self._carry_out([step for job in jobs for step in job.steps])
        except BackendUnavailable as error:
            for job in jobs:
                job.settle([] if all(step.done for step in job.steps) else BackendUnavailable(str(error)))
        except QueueError as error:  # what the server refuses of one must not take the others with it
            if len(jobs) == 1:
                jobs[0].settle(error)
            for job in jobs if len(jobs) > 1 else ():
                await self._run_jobs([_Job.remaining(job)])
        except BaseException:
            for job in jobs:
                job.lost.cancel()
            raise
        else:
            gone = {id(step) for step in lost}
            for job in jobs:
                job.settle([step for step in job.steps if id(step) in gone])

    async def close(self) -> None:
        """Let what is on its way arrive."""
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running], timeout=COMMAND_TIMEOUT_S)

    async def _carry_out(self, steps: Sequence[Step]) -> list[Step]:
        """Write, in as few batches as possible; returns the steps whose lease is lost."""
        open_steps, lost = list(steps), list[Step]()
        for pause_s in pauses():
            await self._prepare(open_steps)
            for step in open_steps:
                self.endings.plan(step)
            conflicting: list[Step] = []
            for part in _fitting(open_steps):
                conflicting += await self._write(part)
            if not conflicting:
                return lost
            open_steps, gone = await self._learn(conflicting)
            lost += gone
            if not open_steps:
                return lost
            await asyncio.sleep(pause_s)
        raise BackendUnavailable(f"{len(open_steps)} outcomes could not be written: others kept changing their tasks")

    async def _prepare(self, steps: Sequence[Step]) -> None:
        unknown = [
            step for step in steps if step.held.next_seq is None and (step.outcome.chunks or step.held.record.cancel)
        ]
        await asyncio.gather(*(self._writer.prepare(step.held, step.outcome.chunks) for step in unknown))

    async def _write(self, steps: Sequence[Step]) -> list[Step]:
        """One batch; returns all of the steps if something was not as expected."""
        records = [record for step in steps for record in step.records]
        counts = any(record.counters for record in records)
        async with self._counting.gate if counts else contextlib.nullcontext():
            record_writes = await self._counting.writes(once_each_record(records))
            chunk_writes = [write for step in steps for write in step.chunk_writes]
            entry_writes = [write for step in steps for write in step.entry_writes]
            task_writes = [write for step in steps if (write := self.endings.record_write(step))]
            # In this order: should the server die in the middle, a task's record is not ahead of what belongs to it.
            writes = [*chunk_writes, *record_writes, *entry_writes, *task_writes]
            try:
                revisions = await self._ledger.write_all(writes)
            except Conflict:
                self._counting.doubt()
                return list(steps)
            except BaseException:
                self._counting.doubt()
                for step in steps:
                    self._writer.doubt(step.held, step.chunks)
                raise
            self._counting.wrote(writes, revisions)
        await self._settle(steps, dict(zip((write.subject for write in writes), revisions, strict=True)))
        return []

    async def _settle(self, steps: Sequence[Step], revisions: dict[str, int]) -> None:
        """All of it is written: remember what follows from that, and take ended ones out of their lanes."""
        for step in steps:
            held, step.done = step.held, True
            if step.chunks:
                written = [revisions[write.subject] for write in step.chunk_writes]
                before = self._writer.wrote(held, step.chunks, step.chunk_writes, written)
                await self._writer.trim(held.task_id, before)
            if step.record is not None and not step.ends:
                held.revision = revisions[self._subjects.task(held.task_id)]
        await self._leave([step for step in steps if step.ends])

    async def _leave(self, steps: Sequence[Step]) -> None:
        await self.acknowledge([step.held.ack_subject for step in steps])
        for step in steps:
            self._holdings.forget(step.held.delivery)
        self._buried += sum(isinstance(step.outcome, Dead) for step in steps)
        await self.trim_letters()

    async def acknowledge(self, ack_subjects: Sequence[str]) -> None:
        """Take entries out of their lanes. The server works through one consumer's in order, so that the answer to the
        last one tells that all are done."""
        last: dict[str, str] = {}
        for subject in ack_subjects:
            consumer = consumer_of(subject)
            if before := last.get(consumer):
                await self._ledger.connection.publish(before, b"+ACK")
            last[consumer] = subject
        await asyncio.gather(*(self._ledger.connection.request(subject, b"+ACK") for subject in last.values()))

    async def _learn(self, steps: Sequence[Step]) -> tuple[list[Step], list[Step]]:
        """Look up what was not as expected. Returns the steps that are still to be written, and those that are lost."""
        found = await self._ledger.last_of([self._subjects.task(step.held.task_id) for step in steps], fresh=True)
        still: list[Step] = []
        done: list[Step] = []
        lost: list[Step] = []
        for step in steps:
            held = step.held
            stored = found.get(self._subjects.task(held.task_id))
            record = decode_record(stored) if stored else None
            if stored is None or record is None or record.token != held.delivery.token:
                self._holdings.forget(held.delivery)
                lost.append(step)
            elif record.stage is Stage.RUNNING:
                held.record, held.revision = record, stored.revision
                still.append(step)
            else:  # an earlier try got through, and its answer did not
                done.append(step)
        unknown = await self._counting.unknown([record for step in still for record in step.records]) if still else []
        names = {(record.log, record.id) for record in unknown}
        for step in still:
            step.records = [record for record in step.records if (record.log, record.id) in names]
        await self._leave(done)
        return still, lost

    async def trim_letters(self, buried: int = 0) -> None:
        """Let the oldest dead letters go, now and then."""
        self._buried += buried
        if self._buried >= TRIM_LETTERS_EVERY:
            self._buried = 0
            await self._ledger.purge(self._subjects.letters, keep=self._options.dead_limit)


def consumer_of(ack_subject: str) -> str:
    """The consumer that delivered; newer servers may put the domain and the account in front of it."""
    tokens = ack_subject.split(".")
    return tokens[3] if len(tokens) == 9 else tokens[5]


def _fitting(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Steps in order, cut so that each part fits into a batch."""
    start, size = 0, 0
    for position, step in enumerate(steps):
        if position > start and size + step.weight > MOST_PER_BATCH:
            yield steps[start:position]
            start, size = position, 0
        size += step.weight
    if start < len(steps):
        yield steps[start:]
