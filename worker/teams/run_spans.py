"""Runs and their steps as spans of one trace, above those of their tasks.

A run outlives its drivers, so nobody holds its span open: the ids follow from the run, the tasks' spans hang below them
from the beginning, and the span itself is sent when the step, or the run, has ended, by whoever wrote that down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from worker.teams.folding import Folding
from worker.teams.run_events import RunEnded, StepEnded
from worker.teams.run_header import RunHeader
from worker.teams.run_state import Phase
from worker.teams.run_trace import run_span, step_span
from worker.telemetry import span_processor

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

SHUTDOWN_S = 5.0


class RunSpans:
    """Sends spans of runs."""

    def __init__(self, processor: SpanProcessor, resource: Resource) -> None:
        self._processor = processor
        self._resource = resource

    def step_ended(self, folding: Folding, event: StepEnded, started_at: float) -> None:
        """An iteration of a step is over. Unix seconds."""
        fold = folding.steps[event.step]
        self._send(
            f"step {event.step}",
            folding.header,
            span_id=step_span(folding.header, event.step, event.iteration),
            parent_id=run_span(folding.header),
            times=(started_at, event.at),
            error=event.message if event.phase is Phase.FAILED else "",
            attributes={"step": event.step, "role": fold.role, "iteration": event.iteration, "tries": fold.attempt},
        )

    def run_ended(self, folding: Folding, event: RunEnded) -> None:
        """The run is over."""
        header = folding.header
        _, _, caller, _ = header.traceparent.split("-")
        self._send(
            f"run {header.team}",
            header,
            span_id=run_span(header),
            parent_id="" if caller == run_span(header) else caller,
            times=(folding.started_at or header.created_at, event.at),
            error=event.message if event.phase is Phase.FAILED else "",
            attributes={
                "phase": str(event.phase),
                "trigger": header.trigger,
                "tenant": header.tenant,
                "gen_ai.usage.input_tokens": event.usage.input_tokens or 0,
                "gen_ai.usage.output_tokens": event.usage.output_tokens or 0,
            },
        )

    def _send(
        self,
        name: str,
        header: RunHeader,
        *,
        span_id: str,
        parent_id: str,
        times: tuple[float, float],
        error: str,
        attributes: Mapping[str, str | int],
    ) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        _, trace_id, _, flags = header.traceparent.split("-")

        def context(of: str) -> SpanContext:
            return SpanContext(int(trace_id, 16), int(of, 16), is_remote=False, trace_flags=TraceFlags(int(flags, 16)))

        span = ReadableSpan(
            name,
            context=context(span_id),
            parent=context(parent_id) if parent_id else None,
            resource=self._resource,
            kind=SpanKind.INTERNAL,
            attributes={
                "run": header.id,
                "team": header.team,
                **{key: value for key, value in attributes.items() if value},
            },
            status=Status(StatusCode.ERROR, error) if error else Status(),
            start_time=int(times[0] * 1e9),
            end_time=int(max(times) * 1e9),
        )
        self._processor.on_end(span)


@contextlib.asynccontextmanager
async def run_spans(service_name: str = "shoal-runs") -> AsyncIterator[RunSpans | None]:
    """As the OTEL_* variables say; None if traces go nowhere. At the end, what is left is sent, within seconds."""
    found = span_processor(service_name)
    if found is None:
        yield None
        return
    processor, resource = found
    try:
        yield RunSpans(processor, resource)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                await asyncio.to_thread(processor.shutdown)
