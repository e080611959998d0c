"""What no run may do: begin though it is hopeless, or take longer than it is given."""

from __future__ import annotations

import time

from queue_backends import Delivery, InvalidTask, Task
from worker.errors import DeadlineExceeded, WorkerError
from worker.recall import Past
from worker.surroundings import Limits
from worker.task_age import is_stale
from worker.teams.plan import Role

STALE = "stale task: age exceeds timeout"


class Poisonous(InvalidTask):
    """A task that is given up without being run."""


class RunTimeout(WorkerError):
    """One attempt took too long; the next one may not."""


def refuse_hopeless(delivery: Delivery, past: Past, limits: Limits) -> None:
    """Raise `Poisonous` or `DeadlineExceeded` for a task that is not to be run (again)."""
    task = delivery.task
    if delivery.redeliveries >= limits.max_deliveries:
        raise Poisonous(f"worker lost: {delivery.redeliveries} workers died while they ran this task")
    if task.deadline is not None and time.time() >= task.deadline:
        raise DeadlineExceeded(_missed(past))
    if limits.drop_stale and not past.was_parked and is_stale(task, limits.timeout_s):
        raise Poisonous(STALE)


def overtime(task: Task, past: Past, started_at: float, limits: Limits, role: Role | None) -> WorkerError:
    """The error of a run that was ended because its time is up."""
    deadline = task.deadline
    if deadline is not None and time.time() >= deadline:
        return DeadlineExceeded(_missed(past) if deadline <= started_at else "the task's deadline has passed")
    if role is not None and role.timeout_s:
        return RunTimeout(f"the run took longer than {role.timeout_s:g} s: raise the time limit of role {role.name!r}")
    return RunTimeout(f"the run took longer than {limits.timeout_s:g} s: raise AGENT_TIMEOUT_SECONDS")


def _missed(past: Past) -> str:
    """Said of a deadline that had passed when the run began."""
    if past.waits_for:
        return f"the task's deadline has passed while it waited for {past.waits_for}"
    return "the task's deadline had passed before it was started"
