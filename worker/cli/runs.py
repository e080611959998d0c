"""`shoal runs`: list, show, watch and cancel the runs of teams."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from worker.cli.failures import FAILED, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.list_by_default import ListByDefault
from worker.cli.screen import Cell, Column, clean
from worker.cli.wording import ago, count, duration, moment, shorten, usd

if TYPE_CHECKING:
    from worker.cli.live_tree import Nested
    from worker.teams.run_header import RunSummary
    from worker.teams.run_state import Phase, RunState
    from worker.teams.runs import Run, Runs

INTERRUPTED = Cell("Interrupted", "warn")
"""A local run that has not ended, and whose process is gone."""
PHASES = ("Pending", "Running", "Waiting", "Succeeded", "Failed", "Cancelled")
_STYLES = {
    "Pending": "dim",
    "Running": "tool",
    "Waiting": "warn",
    "Succeeded": "good",
    "Failed": "bad",
    "Cancelled": "warn",
}


@click.group(cls=ListByDefault, help="List, show, watch and cancel runs of teams.")
def runs() -> None:
    """The group; each command has its own options."""


@runs.command(
    "list",
    help="List runs, the newest first; not those that are steps of others.\n\n"
    + examples("shoal runs list", "shoal runs list --team research --phase running", "shoal runs list --json"),
)
@click.option("--team", default="", metavar="NAME", help="Only those of this team.")
@click.option("--tenant", metavar="SLUG", help="Only those of this tenant.")
@click.option(
    "--phase", "phases", multiple=True, type=click.Choice(PHASES, case_sensitive=False), help="Only these. Repeatable."
)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@shoal_options
def list_runs(call: Invocation, team: str, tenant: str | None, phases: tuple[str, ...], limit: int) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_list(call, team, tenant, phases, limit))


@runs.command(
    "show",
    help="Show all that is known of a run: its steps, input, output, and what happened when.\n\n"
    + examples("shoal runs show research-20261121-192000-1a2b3c", "shoal runs show ID --json"),
)
@click.argument("run_id", metavar="ID")
@shoal_options
def show_run(call: Invocation, run_id: str) -> int:
    """Exit code 4 if there is no such run."""
    return call.wait_for(_show(call, run_id))


@runs.command(
    "watch",
    help="Watch a run until it ends, as `shoal run --watch` does; leaving does no harm. Exit code 1 if it failed.\n\n"
    + examples("shoal runs watch research-20261121-192000-1a2b3c"),
)
@click.argument("run_id", metavar="ID")
@shoal_options
def watch(call: Invocation, run_id: str) -> int:
    """Exit code 4 if there is no such run."""
    return call.wait_for(_watch(call, run_id))


@runs.command(
    "cancel",
    help="End runs, with all their tasks. What was spent stays recorded.\n\n" + examples("shoal runs cancel ID1 ID2"),
)
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@shoal_options
def cancel(call: Invocation, run_ids: tuple[str, ...]) -> int:
    """Exit code 4 if one of them does not exist, 1 if one has ended."""
    return call.wait_for(_cancel(call, run_ids))


@runs.command(
    "resume",
    help="Say how a run that does not go on is continued.\n\n" + examples("shoal runs resume ID"),
)
@click.argument("run_id", metavar="ID")
@shoal_options
def resume(call: Invocation, run_id: str) -> int:
    """Exit code 4 if there is no such run."""
    return call.wait_for(_resume(call, run_id))


async def _list(call: Invocation, team: str, tenant: str | None, phases: Sequence[str], limit: int) -> int:
    from worker.teams.run_state import Phase
    from worker.teams.runs import Runs

    wanted = [Phase(name.capitalize()) for name in phases]
    async with call.fleet() as fleet:
        found = await Runs(fleet.backend.state).list(limit=limit, team=team, tenant=tenant, phases=wanted)
    if call.screen.as_json:
        from worker.cli.run_documents import summary_document

        for summary in found:
            call.screen.json(summary_document(summary))
        return OK
    columns = (
        Column("run"),
        Column("team"),
        Column("phase"),
        Column("steps", right=True),
        Column("tokens", right=True),
        Column("cost", right=True),
        Column("took", right=True),
        Column("started"),
        Column("what", wide=True),
    )
    call.screen.table(columns, [_row(each) for each in found], empty="no runs: shoal run team.yaml")
    return OK


def _row(run: RunSummary) -> tuple[str | Cell, ...]:
    return (
        run.id,
        run.team,
        INTERRUPTED if run.is_interrupted else phase_cell(run.phase),
        f"{run.steps_ended}/{run.steps}",
        count(run.tokens) if run.tokens else "",
        usd(run.cost_usd) if run.cost_usd else "",
        _took(run.started_at, run.ended_at),
        ago(run.created_at),
        _how_to_go_on(run.id)
        if run.is_interrupted
        else shorten(run.message or (f"by {run.trigger}" if run.trigger else ""), 60),
    )


def _how_to_go_on(run_id: str) -> str:
    return f"shoal run --resume {run_id}"


def phase_cell(phase: Phase) -> Cell:
    """In its colour."""
    return Cell(phase.value, _STYLES.get(phase.value, ""))


def _took(started_at: float, ended_at: float) -> str:
    return duration((ended_at or time.time()) - started_at) if started_at else ""


async def _show(call: Invocation, run_id: str) -> int:
    from worker.cli.run_nesting import read_nested
    from worker.cli.run_timeline import COLUMNS, read_events, timeline
    from worker.teams.runs import Runs

    async with call.fleet() as fleet:
        there = Runs(fleet.backend.state)
        run = await there.read(run_id)
        is_interrupted = await _is_interrupted(there, run)
        events = await read_events(there, run_id)
        nested = {} if call.screen.as_json else await read_nested(there, run.state)
    if call.screen.as_json:
        from worker.cli.run_documents import run_document

        call.screen.json({**run_document(run, events), "is_interrupted": is_interrupted})
        return OK
    call.screen.fields(_facts(run, is_interrupted=is_interrupted))
    call.screen.line()
    _write_tree(call, run, nested)
    call.screen.line()
    call.screen.table(COLUMNS, timeline(events, run.state), empty="nothing has happened yet")
    if run.state.output:
        call.screen.line()
        call.screen.line("Output:", "dim")
        call.screen.line(clean(run.state.output))
    return OK


async def _is_interrupted(there: Runs, run: Run) -> bool:
    """Whether nobody drives it though it has not ended, and nobody will by himself."""
    summary = None if run.state.phase.is_final else await there.index.summary(run.header.id)
    return summary is not None and summary.is_interrupted


def _facts(run: Run, *, is_interrupted: bool) -> list[tuple[str, str | Cell]]:
    import msgspec

    header, state = run.header, run.state
    facts: list[tuple[str, str | Cell]] = [
        ("run", header.id),
        ("team", header.team),
        ("phase", INTERRUPTED if is_interrupted else phase_cell(state.phase)),
        ("go on", _how_to_go_on(header.id) if is_interrupted else ""),
        ("why", Cell(state.message if not state.phase.is_final or state.reason else "", _STYLES[state.phase.value])),
        ("started", f"{moment(header.created_at)} ({ago(header.created_at)})"),
        ("took", _took(state.started_at, state.ended_at)),
        ("used", _used(state)),
        ("tenant", header.tenant),
        ("trigger", header.trigger),
        ("part of", f"step {header.parent[1]} of run {header.parent[0]}" if header.parent else ""),
        ("where", "a process of its own (shoal run)" if header.is_local else "the fleet"),
        ("labels", "  ".join(f"{name}={value}" for name, value in header.labels.items())),
    ]
    for name, value in header.input.items():
        facts.append((f"input {name}", value if isinstance(value, str) else msgspec.json.encode(value).decode()))
    return [(name, value) for name, value in facts if (value.text if isinstance(value, Cell) else value)]


def _used(state: RunState) -> str:
    cost = f" · {usd(state.cost_usd)}" if state.cost_usd else ""
    return f"{count(state.tokens)} tokens{cost}" if state.tokens else ""


def _write_tree(call: Invocation, run: Run, nested: dict[str, Nested]) -> None:
    from worker.cli.live_tree import tree

    width = call.screen.size[0]
    lines = tree(run.plan, run.state, width=width, height=0, now=time.time(), nested=nested, is_final=True)
    for line in lines[1:]:
        for text, style in line:
            call.screen.write(text, style)
        call.screen.line()


async def _watch(call: Invocation, run_id: str) -> int:
    from worker.cli.interrupts import Interrupts
    from worker.cli.team_output import line_document, write_text
    from worker.cli.team_watch import watch_run
    from worker.teams.run_state import Phase
    from worker.teams.runs import Runs

    async with call.fleet() as fleet:
        there = Runs(fleet.backend.state)
        run = await there.read(run_id)
        plan = run.plan
        if await _is_interrupted(there, run):
            call.screen.note(f"nobody drives this run; to go on with it: {_how_to_go_on(run_id)}", "warn")
        state = await watch_run(call.screen, fleet.backend, there, plan, run_id, asked=Interrupts(), is_shown=True)
    team = plan.find(state.team)
    if call.screen.as_json:
        call.screen.json({"result": line_document(team, state)})
    else:
        write_text(call.screen, team, state)
    return OK if state.phase is Phase.SUCCEEDED else FAILED


async def _cancel(call: Invocation, run_ids: Sequence[str]) -> int:
    from worker.cli.declared_kind import user
    from worker.teams.errors import RunEnded
    from worker.teams.runs import Runs

    code = OK
    async with call.fleet() as fleet:
        there = Runs(fleet.backend.state)
        for run_id in run_ids:
            try:
                await there.cancel(run_id, by=user())
                outcome = "its driver has been told to end it"
            except RunEnded as error:
                outcome, code = str(error), FAILED
            if call.screen.as_json:
                call.screen.json({"id": run_id, "outcome": outcome})
            else:
                call.screen.line(f"{run_id}  {outcome}")
    return code


async def _resume(call: Invocation, run_id: str) -> int:
    from worker.teams.runs import Runs

    async with call.fleet() as fleet:
        run = await Runs(fleet.backend.state).read(run_id)
    if run.state.phase.is_final:
        hint = f"run {run_id} has ended ({run.state.phase.value}): there is nothing to go on with"
    elif run.header.is_local:
        hint = _how_to_go_on(run_id)
    else:
        hint = f"`shoal serve` goes on with it by itself; or: shoal run --resume {run_id} --queue URL"
    if call.screen.as_json:
        call.screen.json({"id": run_id, "phase": run.state.phase, "is_local": run.header.is_local, "hint": hint})
    else:
        call.screen.line(hint)
    return OK
