"""Stored responses: what was asked, so that it can be asked for, continued, and streamed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from queue_backends import TaskNotFound
from queue_backends.messages import JsonObject
from worker.gateway.ingress.audience import check_own

if TYPE_CHECKING:
    from worker.gateway.operation import Call

PREFIX = "gateway/responses/"
ID_PREFIX = "resp_"


class ResponseRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A response's request. The answer itself is the task's."""

    task_id: str
    created_at: int
    """Unix seconds."""
    model: str
    echo: JsonObject
    """Fields of the response that say again what was asked for."""
    messages: tuple[JsonObject, ...] = ()
    """The whole conversation that the run was given, in the form of a task's history."""
    items: tuple[JsonObject, ...] = ()
    """This request's own input."""
    background: bool = False
    has_schema: bool = False
    parallel_calls: bool = True

    @property
    def id(self) -> str:
        """As the client knows it."""
        return ID_PREFIX + self.task_id


def task_id_of(response_id: str) -> str:
    """The task that a response is. Raises `TaskNotFound` for what is no response's id."""
    if not response_id.startswith(ID_PREFIX) or len(response_id) == len(ID_PREFIX):
        raise _unknown(response_id)
    return response_id.removeprefix(ID_PREFIX)


async def keep(call: Call, record: ResponseRecord) -> ResponseRecord:
    """Store a record, unless the same request has stored one before; returns the one that stands."""
    options = call.gateway.settings.backend
    keep_s = options.unfinished_ttl_s if record.background else options.result_retention_s
    state, key = call.gateway.backend.state, PREFIX + record.task_id
    is_first = await state.compare_and_set(key, None, msgspec.json.encode(record), ttl_s=keep_s)
    raw = None if is_first else await state.get(key)
    return msgspec.json.decode(raw, type=ResponseRecord) if raw else record


async def stored(call: Call, response_id: str) -> ResponseRecord:
    """The caller's response of that id. Raises `TaskNotFound`."""
    task_id = task_id_of(response_id)
    raw = await call.gateway.backend.state.get(PREFIX + task_id)
    if raw is None:
        raise _unknown(response_id)
    await check_own(call, task_id, response_id)
    return msgspec.json.decode(raw, type=ResponseRecord)


async def forget(call: Call, record: ResponseRecord) -> None:
    """Delete a record."""
    await call.gateway.backend.state.delete(PREFIX + record.task_id)


def _unknown(response_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no response {response_id[:100]!r}, or no longer")
