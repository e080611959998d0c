"""Who may see what a client has left with the gateway: its answers, and the calls that it was asked to make."""

from __future__ import annotations

from queue_backends import TaskNotFound
from worker.gateway.caller import Scope
from worker.gateway.operation import Call
from worker.gateway.ownership import read_record


async def is_own(call: Call, task_id: str) -> bool:
    """Whether a task was submitted through the gateway by this caller, or by another of its tenant. Ids of tasks can be
    guessed, so that knowing one proves nothing."""
    record = await read_record(call.gateway.backend.state, task_id)
    if record is None:
        return False
    caller = call.caller
    if caller.tenant:
        return record.tenant == caller.tenant
    return record.caller == caller.id or caller.may(Scope.ADMIN)


async def check_own(call: Call, task_id: str, name: str) -> None:
    """Raise `TaskNotFound`, which names the thing as the client does, unless it is the caller's."""
    if not await is_own(call, task_id):
        raise TaskNotFound(f"there is no {name[:100]!r}, or no longer")
