"""How a trace crosses the queue: W3C trace context and baggage in the fields of a task, as ark writes them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from queue_backends import Task

if TYPE_CHECKING:
    from opentelemetry.context import Context


def inject(task: Task) -> Task:
    """The task with `traceparent`, `tracestate` and `baggage` of the current OpenTelemetry span, whoever opened it."""
    telemetry = sys.modules.get("opentelemetry.context")
    if task.traceparent or telemetry is None or not telemetry.get_current():
        return task  # nobody here has opened a span
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    if not carrier:
        return task
    W3CBaggagePropagator().inject(carrier)
    return msgspec.structs.replace(task, **carrier)


def parent_of(task: Task) -> Context:
    """The submitter's context; an empty one, hence a new trace, if the task carries none that can be read."""
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": task.traceparent, "tracestate": task.tracestate, "baggage": task.baggage}
    carrier = {name: value for name, value in carrier.items() if value}
    context = TraceContextTextMapPropagator().extract(carrier, Context())
    return W3CBaggagePropagator().extract(carrier, context)
