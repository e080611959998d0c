"""What is settled before tasks are submitted: that their conversations are the caller's, and their idempotency keys
theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from queue_backends import BackendUnavailable, QueueError, Task
from worker.gateway.caller import Scope
from worker.gateway.idempotency import release, reserve
from worker.gateway.problem import Problem
from worker.sessions.conversation_owner import is_claimed

if TYPE_CHECKING:
    from worker.gateway.operation import Call

_LATEST_S: Final = 2 * 24 * 3600.0
"""So long a task may wait and run, and what it says is still its owner's."""

Refused = Sequence[tuple[int, Problem]]
"""Positions of tasks that cannot be submitted, and why."""


def _first(refused: Refused) -> Problem:
    return refused[0][1]


@asynccontextmanager
async def claimed(
    call: Call, tasks: Sequence[Task], *, problem_of: Callable[[Refused], Problem] = _first
) -> AsyncIterator[None]:
    """For the time of submitting tasks. Their idempotency keys are free again if the queue takes none of them.

    Raises what `problem_of` makes of the reasons why some cannot be submitted.
    """
    reserved: list[Task] = []
    try:
        refused: list[tuple[int, Problem]] = []
        for position, task in enumerate(tasks):
            try:
                await _claim_conversation(call, task)
                if await reserve(
                    call.gateway.backend.state,
                    task,
                    keep_s=call.gateway.settings.backend.idempotency_retention_s,
                ):
                    reserved.append(task)
            except Problem as problem:
                refused.append((position, problem))
        if refused:
            raise problem_of(refused)
        yield
    except BackendUnavailable:  # nobody knows whether they were taken
        raise
    except (Problem, QueueError):
        for task in reserved:
            await release(call.gateway.backend.state, task)
        raise


async def _claim_conversation(call: Call, task: Task) -> None:
    if not task.conversation_id:
        return
    is_own = await is_claimed(
        call.gateway.backend.state,
        task.tenant,
        task.conversation_id,
        call.caller.id,
        keep_s=call.gateway.sessions.keep_s + _LATEST_S,
    )
    if not (is_own or call.caller.may(Scope.ADMIN)):
        raise Problem(
            403,
            f"conversation {task.conversation_id[:100]!r} is for who began it, or whose session it is in, and that was "
            "not you: choose another id to begin one",
            code="foreign_conversation",
        )
