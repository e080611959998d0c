"""What the tasks API takes and gives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from queue_backends import InvalidTask, Priority, Task, TaskResult, TaskState, TaskStatus, TokenUsage, UsageRecord
from queue_backends.messages import JsonObject
from worker.gateway.callbacks import CallbackRequest, CallbackView
from worker.gateway.ownership import TaskRecord

MOST_WAIT_S = 300.0
MOST_BATCH = 1000
MOST_KEY_CHARS = 200
"""Of an idempotency key."""
PREVIEW_CHARS = 200

Name = Annotated[str, Meta(max_length=200)]
Seconds = Annotated[float, Meta(ge=0, le=366 * 24 * 3600)]
Moment = float | datetime
"""Unix seconds, or RFC 3339 text such as `2026-11-21T17:00:00Z`."""


class TaskContent(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a task consists of."""

    prompt: str = ""
    """The text for the agent. May be empty if there is a history."""
    agent: Name = ""
    """Slug, name or id of the agent; empty: the default agent."""
    history: tuple[JsonObject, ...] = ()
    """Earlier messages, oldest first, such as `{"role": "user", "parts": [{"type": "text", "text": "…"}]}`."""
    priority: Priority = Priority.NORMAL
    deadline: Moment | None = None
    """After this moment the task is not started any more, and a running one is ended."""
    deadline_s: Seconds | None = None
    """The same, in seconds from now."""
    idempotency_key: Annotated[str, Meta(max_length=MOST_KEY_CHARS)] = ""
    """Submitting the same key again gives the same task. The header `Idempotency-Key` is the same."""
    meta: dict[str, str] = {}
    """Free text fields, carried along."""
    tenant: Name = ""
    """For callers that are not bound to one."""
    session_id: Name = ""
    conversation_id: Name = ""
    """The conversation whose messages the run begins with, and which it adds to."""
    overrides: JsonObject = {}
    """Fields of the agent's configuration that differ for this task, such as `{"model": "…"}`."""
    callback: CallbackRequest | None = None
    """Where to tell when the task has ended."""

    def task(self, *, idempotency_key: str = "") -> Task:
        """As the queue takes it. Raises `InvalidTask`."""
        if self.deadline is not None and self.deadline_s is not None:
            raise InvalidTask("deadline and deadline_s are both given: give one of them")
        key = self.idempotency_key or idempotency_key
        if idempotency_key and key != idempotency_key:
            raise InvalidTask("idempotency_key and the header Idempotency-Key differ: give one of them")
        deadline = _unix(self.deadline, "deadline")
        return Task(
            prompt=self.prompt,
            agent=self.agent,
            history=self.history,
            priority=self.priority,
            deadline=time.time() + self.deadline_s if self.deadline_s is not None else deadline,
            idempotency_key=key,
            meta=self.meta,
            tenant=self.tenant,
            session_id=self.session_id,
            conversation_id=self.conversation_id,
            overrides=self.overrides,
        )


class TaskRequest(TaskContent, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A task to be run, now or later."""

    run_at: Moment | None = None
    """When it becomes ready; absent: at once."""
    delay_s: Seconds | None = None
    """The same, in seconds from now."""

    def ready_at(self) -> float | None:
        """In Unix seconds; None: at once. Raises `InvalidTask`."""
        return _ready_at(self.run_at, self.delay_s)


class BatchRequest(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Tasks that are all taken, or none of them."""

    tasks: Annotated[tuple[TaskContent, ...], Meta(min_length=1, max_length=MOST_BATCH)]
    run_at: Moment | None = None
    """When all of them become ready."""
    delay_s: Seconds | None = None

    def ready_at(self) -> float | None:
        """In Unix seconds; None: at once. Raises `InvalidTask`."""
        return _ready_at(self.run_at, self.delay_s)


def _ready_at(run_at: Moment | None, delay_s: float | None) -> float | None:
    if run_at is not None and delay_s is not None:
        raise InvalidTask("run_at and delay_s are both given: give one of them")
    return time.time() + delay_s if delay_s is not None else _unix(run_at, "run_at")


def _unix(moment: Moment | None, name: str) -> float | None:
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidTask(f"{name} is {moment.isoformat()}, without a time zone: add Z for UTC")
        return moment.astimezone(UTC).timestamp()
    return moment


class ResultView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a task ended."""

    output: str = ""
    error: str = ""
    """Empty exactly when it succeeded."""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    finished_at: float = 0.0
    """Unix seconds."""
    artifacts: dict[str, str] = {}
    structured: Any = None
    stop_reason: str = ""

    @classmethod
    def of(cls, result: TaskResult, *, preview: bool = False) -> ResultView:
        """The view; a preview has the beginning of the output, and no more."""
        return cls(
            output=_shortened(result.output) if preview else result.output,
            error=result.error,
            usage=result.usage,
            cost_usd=result.cost_usd,
            finished_at=result.finished_at,
            artifacts={} if preview else result.artifacts,
            structured=None if preview else result.structured,
            stop_reason=result.stop_reason,
        )


class TaskView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task and where it is. What is not known, or empty, is left out."""

    id: str
    state: TaskState
    agent: str = ""
    tenant: str = ""
    session_id: str = ""
    conversation_id: str = ""
    priority: Priority = Priority.NORMAL
    attempt: int = 0
    """How often it was already tried and failed."""
    prompt: str = ""
    """While it waits or runs."""
    meta: dict[str, str] = {}
    enqueued_at: str = ""
    submitted_at: float | None = None
    """When a gateway took it. Unix seconds."""
    due_at: float | None = None
    """When a delayed task becomes ready."""
    waits_for: str = ""
    """What a delayed task is parked for: it holds no worker, and goes on as soon as that is there."""
    deadline: float | None = None
    worker: str = ""
    result: ResultView | None = None
    """Once it has ended."""
    callback: CallbackView | None = None
    is_repeated: bool = False
    """It was there already: submitted before with the same idempotency key."""


class TaskPage(Struct, frozen=True, kw_only=True):
    """Some tasks, the texts shortened. `next_cursor` is there as long as there may be more."""

    tasks: Sequence[TaskView]
    next_cursor: str | None = None


class BatchItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task of a batch."""

    id: str
    is_repeated: bool = False
    error: str = ""
    """Why it is not what was asked for, although the batch was taken."""


class BatchAnswer(Struct, frozen=True, kw_only=True):
    """The tasks of a batch, in its order."""

    tasks: Sequence[BatchItem]


class CancelAnswer(Struct, frozen=True, kw_only=True):
    """What a cancel request met: `cancelled`, `requested` (its worker ends it), or `finished` (it had ended)."""

    id: str
    outcome: str


class CallbackPage(Struct, frozen=True, kw_only=True):
    """Callbacks that were given up, the newest first."""

    callbacks: Sequence[CallbackView]


class MessagesAnswer(Struct, frozen=True, kw_only=True):
    """What the run has added to the conversation so far; ready to be the end of another task's `history`."""

    messages: Sequence[JsonObject]


class TimelineAnswer(Struct, frozen=True, kw_only=True):
    """The journal of a run: model calls, tool calls, retries; each entry with the moment `at` which it was stored."""

    entries: Sequence[JsonObject]


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """What a task has used so far, one record per model call that was sent."""

    usage: TokenUsage
    cost_usd: float | None
    """None: not known for one of the calls, or there was none."""
    records: Sequence[UsageRecord]

    @classmethod
    def of(cls, records: Sequence[UsageRecord]) -> UsageAnswer:
        """The sum, and what it is made of."""
        costs = [record.cost_usd for record in records]
        known = [cost for cost in costs if cost is not None]
        cost_usd = sum(known) if known and len(known) == len(costs) else None
        return cls(usage=sum((record.usage for record in records), TokenUsage()), cost_usd=cost_usd, records=records)


class WaitQuery(Struct, frozen=True, kw_only=True):
    """How long to wait for the task's end."""

    wait_s: Annotated[float, Meta(ge=0, le=MOST_WAIT_S)] = 0.0


class StreamQuery(Struct, frozen=True, kw_only=True):
    """Where to begin. The header `Last-Event-ID` counts more."""

    after_seq: Annotated[int, Meta(ge=-1, le=2**53)] = -1


class ListQuery(Struct, frozen=True, kw_only=True):
    """Which tasks."""

    state: tuple[TaskState, ...] = ()
    agent: Name = ""
    tenant: Name = ""
    session_id: Name = ""
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(max_length=1500)] = ""


def view_of(
    status: TaskStatus,
    record: TaskRecord | None = None,
    callback: CallbackView | None = None,
    *,
    preview: bool = False,
    is_repeated: bool = False,
) -> TaskView:
    """A task as the API shows it: what the queue knows, and what a gateway noted where the queue has forgotten."""
    task = status.task or _noted(record)
    return TaskView(
        id=status.id,
        state=status.state,
        agent=task.agent,
        tenant=task.tenant,
        session_id=task.session_id,
        conversation_id=task.conversation_id,
        priority=task.priority,
        attempt=task.attempt,
        prompt=_shortened(task.prompt) if preview else task.prompt,
        meta=task.meta,
        enqueued_at=task.enqueued_at,
        submitted_at=record.submitted_at if record else None,
        due_at=status.due_at,
        deadline=task.deadline,
        worker=status.worker,
        result=ResultView.of(status.result, preview=preview) if status.result else None,
        callback=callback,
        is_repeated=is_repeated,
    )


def _noted(record: TaskRecord | None) -> Task:
    if record is None:
        return Task(prompt="")
    return Task(
        prompt="",
        agent=record.agent,
        tenant=record.tenant,
        session_id=record.session_id,
        conversation_id=record.conversation_id,
    )


def _shortened(text: str) -> str:
    return text if len(text) <= PREVIEW_CHARS else f"{text[:PREVIEW_CHARS]}…"
