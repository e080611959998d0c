"""`/metrics`: what this gateway counts, for Prometheus."""

from __future__ import annotations

from starlette.responses import Response

from worker import prometheus
from worker.gateway.caller import Scope
from worker.gateway.front import Front
from worker.gateway.operation import Call, Operation


async def metrics(call: Call) -> Response:
    """All figures as they stand now."""
    front: Front = call.request.app.state.front
    text = prometheus.render_families(call.gateway.settings.metrics_prefix, front.metrics.families())
    return Response(text, headers={"Content-Type": prometheus.CONTENT_TYPE})


OPERATIONS = (
    Operation(
        method="GET",
        path="/metrics",
        handler=metrics,
        summary="This gateway's figures, for Prometheus",
        scope=Scope.OPS_READ,
        tag="Health",
        is_hidden=True,
    ),
)
