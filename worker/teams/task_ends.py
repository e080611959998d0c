"""How a task that works for a run has ended, however long that takes and whatever becomes of its queue meanwhile."""

from __future__ import annotations

import time

from queue_backends import Backend, TaskResult, TaskState, WaitTimeout
from queue_backends.capabilities import Capability
from worker.persistence import persistently
from worker.teams.context_policies import truncated
from worker.teams.run_events import MOST_OUTPUT_BYTES, ChildEnded, TaskEnded
from worker.teams.run_state import Phase, RunState
from worker.teams.step_fold import Work

WAIT_S = 300.0
"""After so long it is looked whether the task still exists."""
VANISHED = "the task has vanished: its queue no longer knows it"
_ERROR_CHARS = 4000


async def result_of(backend: Backend, task_id: str, *, is_new: bool) -> TaskResult | None:
    """The task's result, as soon as there is one; None if its queue no longer knows the task. It is waited for as long
    as it takes: what bounds a task is its worker's time limit, and its deadline."""
    is_known = is_new
    while True:
        if not is_known and await _has_vanished(backend, task_id):
            return None
        try:
            return await persistently(lambda: backend.queue.wait(task_id, WAIT_S), "wait for a run's task")
        except WaitTimeout:
            is_known = False


async def _has_vanished(backend: Backend, task_id: str) -> bool:
    if Capability.LISTING in backend.gaps:
        return False
    (status,) = await persistently(lambda: backend.queue.status([task_id]), "look for a run's task")
    return status.state is TaskState.UNKNOWN


def ended(step: str, iteration: int, work: Work, result: TaskResult | None) -> TaskEnded:
    """The event of a step's task that has ended so."""
    if result is None:
        result = TaskResult(task_id=work.task_id, error=VANISHED)
        is_lost = True
    else:
        is_lost = False
    return TaskEnded(
        at=result.finished_at or time.time(),
        step=step,
        iteration=iteration,
        attempt=work.attempt,
        purpose=work.purpose,
        task_id=work.task_id,
        output=truncated(result.output, MOST_OUTPUT_BYTES),
        error=result.error[:_ERROR_CHARS],
        is_lost=is_lost,
        usage=result.usage,
        cost_usd=result.cost_usd,
        artifacts=result.artifacts,
        stop_reason=result.stop_reason,
    )


def child_ended(task_id: str, result: TaskResult | None) -> ChildEnded:
    """The event of a delegated task that has ended so."""
    result = result or TaskResult(task_id=task_id, error=VANISHED)
    return ChildEnded(
        at=result.finished_at or time.time(),
        task_id=task_id,
        output=truncated(result.output, MOST_OUTPUT_BYTES),
        error=result.error[:_ERROR_CHARS],
        usage=result.usage,
        cost_usd=result.cost_usd,
    )


def run_ended(step: str, iteration: int, work: Work, state: RunState) -> TaskEnded:
    """The event of a step whose team has come to the end of its run."""
    return TaskEnded(
        at=state.ended_at,
        step=step,
        iteration=iteration,
        attempt=work.attempt,
        purpose=work.purpose,
        run_id=state.id,
        output=state.output,
        error=_error_of(state),
        usage=state.usage,
        cost_usd=state.cost_usd,
    )


def child_run_ended(state: RunState) -> ChildEnded:
    """The event of a delegated task that a team has done in a run."""
    return ChildEnded(
        at=state.ended_at,
        task_id=state.id,
        output=state.output,
        error=_error_of(state),
        usage=state.usage,
        cost_usd=state.cost_usd,
    )


def _error_of(state: RunState) -> str:
    return "" if state.phase is Phase.SUCCEEDED else f"run {state.id}: {state.message or state.phase}"
