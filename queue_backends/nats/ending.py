"""What a run leaves behind, as messages: each outcome is turned into the writes that carry it out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from queue_backends.interfaces import (
    Ack,
    BackendOptions,
    Checkpoint,
    Dead,
    LogRecord,
    Progress,
    Release,
    Retry,
    Spent,
)
from queue_backends.messages import RUN_CANCELLED, ChunkDraft, ChunkType, Task, TaskResult
from queue_backends.nats.chunk_writing import ChunkWriter
from queue_backends.nats.entries import Entry, encode_task
from queue_backends.nats.holding import Held
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.letters import Letter, encode_letter
from queue_backends.nats.records import Stage, TaskRecord, encode_record
from queue_backends.nats.subjects import FRONT
from queue_backends.nats.writes import Write


class Step(Struct):
    """One outcome on its way: what it writes beside its records."""

    outcome: Progress
    held: Held
    records: Sequence[LogRecord]
    chunks: tuple[ChunkDraft, ...] = ()
    chunk_writes: list[Write] = []
    entry_writes: list[Write] = []
    record: TaskRecord | None = None
    """What becomes of the task's record; None if it stays."""
    ends: bool = True
    done: bool = False

    @property
    def weight(self) -> int:
        """At most so many messages."""
        counters = sum(len(added) for record in self.records for added in record.counters.values())
        return len(self.chunk_writes) + len(self.entry_writes) + len(self.records) + counters + 1


def letter_id() -> str:
    """The id of a new dead letter."""
    return f"{time.time_ns() // 1_000_000}-{uuid.uuid4().hex[:8]}"


class Endings:
    """Plans what outcomes write."""

    def __init__(self, ledger: Ledger, writer: ChunkWriter, options: BackendOptions) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._writer = writer
        self._options = options

    def plan(self, step: Step) -> None:
        """Fill in the step's writes, as its task's record is now. Raises `ChunkTooLarge`."""
        outcome, held = step.outcome, step.held
        step.chunks, step.entry_writes = outcome.chunks, []
        match outcome:
            case Ack(result=result):
                step.record = self._ended(held, result)
            case Dead(result=result, next_attempt=next_attempt):
                self._bury(step, result, next_attempt)
            case Retry() | Release() if held.record.cancel:
                self._cancel(step, outcome.spent or held.spent)
            case Retry(retry_in_s=retry_in_s, next_attempt=next_attempt, spent=spent, counts=counts):
                self._give_back(step, retry_in_s, next_attempt, spent, failures=1 if counts else 0)
            case Release(next_attempt=next_attempt, spent=spent):
                self._give_back(step, None, next_attempt, spent)
            case Checkpoint():
                # Chunks carry the fence themselves; records alone need the task's own record for it.
                step.record, step.ends = (None if outcome.chunks else held.record), False
        step.chunk_writes = self._writer.writes(held, step.chunks) if step.chunks else []

    def _ended(self, held: Held, result: TaskResult, *, letter: str = "") -> TaskRecord:
        record = held.record
        return TaskRecord(stage=Stage.ENDED, run=record.run, token=record.token, result=result, letter=letter)

    def _bury(self, step: Step, result: TaskResult, next_attempt: int) -> None:
        delivery = step.held.delivery
        task = replace(delivery.task, attempt=delivery.task.attempt + 1)
        name = letter_id()
        letter = letter_of(task, result.error, max(next_attempt, delivery.next_attempt))
        step.entry_writes = [Write(self._subjects.letter(name), encode_letter(letter, encode_task(task)))]
        step.record = self._ended(step.held, result, letter=name)

    def _cancel(self, step: Step, spent: Spent) -> None:
        step.chunks = (*step.chunks, final_error(RUN_CANCELLED))
        step.record = self._ended(step.held, cancelled(step.held.task_id, spent))

    def _give_back(
        self, step: Step, retry_in_s: float | None, next_attempt: int, spent: Spent | None, *, failures: int = 0
    ) -> None:
        held = step.held
        delivery, task_id = held.delivery, held.task_id
        task = replace(delivery.task, attempt=delivery.task.attempt + failures)
        entry = Entry(
            run=held.record.run + 1,
            next_attempt=max(next_attempt, delivery.next_attempt),
            spent=spent or held.spent,
            due_at=time.time() + retry_in_s if retry_in_s else None,
        )
        if entry.due_at is not None:
            subject = self._subjects.later(task_id)
        else:
            subject = self._subjects.lane(FRONT if retry_in_s is None else task.priority.value, task_id)
        step.entry_writes = [Write(subject, encode_task(task), headers=entry.headers())]
        step.record = TaskRecord(stage=Stage.WAITING, run=entry.run, token=held.record.token)

    def record_write(self, step: Step) -> Write | None:
        """The write of the task's record, with the fence."""
        if step.record is None:
            return None
        return self.task_write(step.held.task_id, step.record, step.held.revision)

    def task_write(self, task_id: str, record: TaskRecord, revision: int) -> Write:
        """The write of a task's record that has this revision now."""
        options = self._options
        ttl_s = options.result_retention_s if record.stage is Stage.ENDED else options.unfinished_ttl_s
        return Write(self._subjects.task(task_id), encode_record(record), expected=revision, ttl_s=ttl_s)


def letter_of(task: Task, error: str, next_attempt: int) -> Letter:
    """The letter of a task that can be read."""
    return Letter(
        task_id=task.id,
        error=error,
        prompt=task.prompt,
        attempt=task.attempt,
        next_attempt=next_attempt,
        dead_at=time.time(),
    )


def final_error(error: str) -> ChunkDraft:
    """The last chunk of a task that failed."""
    return ChunkDraft(type=ChunkType.ERROR, content=error, is_final=True)


def cancelled(task_id: str, spent: Spent) -> TaskResult:
    """The result of a task that was cancelled while nobody ran it."""
    return TaskResult(
        task_id=task_id, error=RUN_CANCELLED, usage=spent.usage, cost_usd=spent.cost_usd, finished_at=time.time()
    )
