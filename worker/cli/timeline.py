"""A run as a timeline: what its journal says, one line per model call and tool call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from queue_backends import CallOutcome, TaskResult
from worker.cli.screen import Cell, Column
from worker.cli.wording import count, duration, moment, shorten, usd
from worker.journal import (
    SIDE_TURNS,
    STEP_TURNS,
    AttemptEnded,
    ModelCall,
    Moment,
    PluginStep,
    Recalled,
    SideCall,
    Switched,
    TakenOver,
    ToolFinished,
    ToolStarted,
)

COLUMNS = (
    Column("at", style="dim"),
    Column("turn", right=True),
    Column("step"),
    Column("took", right=True),
    Column("tokens", right=True),
    Column("cost", right=True),
    Column("what", wide=True),
    Column("worker", style="dim"),
)
Row = tuple[str | Cell, ...]

_ENDINGS = {
    "retry": ("attempt failed", "warn"),
    "postponed": ("postponed", "warn"),
    "parked": ("waits", "warn"),
    "released": ("handed back", "warn"),
    "dead": ("given up", "bad"),
    "cancelled": ("cancelled", "bad"),
}


def timeline(moments: Sequence[Moment], result: TaskResult | None) -> list[Row]:
    """The rows under `COLUMNS`, in order. The worker is named where it changes."""
    rows: list[Row] = []
    named = ""
    is_plugins = any(isinstance(each.entry, PluginStep) for each in moments)
    for at, worker, turn, *cells in _steps(moments):
        shown = _step_and_turn(turn) if is_plugins else turn
        rows.append((moment(at), shown, *cells, worker if worker != named else ""))
        named = worker
    if result is not None and rows and not result.error:
        rows.append((moment(result.finished_at), "", Cell("answered", "good"), "", "", "", "", ""))
    return rows


def as_json(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    """The entries as JSON objects, each with the moment at which it was stored."""
    return [{"at": entry.at, **msgspec.to_builtins(entry.entry)} for entry in moments]


def _step_and_turn(turn: str) -> str:
    """`2.1`, for the second turn of an agent plugin's step 2."""
    number = int(turn or 0)
    return f"{number // STEP_TURNS}.{number % STEP_TURNS}" if number >= STEP_TURNS else turn


def _steps(moments: Sequence[Moment]) -> Iterator[tuple[Any, ...]]:
    finished = {each.entry.key: each.entry for each in moments if isinstance(each.entry, ToolFinished)}
    started = {each.entry.key for each in moments if isinstance(each.entry, ToolStarted)}
    beside = {SIDE_TURNS + each.entry.number: each.entry for each in moments if isinstance(each.entry, SideCall)}
    for each in moments:
        entry = each.entry
        match entry:
            case ModelCall(turn=turn) if turn in beside:
                _, _, *cells = _model_call(entry)
                yield (entry.usage.started_at, entry.worker, "", beside[turn].what, *cells)
            case ModelCall():
                yield (entry.usage.started_at, entry.worker, *_model_call(entry))
            case Switched(turn=turn, switch=switch):
                step, what = ("switch", "after") if switch.beside is None else ("hedge", "beside")
                said = f"{switch.target} {what} {switch.before}: {switch.reason.replace('_', ' ')}"
                yield (each.at, entry.worker, str(turn), Cell(step, "warn"), "", "", "", shorten(said, 80))
            case Recalled(history=history, preface=preface):
                found = [f"{len(history)} messages"] * bool(history) + [shorten(preface, 80)] * bool(preface)
                yield (each.at, entry.worker, "", "memory", "", "", "", "; ".join(found))
            case ToolStarted():
                yield (each.at, entry.worker, *_tool(entry.turn, entry.name, finished.get(entry.key), entry.worker))
            case ToolFinished() if entry.key not in started:
                yield (each.at, entry.worker, *_tool(entry.turn, entry.outcome.name, entry, entry.worker))
            case PluginStep(what="query" | "kv") as step:
                yield (each.at, entry.worker, str(step.number * STEP_TURNS), step.what, "", "", "", step.name)
            case TakenOver():
                why = f"after {entry.crashes} lost worker{'s' * (entry.crashes > 1)}" if entry.crashes else ""
                yield (each.at, entry.worker, "", Cell("taken over", "warn"), "", "", "", why)
            case AttemptEnded():
                step, style = _ENDINGS.get(entry.how, (entry.how, "warn"))
                again = f" (again in {duration(entry.retry_in_s)})" if entry.retry_in_s is not None else ""
                yield (each.at, entry.worker, "", Cell(step, style), "", "", "", shorten(entry.error, 80) + again)


def _model_call(entry: ModelCall) -> Row:
    record = entry.usage
    if record.outcome is CallOutcome.LOST:
        what = Cell("its worker died: whether it was sent, and what it cost, is not known", "warn")
        return (str(entry.turn), Cell("model", "warn"), "", "?", "?", what)
    is_well = record.outcome is CallOutcome.COMPLETED
    known = record.usage.input_tokens is not None or record.usage.output_tokens is not None
    tokens = ("~" if record.estimated else "") + count(record.usage.total_tokens) if known else "?"
    what = Cell(record.model) if is_well else Cell(_unfinished(entry), "warn")
    took = duration(record.duration_ms / 1000)
    return (str(entry.turn), "model" if is_well else Cell("model", "warn"), took, tokens, usd(record.cost_usd), what)


def _unfinished(entry: ModelCall) -> str:
    """How a call ended that gave no answer; and where, if its run had a choice."""
    how = entry.usage.outcome.value
    said = how if entry.error in ("", how) else f"{how}: {shorten(entry.error, 80)}"
    return f"{entry.target}: {said}" if entry.target else said


def _tool(turn: int, name: str, finished: ToolFinished | None, worker: str) -> Row:
    if finished is None:
        return (str(turn), Cell("tool", "tool"), "", "", "", Cell(f"{name}: no outcome", "warn"))
    is_error = finished.outcome.is_error
    what = Cell(f"{name}: {shorten(finished.outcome.content, 80)}", "warn" if is_error else "")
    # What another worker had begun took no time that anybody knows.
    took = duration(finished.duration_ms / 1000) if finished.worker == worker else ""
    return (str(turn), Cell("tool", "tool"), took, "", "", what)
