"""What happened to a run, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from worker.cli.plain_watch import one_line
from worker.cli.screen import Cell, Column
from worker.cli.wording import count, duration, shorten, usd
from worker.teams.run_events import (
    ApprovalAsked,
    ApprovalDecided,
    CancelRequested,
    ChildEnded,
    Collected,
    Delegated,
    Event,
    RunEnded,
    RunStarted,
    StepEnded,
    StepRetried,
    StepSkipped,
    StepStarted,
    TaskEnded,
    TaskSubmitted,
)
from worker.teams.run_state import Phase, RunState
from worker.teams.runs import Runs

COLUMNS = (Column("at", right=True), Column("step"), Column("what"), Column("details", wide=True))
_WIDTH = 120
_OUTCOMES: dict[str, str | Cell] = {
    "approve": "approved",
    "reject": Cell("rejected", "bad"),
    "skip": Cell("to be skipped", "warn"),
}


async def read_events(runs: Runs, run_id: str) -> list[Event]:
    """All that has happened to a run, as far as this version can read it. Raises `BackendUnavailable`."""
    cursor, found = "", list[Event]()
    while True:
        cursor, events = await runs.read_on(run_id, cursor)
        if not events:
            return found
        found += [event for event in events if event is not None]


def timeline(events: Sequence[Event], state: RunState) -> list[tuple[str | Cell, ...]]:
    """One row an event, in the log's order; moments count from the run's beginning."""
    began_at = state.started_at or state.created_at
    return [(f"+{duration(event.at - began_at)}", _step(event), *_row(event)) for event in events]


def _step(event: Event) -> str:
    return one_line(getattr(event, "step", ""))


def _row(event: Event) -> tuple[str | Cell, str | Cell]:
    match event:
        case RunStarted():
            return "run begins", ""
        case StepStarted():
            return "begins", _words(event.role, f"iteration {event.iteration}" if event.iteration > 1 else "")
        case TaskSubmitted():
            return f"{event.purpose} submitted", f"run {event.run_id}" if event.run_id else f"task {event.task_id}"
        case TaskEnded():
            what = Cell(f"{event.purpose} failed", "bad") if event.error else f"{event.purpose} ended"
            return what, _words(_spent(event), event.error or event.output)
        case StepRetried():
            return Cell("tries again", "warn"), _words(event.message)
        case StepEnded():
            what = "goes round again" if event.again else event.phase.value.lower()
            style = "bad" if event.phase is Phase.FAILED else "good" if not event.again else ""
            return Cell(what, style), _words("validated" if event.validated else "", event.message)
        case StepSkipped():
            return Cell("skipped", "dim"), _words(event.message)
        case ApprovalAsked():
            return Cell("waits for approval", "warn"), _words(f"approval {event.approval_id}", event.message)
        case ApprovalDecided():
            return _OUTCOMES[event.outcome], _words(f"by {event.by}" if event.by else "nobody in time", event.note)
        case Delegated():
            return f"{event.purpose} to {one_line(event.role)}", _words(f"task {event.task_id}", event.prompt)
        case ChildEnded():
            what = Cell("delegated task failed", "bad") if event.error else "delegated task ended"
            return what, _words(f"task {event.task_id}", _spent(event), event.error or event.output)
        case Collected():
            return "results collected", ", ".join(event.task_ids)
        case CancelRequested():
            return Cell("cancel requested", "warn"), _words(f"by {event.by}" if event.by else "", event.reason)
        case RunEnded():
            style = "good" if event.phase is Phase.SUCCEEDED else "bad" if event.phase is Phase.FAILED else "warn"
            return Cell(f"run {event.phase.value.lower()}", style), _words(event.message)


def _spent(event: TaskEnded | ChildEnded) -> str:
    tokens = event.usage.total_tokens
    if not tokens:
        return ""
    return f"{count(tokens)} tokens" + (f", {usd(event.cost_usd)}" if event.cost_usd else "")


def _words(*parts: str) -> str:
    return shorten(" · ".join(one_line(part) for part in parts if part), _WIDTH)
