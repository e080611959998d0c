"""Workers: who there is, and asking one to leave."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.fleet.presence import Workers, find_worker
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.ops.declaring import reading, writing
from worker.gateway.ops.tenancy import refuse_tenants
from worker.gateway.ops.views import workers_view


class WorkerList(Struct, frozen=True, kw_only=True):
    """Who tells of itself."""

    workers: list[JsonObject]
    """`worker.fleet.presence.Presence`, without the tasks: those are at `/v1/ops/running`."""


class DrainAsked(Struct, frozen=True, kw_only=True):
    """The request was left for the worker."""

    id: str
    """The worker's whole id."""
    outcome: str = "asked to leave"


async def _list(call: Call) -> WorkerList:
    found = await Workers(call.gateway.backend.state).all()
    return WorkerList(workers=workers_view(found, call.caller.tenant))


async def _drain(call: Call) -> Any:
    refuse_tenants(call, "draining a worker")
    workers = Workers(call.gateway.backend.state)
    chosen = find_worker(await workers.all(), call.path["id"])
    await workers.request_drain(chosen.id, by=call.caller.name or call.caller.id)
    return Answer(value=DrainAsked(id=chosen.id), status=202)


OPERATIONS: tuple[Operation, ...] = (
    reading("/v1/ops/workers", _list, "The workers that are up", result=WorkerList),
    writing(
        "/v1/ops/workers/{id}/drain",
        _drain,
        "Let a worker finish what it has, and leave",
        result=DrainAsked,
        status=202,
        errors=(404,),
    ),
)
