"""Accepting tasks: many at once are one atomic batch, and a repeated one is known by its id or its idempotency key."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from queue_backends.batching import batches, task_chars
from queue_backends.errors import BackendUnavailable, InvalidTask, QueueFull
from queue_backends.gathering import Gatherer, by_tasks
from queue_backends.interfaces import BackendOptions
from queue_backends.messages import Task, check_run_at, check_task, now_rfc3339
from queue_backends.nats.entries import Entry, encode_task
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.refusals import Conflict
from queue_backends.nats.repeating import pauses
from queue_backends.nats.writes import MOST_MESSAGE_BYTES, Write

SUBMIT_LIMIT_S = 15.0
"""So long a submit whose confirmation was lost is repeated."""
FIRST_DELAY_S = 0.05
HEADROOM_BYTES = 4096
UNKNOWN_OUTCOME = "whether the tasks were accepted is not known: submit them again with an idempotency_key"


Submission = tuple[Task, float | None]
"""A task on its way in, and when it becomes ready."""


class Submitter:
    """Adds tasks. Single ones that are submitted at the same time travel together."""

    def __init__(self, ledger: Ledger, options: BackendOptions, waiting: Callable[[], Awaitable[int]]) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._options = options
        self._count_waiting = waiting
        self._gatherer = Gatherer(by_tasks(self._add), lambda submission: task_chars(submission[0]))

    async def submit(self, task: Task, run_at: float | None) -> str:
        """Accept one task."""
        check_run_at(run_at)
        self._check(task)
        return await self._gatherer.submit((task, run_at))

    async def submit_many(self, tasks: Sequence[Task], run_at: float | None) -> list[str]:
        """Accept several tasks, all checked before the first is added."""
        check_run_at(run_at)
        for task in tasks:
            self._check(task)
        parts = list(batches(tasks, task_chars))
        depth = self._options.max_depth
        if depth and len(parts) > 1 and await self._count_waiting() + len(tasks) > depth:
            raise self._full()
        ids: list[str] = []
        for part in parts:
            ids += await self._add([(task, run_at) for task in part])
        return ids

    async def close(self) -> None:
        """Let what is on its way arrive."""
        await self._gatherer.close(SUBMIT_LIMIT_S)

    def _check(self, task: Task) -> None:
        check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)
        most = min(self._ledger.connection.max_payload - HEADROOM_BYTES, MOST_MESSAGE_BYTES)
        if len(task.prompt) * 6 > most or task.history:
            size = len(encode_task(task))
            if size > most:
                raise InvalidTask(
                    f"the task has {size} bytes, the NATS server takes {most}: shorten it, or raise its max_payload"
                )

    async def _add(self, tasks: Sequence[Submission]) -> list[str]:
        """One step, repeated under the same ids while it is not known whether it was carried out: what is there already
        is not added again."""
        now_ms = time.time_ns() // 1_000_000
        ids = [f"{now_ms}-{uuid.uuid4().hex[:12]}" for _ in tasks]
        deadline, delay_s, is_repeated = time.monotonic() + SUBMIT_LIMIT_S, FIRST_DELAY_S, False
        while True:
            sent = self._ledger.connection.is_connected
            try:
                return await self._add_once(tasks, ids, is_repeated=is_repeated)
            except BackendUnavailable as error:
                is_repeated = is_repeated or sent
                if not is_repeated:
                    raise
                if time.monotonic() + delay_s > deadline:
                    raise BackendUnavailable(f"{error}; {UNKNOWN_OUTCOME}") from error
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 1.0)

    async def _add_once(self, tasks: Sequence[Submission], ids: Sequence[str], *, is_repeated: bool) -> list[str]:
        """Raises `QueueFull`; then nothing was added."""
        for pause_s in pauses():
            found = await self._known(tasks)
            chosen = _chosen(tasks, ids, found)
            fresh = [(task_id, *given) for task_id, given in zip(ids, tasks, strict=True) if task_id in chosen]
            if is_repeated:
                there = await self._ledger.last_of(self._message_subjects([task_id for task_id, _, _ in fresh]))
                if there:  # an earlier try got through
                    return chosen
            if not fresh:
                return chosen
            writes = self._writes(fresh)
            if self._options.max_depth:
                writes.append(await self._room_for(len(fresh)))
            try:
                await self._ledger.write_all(writes)
            except Conflict:
                is_repeated = True
                await asyncio.sleep(pause_s)
            else:
                return chosen
        raise BackendUnavailable("the tasks could not be added: others kept changing the same records; try again")

    def _message_subjects(self, ids: Sequence[str]) -> list[str]:
        return [
            subject
            for task_id in ids
            for subject in (
                self._subjects.lane("*", task_id),
                self._subjects.later(task_id),
                self._subjects.task(task_id),
            )
        ]

    async def _known(self, tasks: Sequence[Submission]) -> dict[str, str]:
        """The tasks that idempotency keys stand for."""
        keys = {self._subjects.idempotency(task.idempotency_key): task for task, _ in tasks if task.idempotency_key}
        found = await self._ledger.last_of(list(keys), fresh=True) if keys else {}
        return {keys[subject].idempotency_key: stored.data.decode() for subject, stored in found.items()}

    def _writes(self, fresh: Sequence[tuple[str, Task, float | None]]) -> list[Write]:
        enqueued_at, now = now_rfc3339(), time.time()
        writes: list[Write] = []
        for task_id, task, run_at in fresh:
            due_at = run_at if run_at is not None and run_at > now else None
            lane = self._subjects.lane(task.priority.value, task_id)
            subject = lane if due_at is None else self._subjects.later(task_id)
            headers = Entry(due_at=due_at).headers()
            body = encode_task(replace(task, attempt=0) if task.attempt else task, enqueued_at)
            writes.append(Write(subject, body, expected=0, headers=headers))
            if task.idempotency_key:
                key = self._subjects.idempotency(task.idempotency_key)
                kept_s = self._options.idempotency_retention_s
                writes.append(Write(key, task_id.encode(), expected=0, ttl_s=kept_s))
        if len(writes) == 1:  # then the server itself knows a repetition, for two minutes
            writes[0].headers = {**(writes[0].headers or {}), "Nats-Msg-Id": fresh[0][0]}
        return writes

    async def _room_for(self, count: int) -> Write:
        """The write that fails if somebody else has added tasks since the waiting ones were counted."""
        stored = await self._ledger.last(self._subjects.depth, fresh=True)
        if await self._count_waiting() + count > self._options.max_depth:
            raise self._full()
        return Write(self._subjects.depth, b"", expected=stored.revision if stored else 0)

    def _full(self) -> QueueFull:
        depth = self._options.max_depth
        return QueueFull(
            f"queue {self._subjects.queue!r} has reached its max_depth of {depth} waiting tasks: try again later"
        )


def _chosen(tasks: Sequence[Submission], ids: Sequence[str], found: dict[str, str]) -> list[str]:
    """The id of each task: its own, or that of the first one with its key."""
    by_key = dict(found)
    chosen = []
    for task_id, (task, _) in zip(ids, tasks, strict=True):
        chosen.append(by_key.setdefault(task.idempotency_key, task_id) if task.idempotency_key else task_id)
    return chosen
