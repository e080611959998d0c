"""How a trace crosses the queue: W3C trace context and baggage in the fields of a task, as ark writes them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from queue_backends import Task

if TYPE_CHECKING:
    from opentelemetry.context import Context


def carrier() -> dict[str, str]:
    """`traceparent`, `tracestate` and `baggage` of the current OpenTelemetry span, whoever opened it; empty without."""
    telemetry = sys.modules.get("opentelemetry.context")
    if telemetry is None or not telemetry.get_current():
        return {}  # nobody here has opened a span
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(found)
    if found:
        W3CBaggagePropagator().inject(found)
    return found


def inject(task: Task) -> Task:
    """The task with the trace of the current span, unless it has one already."""
    if task.traceparent or not (found := carrier()):
        return task
    return msgspec.structs.replace(task, **found)


def parent_of(task: Task) -> Context:
    """The submitter's context; an empty one, hence a new trace, if the task carries none that can be read."""
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    told = {"traceparent": task.traceparent, "tracestate": task.tracestate, "baggage": task.baggage}
    told = {name: value for name, value in told.items() if value}
    context = TraceContextTextMapPropagator().extract(told, Context())
    return W3CBaggagePropagator().extract(told, context)
