"""What a queue is, in plain Python: the one model that every backend is compared with.

The model follows rather than predicts where the contract leaves a choice: which of the tasks that nobody owns any more
comes first, or whether a lease that has run out, and that nobody has taken over, still lets its holder write. Whatever
the backend did there must be one of the allowed things, and from then on the model takes it as done.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from queue_backends.capabilities import Capability
from queue_backends.interfaces import (
    ATTEMPTS_PER_DELIVERY,
    Ack,
    CancelOutcome,
    Dead,
    Delivery,
    LogRecord,
    Progress,
    QueueStats,
    Release,
    Retry,
    TaskState,
    TaskStatus,
)
from queue_backends.messages import (
    RUN_CANCELLED,
    Chunk,
    ChunkDraft,
    DeadLetter,
    Priority,
    Task,
    TaskResult,
)
from tests.queue_backends.model.task_model import (
    CANCELLED_CHUNK,
    LANES,
    Fence,
    Key,
    LetterModel,
    Place,
    TaskModel,
    key_of,
)


class QueueModel:
    """All that a backend keeps."""

    def __init__(self, *, max_depth: int, gaps: Container[Capability] = ()) -> None:
        self.max_depth = max_depth
        self.is_ordered = Capability.ORDER not in gaps
        """Whether tasks and letters come in order, and a pull takes all that it can; else it takes some."""
        self.tasks: dict[str, TaskModel] = {}
        self.ids_of_keys: dict[str, str] = {}
        self.letters: dict[str, LetterModel] = {}
        """Letter id -> letter, oldest first."""
        self.paused = False
        self.records: dict[str, None] = {}
        self.counters: dict[str, int] = {}
        self._seen: set[Key] = set()
        self._order = 0

    def in_place(self, place: Place) -> list[TaskModel]:
        """Tasks in one place."""
        return [task for task in self.tasks.values() if task.place is place]

    # Engines

    def has_room(self, tasks: Sequence[Task]) -> bool | None:
        """Whether these may be submitted; None if that depends on how the backend counts late ones."""
        fresh = [task for task in tasks if task.idempotency_key not in self.ids_of_keys]
        keys = {task.idempotency_key for task in fresh if task.idempotency_key}
        fewest = len([task for task in fresh if not task.idempotency_key]) + len(keys)
        waiting = len(self.in_place(Place.READY)) + len(self.in_place(Place.DELAYED))
        lapsed = sum(task.is_late for task in self.in_place(Place.RUNNING))
        if not fresh or waiting + lapsed + len(fresh) <= self.max_depth:
            return True
        return False if waiting + fewest > self.max_depth else None

    def submitted(self, task: Task, task_id: str, *, delayed: bool, is_due: bool) -> None:
        """One more task has been accepted, or was known."""
        if known := self.ids_of_keys.get(task.idempotency_key):
            assert task_id == known, "an idempotency key has got a second task"
            return
        assert task_id not in self.tasks, "a task id was given twice"
        if task.idempotency_key:
            self.ids_of_keys[task.idempotency_key] = task_id
        place = Place.DELAYED if delayed else Place.READY
        order = None if delayed else self._next_order()
        self.tasks[task_id] = TaskModel(task_id, task, place, task.priority, order, is_late=is_due)

    def _next_order(self) -> int:
        self._order += 1
        return self._order

    def cancelled(self, task_id: str, outcome: CancelOutcome) -> None:
        """A cancel has been answered."""
        task = self.tasks.get(task_id)
        if task is None:
            assert outcome is CancelOutcome.UNKNOWN
        elif task.place is Place.ENDED:
            assert outcome is CancelOutcome.FINISHED
        elif task.place is Place.RUNNING and not (task.is_late and outcome is CancelOutcome.CANCELLED):
            assert outcome is CancelOutcome.REQUESTED
            task.cancel_asked = True
        else:
            assert outcome is CancelOutcome.CANCELLED
            self._end_cancelled(task)

    def woken(self, task_id: str, *, was_delayed: bool) -> None:
        """A wake has been answered. One whose moment has come may have become ready by itself before."""
        task = self.tasks.get(task_id)
        is_delayed = task is not None and task.place is Place.DELAYED
        if task is None or not is_delayed or not was_delayed:
            assert not was_delayed or is_delayed, "a task was woken that was not delayed"
            assert was_delayed or not is_delayed or (task is not None and task.is_late), "a task sleeps on"
            return
        task.order = None if task.is_late else self._next_order()
        task.place, task.is_late = Place.READY, False

    def _end_cancelled(self, task: TaskModel) -> None:
        task.chunks.append(CANCELLED_CHUNK)
        self._end(task, TaskResult(task_id=task.id, error=RUN_CANCELLED))

    def _end(self, task: TaskModel, result: TaskResult) -> None:
        assert task.place is not Place.ENDED, "a task has ended twice"
        task.place, task.owner, task.is_late, task.cancel_asked = Place.ENDED, None, False, False
        task.result = result

    # Workers

    def pulled(self, deliveries: Sequence[Delivery], limit: int, *, own: Container[Key] = ()) -> None:
        """A pull has come back: who was taken, in which order, and who may be left.

        What the puller itself had, and whose lease has run out, it may leave: it might be running it still.
        """
        if self.paused:
            assert deliveries == [], "a paused queue has delivered"
        assert len(deliveries) <= limit
        before = [task for task in self.tasks.values() if task.is_takeable and not self.paused]
        taken = [self.tasks[delivery.task.id] for delivery in deliveries]
        assert all(task in before for task in taken), "a task was delivered that nobody may take"
        assert len({task.id for task in taken}) == len(taken), "a task was delivered twice"
        left = [task for task in before if task not in taken and task.owner not in own]
        assert not left or len(taken) == limit or (taken and not self.is_ordered), "a ready task was not delivered"
        if self.is_ordered:
            self._check_order([task for task in taken if not task.may_come_anywhere], left)
        for task, delivery in zip(taken, deliveries, strict=True):
            self._check_delivery(task, delivery)

    def _check_order(self, taken: Sequence[TaskModel], left: Sequence[TaskModel]) -> None:
        lanes = [LANES.index(task.lane) for task in taken]
        assert lanes == sorted(lanes), "a less urgent task came before a more urgent one"
        for task in left:
            assert task.may_come_anywhere or not lanes or LANES.index(task.lane) >= lanes[-1], "an urgent task was left"
        for lane in LANES:
            numbers = [task.order for task in taken if task.lane is lane and task.order is not None]
            assert numbers == sorted(numbers), "tasks of one priority have changed their order"
            later = [task.order for task in left if task.lane is lane and task.order is not None]
            assert not numbers or not later or max(numbers) < min(later), "an older task was passed over"

    def _check_delivery(self, task: TaskModel, delivery: Delivery) -> None:
        if task.place is Place.RUNNING:
            task.crashes += 1
        key = key_of(delivery)
        assert key not in self._seen, "a fencing token has come back"
        self._seen.add(key)
        assert delivery.redeliveries == task.crashes
        assert delivery.task.attempt == task.failures + task.crashes
        assert delivery.next_attempt == task.next_attempt + task.crashes * ATTEMPTS_PER_DELIVERY
        assert not (delivery.first and task.was_delivered), "a task that somebody had counts as untouched"
        wanted = task.task
        for name in ("prompt", "meta", "priority", "idempotency_key"):
            assert getattr(delivery.task, name) == getattr(wanted, name)
        task.place, task.owner, task.is_late, task.was_delivered = Place.RUNNING, key, False, True

    def fence(self, delivery: Delivery) -> Fence:
        """What a write under this delivery must meet now."""
        task = self.tasks[delivery.task.id]
        if task.owner != key_of(delivery):
            return Fence.LOST
        return Fence.OPEN if task.is_late else Fence.HELD

    def answered(self, delivery: Delivery, *, lost: bool) -> bool:
        """A write was answered; says whether it was carried out."""
        fence = self.fence(delivery)
        assert not (lost and fence is Fence.HELD), "a lease that holds was called lost"
        assert lost or fence is not Fence.LOST, "a former owner has written"
        return not lost

    def renewed(self, delivery: Delivery) -> None:
        """A lease begins anew."""
        self.tasks[delivery.task.id].is_late = False

    def published(self, delivery: Delivery, chunks: Sequence[ChunkDraft]) -> None:
        """Chunks were written."""
        self.tasks[delivery.task.id].chunks += chunks

    def appended(self, records: Sequence[LogRecord]) -> int:
        """Records were written; returns how many are new."""
        fresh = {record.id: record for record in records if record.id not in self.records}
        for record in fresh.values():
            self.records[record.id] = None
            for amounts in record.counters.values():
                for name, amount in amounts.items():
                    self.counters[name] = self.counters.get(name, 0) + amount
        return len(fresh)

    def committed(self, outcome: Progress) -> None:
        """An outcome was carried out."""
        delivery = outcome.delivery
        task = self.tasks[delivery.task.id]
        self.published(delivery, outcome.chunks)
        self.appended(outcome.records)
        match outcome:
            case Ack(result=result):
                self._end(task, result)
            case Dead(result=result):
                letter = LetterModel(
                    task.id,
                    result.error,
                    task.task.prompt,
                    task.failures + task.crashes + 1,
                    max(outcome.next_attempt, delivery.next_attempt),
                )
                self.letters[f"new-{self._next_order()}"] = letter
                self._end(task, result)
            case Retry(retry_in_s=delay_s):
                self._give_back(task, outcome, failures=1, delayed=delay_s > 0)
            case Release():
                self._give_back(task, outcome, failures=0, delayed=False)

    def _give_back(self, task: TaskModel, outcome: Retry | Release, *, failures: int, delayed: bool) -> None:
        if task.cancel_asked:
            self._end_cancelled(task)
            return
        task.failures += task.crashes + failures
        task.crashes, task.owner, task.is_late = 0, None, False
        task.next_attempt = max(outcome.next_attempt, outcome.delivery.next_attempt)
        task.place = Place.DELAYED if delayed else Place.READY
        released = isinstance(outcome, Release)
        task.lane = Priority.HIGH if released else task.task.priority
        task.order = None if delayed or released else self._next_order()

    # Operators

    def requeued(self, letter_id: str) -> str:
        """A letter was brought back; returns the task's id."""
        letter = self.letters.pop(letter_id)
        task = self.tasks[letter.task_id]
        task.place, task.lane, task.order = Place.READY, task.task.priority, self._next_order()
        task.failures = task.crashes = 0
        task.next_attempt = letter.next_attempt
        task.result = None
        task.chunks = []
        return task.id

    def check_status(self, status: TaskStatus) -> None:
        """A status says what is so."""
        task = self.tasks.get(status.id)
        if task is None:
            assert status.state is TaskState.UNKNOWN
            return
        assert status.state in task.states, f"{status.state} is not among {task.states}"
        if task.place is Place.ENDED:
            self.check_result(task.id, status.result)
            return
        assert status.result is None
        assert status.task is not None
        assert status.task.prompt == task.task.prompt
        attempts = task.failures + task.crashes
        crashed = task.is_late and task.place is Place.RUNNING
        assert status.task.attempt in ({attempts, attempts + 1} if crashed else {attempts})

    def check_result(self, task_id: str, result: TaskResult | None) -> None:
        """A result is what it was when it was written."""
        task = self.tasks.get(task_id)
        expected = task.result if task else None
        if expected is None or result is None:
            assert result is expected
            return
        assert result.finished_at > 0
        if expected.error == RUN_CANCELLED and not expected.finished_at:  # the backend has written it, by its own clock
            assert (result.task_id, result.error, result.output) == (task_id, RUN_CANCELLED, "")
        else:
            assert result == expected

    def check_stats(self, stats: QueueStats) -> None:
        """The figures add up."""
        ready, delayed, running = (self.in_place(place) for place in (Place.READY, Place.DELAYED, Place.RUNNING))
        late = sum(task.is_late for task in (*delayed, *running))
        assert stats.ready + stats.delayed + stats.running == len(ready) + len(delayed) + len(running)
        assert len(ready) <= stats.ready <= len(ready) + late
        assert len(delayed) - sum(task.is_late for task in delayed) <= stats.delayed <= len(delayed)
        assert len(running) - sum(task.is_late for task in running) <= stats.running <= len(running)
        assert sum(stats.ready_by_priority.values()) == stats.ready
        assert (stats.oldest_ready_age_s is None) == (stats.ready == 0)
        assert stats.dead == len(self.letters)
        assert stats.paused == self.paused

    def check_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Letters, oldest first, are those that were written; new ones get the ids that they have in the backend."""
        kept = list(self.letters.values())
        if not self.is_ordered:
            letters, kept = sorted(letters, key=_letter_key), sorted(kept, key=_letter_key)
        assert list(map(_letter_key, letters)) == list(map(_letter_key, kept))
        self.letters = {letter.id: model for letter, model in zip(letters, kept, strict=True)}

    def check_chunks(self, task_id: str, chunks: Sequence[Chunk], *, after_seq: int = -1) -> None:
        """A replay is what was written: gapless, from the seq on that was asked for."""
        expected = self.tasks[task_id].chunks[after_seq + 1 :]
        assert [chunk.seq for chunk in chunks] == [after_seq + 1 + position for position in range(len(expected))]
        told = [(chunk.type, chunk.content, chunk.turn, chunk.attempt, chunk.is_final) for chunk in chunks]
        assert told == [(each.type, each.content, each.turn, each.attempt, each.is_final) for each in expected]


def _letter_key(letter: DeadLetter | LetterModel) -> tuple[str, int, str, str]:
    return letter.task_id, letter.attempt, letter.error, letter.prompt
