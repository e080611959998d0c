"""Taking back questions whose task has ended: cancelled while it was parked, say, when no worker had it."""

from __future__ import annotations

from collections.abc import Sequence

from queue_backends import Backend, TaskState
from worker.approvals.approvals import Approvals
from worker.approvals.question import Approval

_ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)


async def take_back_ended(backend: Backend, approvals: Approvals, waiting: Sequence[Approval]) -> list[Approval]:
    """Withdraw those of the open questions whose task has ended; returns the others. A task that is not known may be
    another queue's. Raises `BackendUnavailable`."""
    asked = [each for each in waiting if each.task]
    statuses = await backend.queue.status([each.task for each in asked]) if asked else []
    gone = {each.id for each, status in zip(asked, statuses, strict=True) if status.state in _ENDED}
    for approval_id in gone:
        await approvals.withdraw(approval_id)
    return [each for each in waiting if each.id not in gone]
