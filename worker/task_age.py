"""How old a task is, by what it tells of its own birth."""

from __future__ import annotations

import functools
import time
from datetime import datetime

from queue_backends import Task


def queue_wait_s(task: Task) -> float | None:
    """How long the task was on its way, by the clocks of both sides; None if nobody noted when it began."""
    if not task.enqueued_at:
        return None
    enqueued_at = _unix_seconds(task.enqueued_at)
    return None if enqueued_at is None else time.time() - enqueued_at


@functools.lru_cache(maxsize=64)
def _unix_seconds(moment: str) -> float | None:
    """An RFC 3339 moment, if it is one. Tasks that come together mostly name the same: it is in whole seconds."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def task_age_s(task: Task) -> float | None:
    """The age that a task's id tells, as on ark's wire: it begins with the Unix milliseconds of its birth."""
    milliseconds = task.id.partition("-")[0]
    return time.time() - int(milliseconds) / 1000 if milliseconds.isdigit() else None


def is_stale(task: Task, limit_s: float) -> bool:
    """Whether a task has waited for longer than its run may take."""
    age_s = task_age_s(task)
    return age_s is not None and age_s > limit_s
