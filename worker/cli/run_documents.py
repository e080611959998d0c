"""Runs as JSON for programs: with what defaults leave out of the stored form, phases above all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.teams.run_events import Event
    from worker.teams.run_header import RunSummary
    from worker.teams.run_state import ChildState, RunState, StepState
    from worker.teams.runs import Run


def summary_document(summary: RunSummary) -> dict[str, Any]:
    """A line of a list."""
    return {
        **_plain(summary),
        "phase": summary.phase.value,
        "steps": summary.steps,
        "steps_ended": summary.steps_ended,
        "tokens": summary.tokens,
        "is_local": summary.is_local,
    }


def step_document(step: StepState | ChildState) -> dict[str, Any]:
    """A step, or a delegated task."""
    return {**_plain(step), "phase": step.phase.value, "tokens": step.usage.total_tokens}


def state_document(state: RunState) -> dict[str, Any]:
    """A run, with all its steps."""
    return {
        **_plain(state),
        "phase": state.phase.value,
        "tokens": state.tokens,
        "steps": [step_document(step) for step in state.steps],
        "children": [step_document(child) for child in state.children],
    }


def run_document(run: Run, events: Sequence[Event]) -> dict[str, Any]:
    """All that is known of a run."""
    return {
        **_plain(run.header),
        **state_document(run.state),
        "is_local": run.header.is_local,
        "word": run.plan.find(run.state.team).word,
        "events": [{"id": event.id, **_plain(event)} for event in events],
    }


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain
