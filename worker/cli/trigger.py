"""`shoal trigger`: what starts runs of teams by itself."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from worker.cli.declared_kind import NAMESPACE, user
from worker.cli.failures import FAILED, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell, Column
from worker.cli.wording import ago, duration, moment

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.objects import Stored
    from worker.teams.triggers.firing import Firing
    from worker.teams.triggers.model import Trigger
    from worker.teams.triggers.service import Triggers
    from worker.teams.triggers.status import FiringView, TriggerStatus

_COLUMNS = (
    Column("trigger"),
    Column("type"),
    Column("state"),
    Column("fires"),
    Column("targets", wide=True),
    Column("fired", right=True),
    Column("last"),
    Column("next"),
)
_FIRINGS = (Column("fired at"), Column("by"), Column("state"), Column("runs", wide=True))
_STATE_STYLES = {"fired": "good", "failed": "bad", "skipped": "warn", "active": "good", "suspended": "dim"}


@click.group(help="What starts runs of teams: schedules, webhooks, other teams' runs. `shoal serve` fires them.")
def trigger() -> None:
    """The group; each command has its own options."""


@trigger.command(
    "list",
    help="List all triggers: when they fired, and when they will.\n\n"
    + examples("shoal trigger list", "shoal trigger list --json"),
)
@shoal_options
def list_triggers(call: Invocation) -> int:
    """One table, or one JSON document a line."""

    async def work() -> int:
        async with _opened(call) as there:
            stored = sorted(there.definitions.triggers.all(), key=lambda each: (each.value.namespace, each.value.slug))
            pairs = [(each, await there.triggers.status(each)) for each in stored]
        if call.screen.as_json:
            for _, status in pairs:
                call.screen.json(status)
        else:
            rows = [_row(each, status) for each, status in pairs]
            call.screen.table(_COLUMNS, rows, empty="no triggers: a team file declares them; shoal team apply FILE")
        return OK

    return call.wait_for(work())


@trigger.command(
    help="Show a trigger: what it starts, and what became of its last firings.\n\n"
    + examples("shoal trigger show nightly")
)
@click.argument("name")
@NAMESPACE
@shoal_options
def show(call: Invocation, name: str, namespace: str) -> int:
    """Exit code 4 if there is none."""

    async def work() -> int:
        async with _opened(call) as there:
            stored = await there.definitions.triggers.read(name, namespace)
            status = await there.triggers.status(stored)
        if call.screen.as_json:
            call.screen.json({"definition": stored.value, "status": status})
        else:
            _show(call, stored.value, status)
        return OK

    return call.wait_for(work())


@trigger.command(
    help="Fire a trigger now, whatever its type. `shoal serve` drives the runs.\n\n"
    + examples(
        "shoal trigger fire nightly",
        'shoal trigger fire on-issue --body \'{"title": "It breaks"}\'',
        "shoal trigger fire on-issue --body @issue.json",
    )
)
@click.argument("name")
@click.option("--body", help="JSON for `.trigger.body`; @FILE reads it from a file.")
@NAMESPACE
@shoal_options
def fire(call: Invocation, name: str, body: str | None, namespace: str) -> int:
    """Exit code 1 if nothing was started."""
    given = _body(body)

    async def work() -> int:
        from worker.teams.triggers.status import view_of

        async with _opened(call) as there:
            stored = await there.definitions.triggers.read(name, namespace)
            firing, _ = await there.triggers.fire(stored, source="manual", body=given)
        if call.screen.as_json:
            call.screen.json(view_of(firing))
        else:
            _told(call, firing)
        return OK if firing.started else FAILED

    return call.wait_for(work())


@trigger.command(
    help="Let triggers fire nothing until they are resumed.\n\n" + examples("shoal trigger suspend nightly")
)
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@NAMESPACE
@shoal_options
def suspend(call: Invocation, names: tuple[str, ...], namespace: str) -> int:
    """Exit code 4 if there is none."""
    return call.wait_for(_switch(call, names, namespace, is_suspended=True))


@trigger.command(
    help="Let triggers fire again. What they missed meanwhile is not made up for.\n\n"
    + examples("shoal trigger resume nightly")
)
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@NAMESPACE
@shoal_options
def resume(call: Invocation, names: tuple[str, ...], namespace: str) -> int:
    """Exit code 4 if there is none."""
    return call.wait_for(_switch(call, names, namespace, is_suspended=False))


@trigger.command(
    help="Make a webhook's token, and write it: it is shown this once. One that it had opens nothing any more.\n\n"
    + examples(
        "shoal trigger token on-issue",
        "curl -H \"Authorization: Bearer $(shoal trigger token on-issue)\" --json '{}' \\",
        "    http://localhost:8000/v1/triggers/on-issue/fire",
    )
)
@click.argument("name")
@NAMESPACE
@shoal_options
def token(call: Invocation, name: str, namespace: str) -> int:
    """The token alone on stdout, so that a script can take it."""

    async def work() -> int:
        from worker.teams.triggers.status import webhook_path

        async with _opened(call) as there:
            stored = await there.definitions.triggers.read(name, namespace)
            secret = await there.triggers.tokens.make(stored)
        path = webhook_path(stored.value)
        if call.screen.as_json:
            call.screen.json({"trigger": name, "token": secret, "path": path})
        else:
            call.screen.line(secret)
            call.screen.note(f"POST {path} with 'Authorization: Bearer …': keep it, it is not shown again")
        return OK

    return call.wait_for(work())


class _There(NamedTuple):
    definitions: Definitions
    triggers: Triggers


@asynccontextmanager
async def _opened(call: Invocation) -> AsyncIterator[_There]:
    from worker.agents.roster import Roster
    from worker.definitions import Definitions
    from worker.teams.runs import Runs
    from worker.teams.triggers.service import Triggers

    settings = call.settings()
    async with call.fleet(settings) as fleet:
        state = fleet.backend.state
        definitions = Definitions(state)
        await definitions.load()
        roster = Roster(settings, definitions)
        yield _There(definitions, Triggers(definitions, Runs(state), roster, name=f"shoal trigger of {user()}"))


async def _switch(call: Invocation, names: tuple[str, ...], namespace: str, *, is_suspended: bool) -> int:
    from msgspec.structs import replace

    async with _opened(call) as there:
        for name in names:
            after = await there.definitions.triggers.change(
                name, lambda value: replace(value, suspended=is_suspended), namespace, by=user()
            )
            if call.screen.as_json:
                call.screen.json(after.value)
            else:
                call.screen.line(f"{'suspended' if is_suspended else 'resumed'} {name}")
    return OK


def _body(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise click.BadParameter(f"{text[1:]} cannot be read: {error.strerror}", param_hint="--body") from error
    except ValueError as error:
        raise click.BadParameter(f"is no JSON: {error}", param_hint="--body") from error


def _row(stored: Stored[Trigger], status: TriggerStatus) -> list[str | Cell]:
    value, now = stored.value, time.time()
    state = "suspended" if value.suspended else "active"
    if status.last_error and status.last_error_at and status.last_error_at >= (status.last_fired_at or 0):
        state = "failed"
    return [
        _name(value),
        value.type,
        Cell(state, _STATE_STYLES[state]),
        _when(value),
        ", ".join(target.team or target.agent for target in value.targets),
        str(status.fired),
        ago(status.last_fired_at or 0, now=now),
        f"in {duration(status.next_fire_at - now)}" if status.next_fire_at else "",
    ]


def _name(value: Trigger) -> str:
    return f"{value.namespace}/{value.slug}" if value.namespace else value.slug


def _when(value: Trigger) -> str:
    if value.type == "cron":
        return value.cron + (f" ({value.time_zone})" if value.time_zone != "UTC" else "")
    return f"{value.watched_team} {value.on_phase}" if value.type == "team-output" else ""


def _show(call: Invocation, value: Trigger, status: TriggerStatus) -> None:
    has_token = {None: "", True: "yes", False: "none: shoal trigger token makes one"}[status.has_token]
    pairs: list[tuple[str, str | Cell]] = [
        ("trigger", _name(value)),
        ("type", value.type),
        ("state", "suspended" if value.suspended else "active"),
        ("fires", _when(value)),
        ("webhook", status.webhook_path),
        ("token", value.token_env or has_token),
        ("targets", ", ".join(target.team or f"agent {target.agent}" for target in value.targets)),
        ("concurrency", value.concurrency),
        (
            "fired",
            ("once" if status.fired == 1 else f"{status.fired} times")
            + (f", {status.skipped} left out" if status.skipped else ""),
        ),
        ("last", moment(status.last_fired_at or 0)),
        ("next", moment(status.next_fire_at or 0)),
        ("last error", Cell(status.last_error, "bad") if status.last_error else ""),
    ]
    call.screen.fields([(name, cell) for name, cell in pairs if cell])
    if status.firings:
        call.screen.line()
        call.screen.table(_FIRINGS, [_firing_row(each) for each in status.firings])


def _firing_row(view: FiringView) -> list[str | Cell]:
    runs = ", ".join(each.run_id or f"{each.target}: {each.error}" for each in view.targets)
    return [moment(view.fired_at), view.source, Cell(view.state, _STATE_STYLES[view.state]), runs or view.reason]


def _told(call: Invocation, firing: Firing) -> None:
    for run_id in firing.started:
        call.screen.line(run_id)
    if firing.started:
        call.screen.note(f"shoal serve drives it; to see it: shoal runs watch {firing.started[0]}")
    if firing.error or firing.reason:
        call.screen.note(firing.error or firing.reason, "bad" if firing.error else "warn")
