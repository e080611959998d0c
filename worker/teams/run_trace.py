"""One trace for a run, however many processes drive it: its ids follow from the run itself."""

from __future__ import annotations

import hashlib
import secrets

from worker.teams.run_header import RunHeader
from worker.trace_context import carrier


def new_trace(run_id: str) -> tuple[str, str]:
    """`traceparent` and `tracestate` for a new run: those of the caller's span, or a trace of its own, whose root it
    is."""
    found = carrier()
    if traceparent := found.get("traceparent", ""):
        return traceparent, found.get("tracestate", "")
    return f"00-{secrets.token_hex(16)}-{_span_id(run_id)}-01", ""


def run_span(header: RunHeader) -> str:
    """The id of the span that a run is, in hex."""
    return _span_id(header.id)


def step_span(header: RunHeader, step: str, iteration: int) -> str:
    """The id of the span that an iteration of a step is, in hex."""
    return _span_id(f"{header.id}\0{step}\0{iteration}")


def step_traceparent(header: RunHeader, step: str, iteration: int) -> str:
    """What the tasks of a step are told, so that their spans hang below the step's. Empty: the run has no trace."""
    parts = header.traceparent.split("-")
    if len(parts) != 4:
        return ""
    return f"{parts[0]}-{parts[1]}-{step_span(header, step, iteration)}-{parts[3]}"


def _span_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
