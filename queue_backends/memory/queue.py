"""`TaskQueue` in memory."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec.structs import replace

from queue_backends.errors import InvalidTask, LeaseLost, QueueFull, WaitTimeout
from queue_backends.interfaces import (
    ATTEMPTS_PER_DELIVERY,
    BackendOptions,
    CancelOutcome,
    Delivery,
    QueueStats,
    Spent,
    TaskState,
    TaskStatus,
)
from queue_backends.memory.store import LANES, Buried, Entry, Lease, Store
from queue_backends.messages import (
    RUN_CANCELLED,
    ChunkDraft,
    ChunkType,
    DeadLetter,
    Task,
    TaskResult,
    check_run_at,
    check_task,
    entry_count,
    now_rfc3339,
    task_from_entry,
    task_to_entry,
)

FOR_EVER_S = 3600.0
KEPT_OF_REFUSED = 1000
"""Of a prompt that is too long, the dead letter has this many characters."""


class MemoryQueue:
    """`TaskQueue` on a `Store`."""

    def __init__(self, store: Store, options: BackendOptions) -> None:
        self._store = store
        self._options = options
        self.consumer = f"{options.consumer or 'memory'}-{uuid.uuid4().hex[:8]}"

    async def submit(self, task: Task, *, run_at: float | None = None) -> str:
        """Accept one task."""
        return (await self.submit_many([task], run_at=run_at))[0]

    async def submit_many(self, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """Accept several tasks, or none."""
        check_run_at(run_at)
        for task in tasks:
            check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)
        depth = self._options.max_depth
        new = [task for task in tasks if not self._known(task)]
        if depth and new and len(self._store.waiting()) + len(new) > depth:
            raise QueueFull(f"the queue has reached its max_depth of {depth} waiting tasks: try again later")
        return [self._accept(task, run_at) for task in tasks]

    def _accept(self, task: Task, run_at: float | None) -> str:
        store = self._store
        if known := self._known(task):
            return known
        task_id = store.new_id()
        if task.idempotency_key:
            expires_at = time.time() + self._options.idempotency_retention_s
            store.idempotency[task.idempotency_key] = (task_id, expires_at)
        accepted = replace(task, id=task_id, attempt=0, enqueued_at=task.enqueued_at or now_rfc3339())
        store.put(Entry(id=task_id, task=accepted), run_at=run_at)
        return task_id

    def _known(self, task: Task) -> str:
        """The id that the task's idempotency key has already; empty if it is new."""
        known, expires_at = self._store.idempotency.get(task.idempotency_key, ("", 0.0))
        return known if expires_at > time.time() else ""

    def inject_raw(self, fields: dict[str, str]) -> str:
        """Add an entry as a foreign engine would write it: text fields that may or may not be a task."""
        entry_id = self._store.new_id()
        try:
            failures = entry_count(fields, "attempt")
            task = task_from_entry(entry_id, fields, attempt=failures)
            check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)
            problem = ""
        except InvalidTask as error:
            task, problem = Task(id=entry_id, prompt=fields.get("prompt", "")), str(error)
        self._store.put(Entry(id=entry_id, task=task, problem=problem))
        return entry_id

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks."""
        deadline = time.monotonic() + wait_s
        while True:
            next_due_s = self._store.move_due()
            deliveries: list[Delivery] = []
            while not self._store.paused and len(deliveries) < limit and (entry := self._next()):
                if entry.problem:
                    self._refuse(entry)
                else:
                    deliveries.append(self._deliver(entry))
            remaining = deadline - time.monotonic()
            if deliveries or remaining <= 0:
                return deliveries
            await self._store.changed.wait(min(remaining, FOR_EVER_S if next_due_s is None else next_due_s))

    def _next(self) -> Entry | None:
        return next((self._store.ready[lane].popleft() for lane in LANES if self._store.ready[lane]), None)

    def _deliver(self, entry: Entry) -> Delivery:
        crashes = entry.deliveries
        entry.deliveries += 1
        token = uuid.uuid4().hex
        self._store.running[entry.id] = (entry, self._lease(token))
        if entry.task.id in self._store.cancel_asked:
            self._store.changed.notify()  # whoever listens for cancels here has one more to hear of
        return Delivery(
            task=replace(entry.task, attempt=entry.task.attempt + crashes),
            entry_id=entry.id,
            token=token,
            redeliveries=crashes,
            first=entry.first and crashes == 0,
            next_attempt=entry.next_attempt + crashes * ATTEMPTS_PER_DELIVERY,
            worker=self.consumer,
        )

    def _lease(self, token: str) -> Lease:
        return Lease(token, time.monotonic() + self._options.lease_s, self, self.consumer)

    def _refuse(self, entry: Entry) -> None:
        result = TaskResult(task_id=entry.task.id, error=entry.problem, finished_at=time.time())
        prompt = entry.task.prompt[:KEPT_OF_REFUSED]
        is_whole = len(entry.task.prompt) <= self._options.max_prompt_bytes
        task = entry.task if is_whole else replace(entry.task, prompt=prompt)
        self._bury(task, result, problem=entry.problem, is_whole=is_whole)
        self._write_final(entry.task.id, entry.problem)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases."""
        lost = []
        for delivery in deliveries:
            try:
                entry = self._store.owned(delivery)
            except LeaseLost:
                lost.append(delivery)
            else:
                lease = self._lease(delivery.token)
                self._store.running[entry.id] = (entry, lease)
        return lost

    async def ack(self, delivery: Delivery, result: TaskResult) -> None:
        """End the task."""
        entry = self._store.owned(delivery)
        del self._store.running[entry.id]
        self._store.finish(result, self._options.result_retention_s)

    async def nack(
        self,
        delivery: Delivery,
        error: str,
        *,
        retry_in_s: float | None = None,
        dead: bool = False,
        next_attempt: int = 0,
        spent: Spent | None = None,
        result: TaskResult | None = None,
        counts: bool = True,
    ) -> None:
        """Give the task back, or give it up."""
        if dead:
            said = result or TaskResult(task_id=delivery.task.id, error=error, finished_at=time.time())
            self.bury(delivery, said, next_attempt=next_attempt)
        else:
            self.bring_back(delivery, retry_in_s=retry_in_s, next_attempt=next_attempt, spent=spent, counts=counts)

    def bury(self, delivery: Delivery, result: TaskResult, *, next_attempt: int = 0) -> None:
        """To the dead letters. Raises `LeaseLost`."""
        entry = self._store.owned(delivery)
        del self._store.running[entry.id]
        task = replace(delivery.task, attempt=delivery.task.attempt + 1)
        self._bury(task, result, next_attempt=max(next_attempt, delivery.next_attempt))

    def bring_back(
        self,
        delivery: Delivery,
        *,
        retry_in_s: float | None,
        next_attempt: int = 0,
        spent: Spent | None = None,
        counts: bool = True,
    ) -> None:
        """Make it ready again: after a failure with `retry_in_s` (none, unless it `counts`), else as released. Raises
        `LeaseLost`."""
        store = self._store
        entry = store.owned(delivery)
        del store.running[entry.id]
        if delivery.task.id in store.cancel_asked:
            self._cancel_now(delivery.task, spent or entry.spent)
            return
        failures = 1 if retry_in_s is not None and counts else 0
        again = Entry(
            id=store.new_id(),
            task=replace(delivery.task, attempt=delivery.task.attempt + failures),
            next_attempt=max(next_attempt, delivery.next_attempt),
            spent=spent or entry.spent,
            first=False,
        )
        run_at = time.time() + retry_in_s if retry_in_s else None
        store.put(again, run_at=run_at, in_front=retry_in_s is None)

    def _bury(
        self, task: Task, result: TaskResult, *, next_attempt: int = 0, problem: str = "", is_whole: bool = True
    ) -> None:
        store = self._store
        letter = DeadLetter(
            id=store.new_id(),
            task_id=task.id,
            error=result.error,
            prompt=task.prompt,
            attempt=task.attempt,
            fields=task_to_entry(task, ""),
            dead_at=time.time(),
        )
        store.dead[letter.id] = Buried(letter, task, next_attempt, problem, is_whole)
        while len(store.dead) > self._options.dead_limit:
            del store.dead[next(iter(store.dead))]
        store.finish(result, self._options.result_retention_s)

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """Results that are still kept."""
        oldest = time.time() - self._options.result_retention_s
        return [
            self._store.results.get(task_id) if self._store.ended_at.get(task_id, 0.0) > oldest else None
            for task_id in ids
        ]

    async def wait(self, task_id: str, timeout_s: float) -> TaskResult:
        """The result, when there is one."""
        deadline = time.monotonic() + timeout_s
        while (found := (await self.results([task_id]))[0]) is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise WaitTimeout(f"task {task_id} has no result after {timeout_s} s: wait again, or cancel it")
            await self._store.changed.wait(remaining)
        return found

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        """End tasks."""
        return [self._cancel(task_id) for task_id in ids]

    def _cancel(self, task_id: str) -> CancelOutcome:
        store = self._store
        if task_id in store.results:
            return CancelOutcome.FINISHED
        if entry := store.remove_waiting(task_id):
            self._cancel_now(entry.task, entry.spent)
            return CancelOutcome.CANCELLED
        if any(entry.task.id == task_id for entry, _ in store.running.values()):
            store.cancel_asked.add(task_id)
            store.changed.notify()
            return CancelOutcome.REQUESTED
        return CancelOutcome.UNKNOWN

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Make delayed tasks ready."""
        return [self._store.wake(task_id) for task_id in ids]

    def _cancel_now(self, task: Task, spent: Spent) -> None:
        result = TaskResult(
            task_id=task.id,
            error=RUN_CANCELLED,
            usage=spent.usage,
            cost_usd=spent.cost_usd,
            finished_at=time.time(),
        )
        self._write_final(task.id, RUN_CANCELLED)
        self._store.finish(result, self._options.result_retention_s)

    def _write_final(self, task_id: str, error: str) -> None:
        final = ChunkDraft(type=ChunkType.ERROR, content=error, is_final=True)
        options = self._options
        self._store.write_chunks(task_id, (final,), options)

    async def cancellations(self) -> AsyncIterator[str]:
        """Each request once per delivery, for tasks that this queue object delivered."""
        told: dict[str, str] = {}
        while True:
            asked = {
                lease.token: entry.task.id
                for entry, lease in self._store.running.values()
                if lease.holder is self and entry.task.id in self._store.cancel_asked
            }
            fresh = asked.keys() - told.keys()
            told = asked
            for token in fresh:
                yield asked[token]
            if not fresh:
                await self._store.changed.wait(FOR_EVER_S)

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task."""
        return [self._status(task_id) for task_id in ids]

    def _status(self, task_id: str) -> TaskStatus:
        return next(
            (status for status in self._all_statuses() if status.id == task_id),
            TaskStatus(id=task_id, state=TaskState.UNKNOWN),
        )

    def _all_statuses(self) -> list[TaskStatus]:
        store = self._store
        store.move_due()
        now = time.monotonic()
        found = [
            TaskStatus(
                id=entry.task.id,
                state=TaskState.RUNNING,
                task=_as_of(entry, entry.deliveries - 1),
                worker=lease.worker,
                leased_s=max(0.0, self._options.lease_s - (lease.expires_at - now)),
            )
            for entry, lease in store.running.values()
        ]
        found += [
            TaskStatus(id=entry.task.id, state=TaskState.READY, task=_as_of(entry, entry.deliveries))
            for lane in LANES
            for entry in store.ready[lane]
        ]
        found += [
            TaskStatus(id=due.entry.task.id, state=TaskState.DELAYED, task=due.entry.task, due_at=due.at)
            for due in sorted(store.delayed)
        ]
        found += [_ended(store.results[task_id]) for task_id in reversed(store.ended_at) if task_id in store.results]
        return found

    async def list_tasks(self, *, limit: int = 50, states: Sequence[TaskState] = ()) -> list[TaskStatus]:
        """Tasks by state."""
        wanted = set(states or TaskState)
        return [status for status in self._all_statuses() if status.state in wanted][:limit]

    async def stats(self) -> QueueStats:
        """The queue's figures now."""
        store = self._store
        store.move_due()
        waiting = [entry for lane in LANES for entry in store.ready[lane]]
        oldest_ms = min((int(entry.id.partition("-")[0]) for entry in waiting), default=None)
        return QueueStats(
            ready=len(waiting),
            running=len(store.running),
            delayed=len(store.delayed),
            dead=len(store.dead),
            ready_by_priority={lane: len(store.ready[lane]) for lane in LANES},
            oldest_ready_age_s=None if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1000),
            paused=store.paused,
        )

    async def dead_letters(self, *, limit: int = 50) -> list[DeadLetter]:
        """Letters, newest first."""
        return [buried.letter for buried in reversed(self._store.dead.values())][:limit]

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """Bring letters back."""
        store = self._store
        brought_back = []
        for letter_id in letter_ids:
            found = store.dead.get(letter_id)
            if found is None or not found.is_whole:
                continue
            del store.dead[letter_id]
            task = replace(found.task, attempt=0)
            for kept in (store.results, store.ended_at, store.streams):
                _forget(kept, task.id)
            again = Entry(
                id=store.new_id(),
                task=task,
                next_attempt=found.next_attempt,
                first=False,
                problem=found.problem,
            )
            store.put(again)
            brought_back.append(task.id)
        return brought_back

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Delete letters."""
        return sum(self._store.dead.pop(letter_id, None) is not None for letter_id in letter_ids)

    async def pause(self) -> None:
        """Deliver nothing any more."""
        self._store.paused = True

    async def resume(self) -> None:
        """Deliver again."""
        self._store.paused = False
        self._store.changed.notify()

    async def ping(self) -> None:
        """Memory always answers."""
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing is held that would have to be given up."""


def _as_of(entry: Entry, crashes: int) -> Task:
    """The task with its attempts so far; `crashes` are deliveries that ended without an answer."""
    return replace(entry.task, attempt=entry.task.attempt + crashes) if crashes else entry.task


def _forget(kept: dict[str, Any], key: str) -> None:
    kept.pop(key, None)


def _ended(result: TaskResult) -> TaskStatus:
    state = TaskState.SUCCEEDED if result.ok else TaskState.FAILED
    if result.error == RUN_CANCELLED:
        state = TaskState.CANCELLED
    return TaskStatus(id=result.task_id, state=state, result=result)
