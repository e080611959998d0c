"""Running a failed task again: its dead letter is brought back, under the same id and with a new stream."""

from __future__ import annotations

from queue_backends import DeadLetter, TaskState, TaskStatus
from worker.gateway.operation import Call
from worker.gateway.ownership import owned_status
from worker.gateway.problem import Problem

_LOOKED_AT = (100, 1000, 10_000)
"""Among so many of the newest dead letters, one look after the other."""


async def retry_task(call: Call, task_id: str) -> TaskStatus:
    """Bring a failed task back, and say where it is now.

    Raises `TaskNotFound`, `Problem` 409 if it has not failed, 410 if what it consisted of is no longer kept.
    """
    status = await owned_status(call, task_id)
    if status.state is not TaskState.FAILED:
        raise Problem(409, _why_not(status), code="not_failed")
    queue = call.gateway.backend.queue
    letter = await _letter_of(call, task_id)
    if letter is None or not await queue.requeue([letter.id]):
        raise Problem(
            410, f"the dead letter of task {task_id} is no longer kept: submit the task anew", code="letter_gone"
        )
    await call.gateway.callbacks.again(task_id)
    [status] = await queue.status([task_id])
    return status


def _why_not(status: TaskStatus) -> str:
    if status.state is TaskState.CANCELLED:
        return f"task {status.id} was cancelled, and nothing is kept to run it again: submit it anew"
    if status.state is TaskState.SUCCEEDED:
        return f"task {status.id} has succeeded: submit a new one to run it once more"
    return f"task {status.id} is {status.state.value}: it has not failed"


async def _letter_of(call: Call, task_id: str) -> DeadLetter | None:
    for limit in _LOOKED_AT:
        letters = await call.gateway.backend.queue.dead_letters(limit=limit)
        found = next((letter for letter in letters if letter.task_id == task_id), None)
        if found is not None or len(letters) < limit:
            return found
    return None
