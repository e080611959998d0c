"""Whether the gateway is alive and of use: `/healthz`, `/readyz`."""

from __future__ import annotations

import asyncio

from starlette.responses import PlainTextResponse, Response

from worker.gateway.operation import Call, Operation

PROBES = frozenset({"/healthz", "/readyz"})
"""Answered under any host name: an orchestrator asks for the address of the machine."""

_PING_LIMIT_S = 5.0


async def healthz(call: Call) -> Response:
    """Alive: it answers."""
    return PlainTextResponse("ok")


async def readyz(call: Call) -> Response:
    """Of use: the queue answers."""
    try:
        async with asyncio.timeout(_PING_LIMIT_S):
            await call.gateway.backend.queue.ping()
    except Exception:  # noqa: BLE001 - whatever it is, the queue cannot be used
        return PlainTextResponse("the queue does not answer", status_code=503)
    return PlainTextResponse("ready")


OPERATIONS = (
    Operation(method="GET", path="/healthz", handler=healthz, summary="Whether it is alive", scope=None, tag="Health"),
    Operation(method="GET", path="/readyz", handler=readyz, summary="Whether it is of use", scope=None, tag="Health"),
)
