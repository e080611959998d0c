"""What a caller sees of the fleet: all of it, or no more than its own tenant's tasks and usage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from queue_backends import DeadLetter, Priority, QueueStats, TaskStatus
from queue_backends.messages import JsonObject
from worker.fleet.presence import LastMinute, Presence, RunningTask

PROMPT_CHARS = 300


class QueueView(Struct, frozen=True, kw_only=True):
    """The queue's figures at one moment."""

    at: float
    """Unix seconds."""
    ready: int = 0
    running: int = 0
    delayed: int = 0
    dead: int = 0
    ready_by_priority: dict[Priority, int] = {}
    oldest_ready_age_s: float | None = None
    """How long the task at the head has waited; null if none waits."""
    paused: bool = False
    problem: str = ""
    """Why the figures are old, if the queue does not answer."""


class RunningView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task that a worker has."""

    id: str
    agent: str = ""
    tenant: str = ""
    worker: str = ""
    started_at: float | None = None
    """Unix seconds; absent while its worker has not told yet."""
    attempt: int = 0
    priority: Priority = Priority.NORMAL
    tokens: int = 0
    """Of the model calls that have ended."""
    cost_usd: float | None = None
    prompt: str = ""
    """Its first `PROMPT_CHARS` characters."""
    session_id: str = ""
    conversation_id: str = ""


class LetterView(Struct, frozen=True, kw_only=True):
    """A dead letter in a list."""

    id: str
    task_id: str
    error: str
    dead_at: float
    """Unix seconds."""
    attempt: int = 0
    agent: str = ""
    tenant: str = ""
    prompt: str = ""
    """Its first `PROMPT_CHARS` characters."""


class LetterDetail(LetterView, frozen=True, kw_only=True):
    """A dead letter, whole."""

    fields: dict[str, str] = {}
    """The entry as it stood in the queue."""


def queue_view(at: float, stats: QueueStats | None, problem: str) -> QueueView:
    """The figures of a queue; zeros and the reason if it never answered."""
    found = stats or QueueStats()
    return QueueView(
        at=round(at, 1),
        ready=found.ready,
        running=found.running,
        delayed=found.delayed,
        dead=found.dead,
        ready_by_priority=found.ready_by_priority,
        oldest_ready_age_s=found.oldest_ready_age_s,
        paused=found.paused,
        problem=problem,
    )


def workers_view(workers: Iterable[Presence], tenant: str) -> list[JsonObject]:
    """The workers without their tasks, which are told of apart; for a tenant's callers without what all have spent."""
    return [_worker(worker, tenant) for worker in workers]


def _worker(worker: Presence, tenant: str) -> JsonObject:
    if tenant:
        worker = replace(worker, tokens=0, cost_usd=0.0, last_minute=LastMinute())
    plain = {name: getattr(worker, name) for name in worker.__struct_fields__ if name != "tasks"}
    plain["cost_usd"] = worker.known_cost_usd
    if tenant:
        for name in ("tokens", "cost_usd", "is_unpriced", "last_minute"):
            del plain[name]
    return plain


def running_views(statuses: Sequence[TaskStatus], workers: Iterable[Presence]) -> list[RunningView]:
    """Running tasks as the queue knows them, with what their workers tell of them; the longest running first."""
    told = {(task.id, worker.id): task for worker in workers for task in worker.tasks}
    views = [_running(status, told) for status in statuses]
    return sorted(views, key=lambda view: (view.started_at is None, view.started_at or 0.0, view.id))


def _running(status: TaskStatus, told: Mapping[tuple[str, str], RunningTask]) -> RunningView:
    task, known = status.task, told.get((status.id, status.worker))
    return RunningView(
        id=status.id,
        agent=task.agent if task else known.agent if known else "",
        tenant=task.tenant if task else known.tenant if known else "",
        worker=status.worker,
        started_at=known.started_at if known else None,
        attempt=task.attempt if task else 0,
        priority=task.priority if task else Priority.NORMAL,
        tokens=known.tokens if known else 0,
        cost_usd=known.cost_usd if known else None,
        prompt=shortened(task.prompt) if task else "",
        session_id=task.session_id if task else "",
        conversation_id=task.conversation_id if task else "",
    )


def letter_view(letter: DeadLetter) -> LetterView:
    """A line of the list."""
    return LetterView(
        id=letter.id,
        task_id=letter.task_id,
        error=letter.error,
        dead_at=letter.dead_at,
        attempt=letter.attempt,
        agent=letter.fields.get("agent", ""),
        tenant=letter.fields.get("tenant", ""),
        prompt=shortened(letter.prompt),
    )


def letter_detail(letter: DeadLetter) -> LetterDetail:
    """All of it."""
    view = letter_view(letter)
    known = {name: getattr(view, name) for name in LetterView.__struct_fields__ if name != "prompt"}
    return LetterDetail(**known, prompt=letter.prompt, fields=letter.fields)


def shortened(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= PROMPT_CHARS else f"{text[: PROMPT_CHARS - 1]}…"
