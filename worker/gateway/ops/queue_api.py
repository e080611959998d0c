"""The queue as a whole: its figures now and of late, pausing it, and the feed of all that changes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Literal

from msgspec import Meta, Struct
from starlette.responses import Response

from worker.gateway.caller import Scope
from worker.gateway.operation import Call, Operation
from worker.gateway.ops.declaring import reading, writing
from worker.gateway.ops.history import Series
from worker.gateway.ops.room import MOST_RUNNING
from worker.gateway.ops.tenancy import refuse_tenants
from worker.gateway.ops.views import QueueView, RunningView, queue_view
from worker.gateway.sse import SseEvent, sse_response
from worker.settings.masking import masked_url
from worker.version import version

_SPANS = {"15m": 900.0, "1h": 3600.0, "6h": 6 * 3600.0, "24h": 24 * 3600.0}
_FINE_UP_TO_S = 3600.0


class HistoryQuery(Struct, frozen=True, kw_only=True):
    """How much of the past."""

    span: Annotated[Literal["15m", "1h", "6h", "24h"], Meta(description="How far back")] = "1h"


class RunningTasks(Struct, frozen=True, kw_only=True):
    """What runs."""

    tasks: list[RunningView]
    """The longest running first."""
    limit: int
    """So many are shown at most."""


class About(Struct, frozen=True, kw_only=True):
    """What a page has to know before anything else."""

    version: str
    queue: str
    """The queue's URL without its secrets; empty for the embedded server."""
    caller: str
    """Who asks, for people."""
    scopes: list[str]
    tenant: str
    """The only one whose tasks and usage the caller sees; empty: it sees all."""


async def _about(call: Call) -> About:
    caller = call.caller
    return About(
        version=version(),
        queue=masked_url(call.gateway.settings.queue_url) if not caller.tenant else "",
        caller=caller.name or caller.id,
        scopes=sorted(scope.value for scope in Scope if caller.may(scope)),
        tenant=caller.tenant,
    )


async def _queue(call: Call) -> QueueView:
    stats = await call.gateway.backend.queue.stats()
    return queue_view(time.time(), stats, "")


async def _history(call: Call) -> Series:
    refuse_tenants(call, "the fleet's history")
    span_s = _SPANS[call.query.span]
    since, history = time.time() - span_s, call.gateway.ops.history
    return history.fine(since=since) if span_s <= _FINE_UP_TO_S else history.coarse(since=since)


async def _pause(call: Call) -> QueueView:
    refuse_tenants(call, "pausing the queue")
    await call.gateway.backend.queue.pause()
    return await _queue(call)


async def _resume(call: Call) -> QueueView:
    refuse_tenants(call, "resuming the queue")
    await call.gateway.backend.queue.resume()
    return await _queue(call)


async def _running(call: Call) -> RunningTasks:
    return RunningTasks(tasks=await call.gateway.ops.running(call.caller.tenant), limit=MOST_RUNNING)


async def _events(call: Call) -> Response:
    return sse_response(_feed(call))


async def _feed(call: Call) -> AsyncIterator[SseEvent]:
    async with aclosing(call.gateway.ops.feed.watch(call.caller.tenant)) as watching:
        async for event in watching:
            yield SseEvent(data=event.data, event=event.part, id=str(event.revision))


OPERATIONS: tuple[Operation, ...] = (
    reading("/v1/ops/about", _about, "Which fleet this is, and what the caller may do here", result=About),
    reading("/v1/ops/queue", _queue, "The queue's figures now", result=QueueView),
    reading("/v1/ops/history", _history, "Depth, age and throughput of late", query=HistoryQuery, result=Series),
    reading("/v1/ops/running", _running, "The running tasks", result=RunningTasks),
    reading("/v1/ops/events", _events, "All that changes, as server-sent events", is_stream=True),
    writing("/v1/ops/queue/pause", _pause, "Deliver no more tasks, until resumed", result=QueueView),
    writing("/v1/ops/queue/resume", _resume, "Deliver tasks again", result=QueueView),
)
