"""`shoal tasks`: list, show and cancel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from queue_backends import CancelOutcome, QueueStats, TaskNotFound, TaskState, TaskStatus
from worker.cli import timeline
from worker.cli.failures import NOT_FOUND, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.outputs import output
from worker.cli.screen import Cell, Column
from worker.cli.wording import STATE_STYLES, ago, at_rfc3339, count, duration, ending, moment, shorten
from worker.journal import AttemptEnded, Moment, read_journal
from worker.waiting import without_vain_looks

if TYPE_CHECKING:
    from worker.client import Fleet

_STATES = [state.value for state in TaskState if state is not TaskState.UNKNOWN]
_OUTCOMES = {
    CancelOutcome.CANCELLED: "cancelled",
    CancelOutcome.REQUESTED: "its worker has been told to stop",
    CancelOutcome.FINISHED: "had already ended",
    CancelOutcome.UNKNOWN: "no such task",
}


@click.group(help="List, show and cancel tasks.")
def tasks() -> None:
    """The group; each command has its own options."""


tasks.add_command(output)


@tasks.command(
    "list",
    help="List tasks: running, ready, delayed, then ended ones, newest first.\n\n"
    + examples("shoal tasks list", "shoal tasks list --state running --state ready", "shoal tasks list --json"),
)
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these. Repeatable.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@shoal_options
def list_tasks(call: Invocation, states: tuple[str, ...], limit: int) -> int:
    """Show a table, or one JSON document a line."""
    return call.wait_for(_list(call, [TaskState(state) for state in states], limit))


@tasks.command(
    "show",
    help="Show all that is known of a task, and its run as a timeline.\n\n"
    + examples("shoal tasks show 1775324895139-0"),
)
@click.argument("task_id", metavar="ID")
@shoal_options
def show_task(call: Invocation, task_id: str) -> int:
    """Exit code 4 if there is no such task."""
    return call.wait_for(_show(call, task_id))


@tasks.command(
    "cancel",
    help="End tasks, waiting or running. What was spent stays recorded.\n\n"
    + examples("shoal tasks cancel 1775324895139-0", "shoal tasks cancel ID1 ID2"),
)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@shoal_options
def cancel_tasks(call: Invocation, task_ids: tuple[str, ...]) -> int:
    """Exit code 4 if one of them does not exist."""
    return call.wait_for(_cancel(call, task_ids))


async def _list(call: Invocation, states: Sequence[TaskState], limit: int) -> int:
    async with call.fleet() as fleet:
        found = await fleet.backend.queue.list_tasks(limit=limit, states=states)
    if call.screen.as_json:
        for status in found:
            call.screen.json(status)
        return OK
    columns = (Column("id"), Column("state"), Column("agent"), Column("when"), Column("what", wide=True))
    rows = [
        (status.id, _state(status), status.task.agent if status.task else "", _when(status), _what(status))
        for status in found
    ]
    call.screen.table(columns, rows, empty="no tasks")
    return OK


async def _show(call: Invocation, task_id: str) -> int:
    async with call.fleet() as fleet:
        [status] = await fleet.backend.queue.status([task_id])
        if status.state is TaskState.UNKNOWN:
            raise TaskNotFound(f"no task {task_id}: it was never submitted here, or ended too long ago")
        moments = without_vain_looks(await read_journal(fleet.backend.state, task_id))
        if call.screen.as_json:
            call.screen.json({**msgspec.to_builtins(status), "journal": timeline.as_json(moments)})
            return OK
        call.screen.fields([*_facts(status), *await _reason(fleet, status, moments)])
        if moments:
            call.screen.line()
            call.screen.table(timeline.COLUMNS, timeline.timeline(moments, status.result))
    return OK


async def _cancel(call: Invocation, task_ids: Sequence[str]) -> int:
    async with call.fleet() as fleet:
        outcomes = await fleet.backend.queue.cancel(task_ids)
    for task_id, outcome in zip(task_ids, outcomes, strict=True):
        if call.screen.as_json:
            call.screen.json({"id": task_id, "outcome": outcome})
        else:
            call.screen.line(f"{task_id}  {_OUTCOMES[outcome]}", "bad" if outcome is CancelOutcome.UNKNOWN else "")
    return NOT_FOUND if CancelOutcome.UNKNOWN in outcomes else OK


def _facts(status: TaskStatus) -> list[tuple[str, str | Cell]]:
    """What is known of the task, without empty fields."""
    facts: list[tuple[str, str | Cell]] = [("id", status.id), ("state", _state(status))]
    if task := status.task:
        facts += [
            ("agent", task.agent),
            ("attempt", str(task.attempt) if task.attempt else ""),
            ("priority", task.priority.value),
            ("enqueued", f"{task.enqueued_at} ({ago(at_rfc3339(task.enqueued_at))})" if task.enqueued_at else ""),
            ("deadline", moment(task.deadline or 0)),
            ("tenant", task.tenant),
            ("session", task.session_id),
            ("meta", "  ".join(f"{key}={value}" for key, value in task.meta.items())),
            ("prompt", task.prompt),
        ]
    facts += [("worker", status.worker), ("due", moment(status.due_at or 0))]
    if status.leased_s is not None:
        facts.append(("lease", f"renewed {duration(status.leased_s)} ago"))
    if result := status.result:
        facts += [
            ("ended", f"{moment(result.finished_at)} ({ago(result.finished_at)})" if result.finished_at else ""),
            ("used", ending(result).rpartition(" · ")[0]),
            ("error", Cell(result.error, "bad")),
            ("output", result.output),
            *((f"file {name}", url) for name, url in result.artifacts.items()),
        ]
    return [(name, value) for name, value in facts if (value.text if isinstance(value, Cell) else value)]


async def _reason(fleet: Fleet, status: TaskStatus, moments: Sequence[Moment]) -> list[tuple[str, str | Cell]]:
    """Why a task that could run does not."""
    last = moments[-1].entry if moments else None
    if status.state is TaskState.DELAYED and isinstance(last, AttemptEnded):
        why = f"for {last.error}" if last.how == "parked" else f"{last.how}: {last.error}"
        return [("waits", Cell(why, "warn"))]
    if status.state is not TaskState.READY:
        return []
    stats = await fleet.backend.queue.stats()
    return [("waits", Cell(_waits_for(stats), "warn"))]


def _waits_for(stats: QueueStats) -> str:
    if stats.paused:
        return "the queue is paused: shoal resume"
    if not stats.running:
        return f"{count(stats.ready)} ready and none running: is a worker up? (shoal worker)"
    return f"{count(stats.ready)} ready, {count(stats.running)} running: more workers would shorten the wait"


def _state(status: TaskStatus) -> Cell:
    return Cell(status.state.value, STATE_STYLES[status.state])


def _when(status: TaskStatus) -> str:
    if status.result and status.result.finished_at:
        return ago(status.result.finished_at)
    if status.due_at:
        return f"due {moment(status.due_at)}"
    return ago(at_rfc3339(status.task.enqueued_at)) if status.task else ""


def _what(status: TaskStatus) -> str:
    if status.result:
        return shorten(status.result.error or status.result.output, 60)
    return shorten(status.task.prompt, 60) if status.task else ""
