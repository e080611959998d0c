"""Whose task is whose: what a gateway accepts is noted, and who is bound to a tenant sees that tenant's tasks alone.

The note is needed once a task has ended: the queue then no longer knows whose it was. While a task waits or runs, its
own `tenant` is the authority, so that tasks that other engines submit for a tenant are seen by it too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends import InvalidTask, LogRecord, StateStore, Task, TaskNotFound, TaskState, TaskStatus
from queue_backends.messages import encode_json
from worker.gateway.idempotency import fingerprint, reused
from worker.gateway.problem import Problem
from worker.gateway.task_claims import claimed
from worker.sessions.conversations import SUMMARY_OF, SUMMARY_UP_TO
from worker.teams.marks import KEYS, RESERVED
from worker.trace_context import inject

if TYPE_CHECKING:
    from worker.agents.model import Agent
    from worker.gateway.operation import Call
    from worker.objects import Stored

_PREFIX = "gateway/tasks/"
_INDEX = "gateway/tasks-of/"
KEEP_S = 2 * 24 * 3600.0
"""How long a note is kept beyond the retention of results: so long may a task wait and run, and still be known to be
its tenant's once it has ended. Each look at an unfinished task begins the time anew."""


class TaskRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a gateway notes of a task that it accepted."""

    id: str
    tenant: str = ""
    caller: str = ""
    agent: str = ""
    session_id: str = ""
    conversation_id: str = ""
    submitted_at: float = 0.0
    """Unix seconds."""
    fingerprint: str = ""
    """Of its content, if it has an idempotency key."""


class Accepted(Struct, frozen=True, kw_only=True):
    """A task that was taken."""

    id: str
    task: Task
    """As it was submitted."""
    is_repeated: bool = False
    """It had been submitted before with the same idempotency key; nothing was added."""


async def submit_for(call: Call, task: Task, *, run_at: float | None = None) -> str:
    """Submit a task for the call's caller and return its id.

    The agent must be open to the caller, and a caller that is bound to a tenant submits for that one. Raises
    `AccessDenied`, `AgentNotFound`, `InvalidTask`, `QueueFull`, and `Problem` for another tenant than the caller's or
    for an idempotency key that stands for something else.
    """
    return (await accept(call, task, run_at=run_at)).id


async def accept(call: Call, task: Task, *, run_at: float | None = None) -> Accepted:
    """As `submit_for`; says more."""
    task = prepared(call, task)
    async with claimed(call, [task]):
        task_id = await call.gateway.backend.queue.submit(task, run_at=run_at)
    return await note(call, task_id, task, run_at=run_at)


def prepared(call: Call, task: Task) -> Task:
    """The task as it is submitted for the caller. Raises as `submit_for`."""
    tenant = call.caller.tenant
    if tenant and task.tenant not in ("", tenant):
        raise Problem(403, f"tenant is {task.tenant[:100]!r}: this key is bound to {tenant!r}", code="foreign_tenant")
    for name in _OURS:
        if name in task.meta:
            raise InvalidTask(f"meta key {name!r} is used by Shoal itself: rename it")
    if task.idempotency_key.startswith(KEYS):
        raise InvalidTask(f"idempotency keys that begin with {KEYS!r} are used by Shoal itself: choose another one")
    tenant = tenant or task.tenant
    agent = agent_for(call, task.agent, tenant)
    tenant = tenant or agent.namespace
    headers = call.request.headers
    if not task.traceparent and "traceparent" in headers:
        trace = {name: headers.get(name, "")[:_LONGEST_HEADER] for name in ("traceparent", "tracestate", "baggage")}
        task = replace(task, **trace)
    return inject(
        replace(
            task,
            tenant=tenant,
            agent=agent.slug if task.agent else "",
            idempotency_key=_own_key(tenant, task.idempotency_key),
        )
    )


_LONGEST_HEADER = 2048
_OURS = (SUMMARY_OF, SUMMARY_UP_TO, *sorted(RESERVED))
"""They make a task's answer the summary of a conversation, or a task the work of a team, which is for the fleet to say.
"""


def agent_for(call: Call, name: str, tenant: str) -> Agent:
    """The agent that a task of a tenant names; empty: the default one. Raises `AgentNotFound`, `AccessDenied`."""
    roster = call.gateway.roster
    found: Stored[Agent] = roster.find(name or roster.default_name, tenant)
    roster.check_access(found, call.caller)
    return found.value


def _own_key(tenant: str, key: str) -> str:
    """Tenants that choose the same idempotency key do not meet."""
    return f"{quote(tenant, safe='')}/{key}" if tenant and key else key


async def note(call: Call, task_id: str, task: Task, *, run_at: float | None = None) -> Accepted:
    """Note whose a submitted task is. Raises `Problem` 422 if its idempotency key stood for another content."""
    record = TaskRecord(
        id=task_id,
        tenant=task.tenant,
        caller=call.caller.id,
        agent=task.agent,
        session_id=task.session_id,
        conversation_id=task.conversation_id,
        submitted_at=time.time(),
        fingerprint=fingerprint(task),
    )
    state, raw = call.gateway.backend.state, encode_json(record)
    keep_s = _keep_s(call) + (max(0.0, run_at - time.time()) if run_at else 0.0)
    if not record.fingerprint:
        await state.set(_PREFIX + task_id, raw, ttl_s=keep_s)
    elif not await state.compare_and_set(_PREFIX + task_id, None, raw, ttl_s=keep_s):
        before = await read_record(state, task_id)
        if before is not None and before.fingerprint not in ("", record.fingerprint):
            raise reused()
        return Accepted(id=task_id, task=task, is_repeated=True)
    if task.tenant:
        await state.append_once([LogRecord(log=_index(task.tenant), id=task_id, value=raw, keep_s=keep_s)])
    return Accepted(id=task_id, task=task)


async def note_task(state: StateStore, record: TaskRecord, *, keep_s: float) -> None:
    """Note whose a task is that no request has just brought, such as a session's next message."""
    raw = encode_json(record)
    await state.set(_PREFIX + record.id, raw, ttl_s=keep_s)
    if record.tenant:
        await state.append_once([LogRecord(log=_index(record.tenant), id=record.id, value=raw, keep_s=keep_s)])


async def note_of_run(call: Call, task_id: str, tenant: str) -> None:
    """Note whose the task of a run is, once the run was shown to its tenant: no request has brought it."""
    raw = encode_json(TaskRecord(id=task_id, tenant=tenant, submitted_at=time.time()))
    await call.gateway.backend.state.compare_and_set(_PREFIX + task_id, None, raw, ttl_s=_keep_s(call))


def _keep_s(call: Call) -> float:
    return call.gateway.settings.backend.result_retention_s + KEEP_S


def _index(tenant: str) -> str:
    return _INDEX + quote(tenant, safe="")


async def read_record(state: StateStore, task_id: str) -> TaskRecord | None:
    """What was noted of a task; None for one that was not submitted through a gateway, or too long ago."""
    raw = await state.get(_PREFIX + task_id)
    return msgspec.json.decode(raw, type=TaskRecord) if raw else None


async def records_of(state: StateStore, tenant: str, *, limit: int) -> Sequence[TaskRecord]:
    """What gateways took for a tenant, the newest first."""
    entries = await state.read_log(_index(tenant), limit=limit, newest_first=True)
    return [msgspec.json.decode(entry.value, type=TaskRecord) for entry in entries]


async def check_owner(call: Call, task_id: str) -> None:
    """Raise `TaskNotFound` for a task that the caller must not see: for it, there is no such task."""
    if call.caller.tenant or call.caller.app:
        await owned_status(call, task_id)


async def owned_status(call: Call, task_id: str) -> TaskStatus:
    """What the queue knows of a task that the caller may see. Raises `TaskNotFound`."""
    backend = call.gateway.backend
    [status] = await backend.queue.status([task_id])
    if status.state is TaskState.UNKNOWN:
        raise task_not_found(task_id)
    if not (call.caller.tenant or call.caller.app):
        return status
    record = await read_record(backend.state, task_id)
    task = status.task or record
    if task is None or not may_see(call, task.tenant, task.agent, record):
        raise task_not_found(task_id)
    if status.task is not None and record is not None:
        await _keep_on(call, record)
    return status


def may_see(call: Call, tenant: str, agent: str, record: TaskRecord | None) -> bool:
    """Whether a task of that tenant, for that agent (empty: the default one), is the caller's to see: one of its
    tenant; and with an app's key, one of the app's agents, or one that this key has submitted."""
    caller = call.caller
    if caller.tenant and tenant != caller.tenant:
        return False
    if not caller.app or (record is not None and record.caller == caller.id):
        return True
    return call.gateway.roster.is_of_app(agent, tenant, caller)


async def _keep_on(call: Call, record: TaskRecord) -> None:
    """The task has not ended: its note has to outlive its result."""
    state = call.gateway.backend.state
    if time.time() - record.submitted_at > KEEP_S / 2 and (raw := await state.get(_PREFIX + record.id)):
        await state.compare_and_set(_PREFIX + record.id, raw, raw, ttl_s=_keep_s(call))


def task_not_found(task_id: str) -> TaskNotFound:
    """The same words for what is not there and for what is not the caller's."""
    return TaskNotFound(f"there is no task {task_id[:100]!r}: it was never submitted here, or ended too long ago")
