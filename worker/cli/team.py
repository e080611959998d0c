"""`shoal team`: the teams that the fleet has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.declared_kind import NAMESPACE, user
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.list_by_default import ListByDefault
from worker.cli.screen import Cell, Column
from worker.cli.wording import ago, count, moment

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.objects import Stored
    from worker.teams.team_objects import Change, StoredTeam

_FILES = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group(cls=ListByDefault, help="Store teams, with their agents, triggers and notifications, for the whole fleet.")
def team() -> None:
    """The group; each command has its own options."""


@team.command(
    "apply",
    help="Make the fleet have what team files declare: teams, agents, triggers, notifications. Doing it again does no "
    "harm. Values of Secrets are not stored: workers have them in their own environment.\n\n"
    + examples("shoal team apply research.yaml", "shoal run --team research --queue redis://redis:6379 --watch"),
)
@click.argument("files", nargs=-1, required=True, type=_FILES)
@NAMESPACE
@shoal_options
def apply_files(call: Invocation, files: tuple[Path, ...], namespace: str) -> int:
    """Exit code 2 if a file cannot be used."""
    return call.wait_for(_apply(call, files, namespace))


@team.command("list", help="List the stored teams, and agents of team files.\n\n" + examples("shoal team list"))
@NAMESPACE
@shoal_options
def list_teams(call: Invocation, namespace: str) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_list(call, namespace))


@team.command(
    "show",
    help="Show a stored team: its steps, who does them, what it takes.\n\n" + examples("shoal team show research"),
)
@click.argument("name")
@NAMESPACE
@shoal_options
def show(call: Invocation, name: str, namespace: str) -> int:
    """Exit code 4 if there is none."""
    return call.wait_for(_show(call, name, namespace))


@team.command(
    "delete",
    help="Delete stored teams, or with --file all that a file declares. Runs that go on end as they began.\n\n"
    + examples("shoal team delete research", "shoal team delete --file research.yaml"),
)
@click.argument("names", nargs=-1)
@click.option("--file", "files", multiple=True, type=_FILES, help="All that this file declares. Repeatable.")
@NAMESPACE
@shoal_options
def delete(call: Invocation, names: tuple[str, ...], files: tuple[Path, ...], namespace: str) -> int:
    """Exit code 4 if a name is of none."""
    if not names and not files:
        raise click.UsageError("give names of teams, or --file", click.get_current_context())
    return call.wait_for(_delete(call, names, files, namespace))


@asynccontextmanager
async def _definitions(call: Invocation) -> AsyncIterator[Definitions]:
    from worker.definitions import Definitions

    async with call.fleet() as fleet:
        definitions = Definitions(fleet.backend.state)
        await definitions.load()
        yield definitions


async def _apply(call: Invocation, files: tuple[Path, ...], namespace: str) -> int:
    from worker.teams.bundle import read_bundle
    from worker.teams.team_objects import apply

    bundles = [read_bundle(path) for path in files]
    for bundle in bundles:
        for finding in bundle.findings:
            call.screen.note(str(finding), "warn" if finding.severity == "warning" else "dim")
    async with _definitions(call) as definitions:
        for bundle in bundles:
            _say(call, await apply(definitions, bundle, namespace, by=user()))
    return OK


def _say(call: Invocation, changes: list[Change]) -> None:
    for change in changes:
        if call.screen.as_json:
            call.screen.json(change)
        else:
            of = f" of {change.namespace}" if change.namespace else ""
            call.screen.line(f"{change.kind} {change.slug}{of} {change.what}")


async def _list(call: Invocation, namespace: str) -> int:
    async with _definitions(call) as definitions:
        found = [
            (kind, stored)
            for kind, store in (("team", definitions.teams), ("agent", definitions.team_agents))
            for stored in store.all()
            if not namespace or stored.value.namespace in ("", namespace)
        ]
    if call.screen.as_json:
        for kind, stored in found:
            call.screen.json(_document(kind, stored))
        return OK
    columns = (
        Column("team"),
        Column("of"),
        Column("kind"),
        Column("mode"),
        Column("steps", right=True),
        Column("version", right=True),
        Column("changed"),
        Column("description", wide=True),
    )
    call.screen.table(columns, [_row(kind, stored) for kind, stored in found], empty="no teams: shoal team apply FILE")
    return OK


def _document(kind: str, stored: Stored[StoredTeam]) -> dict[str, Any]:
    team_ = stored.value.plan.team
    return {
        "kind": kind,
        "slug": stored.value.slug,
        "namespace": stored.value.namespace,
        "mode": team_.mode,
        "steps": len(team_.steps),
        "version": stored.version,
        "updated_at": stored.updated_at,
        "description": stored.value.description,
        "is_active": stored.value.is_active,
    }


def _row(kind: str, stored: Stored[StoredTeam]) -> tuple[str | Cell, ...]:
    found = _document(kind, stored)
    off = Cell("off", "warn") if not stored.value.is_active else Cell(found["mode"])
    return (
        found["slug"],
        found["namespace"],
        kind,
        off,
        count(found["steps"]),
        count(stored.version),
        ago(stored.updated_at),
        found["description"],
    )


async def _show(call: Invocation, name: str, namespace: str) -> int:
    async with _definitions(call) as definitions:
        stored = definitions.teams.visible(name, namespace) or definitions.team_agents.visible(name, namespace)
    if stored is None:
        raise _not_found(name)
    if call.screen.as_json:
        call.screen.json(stored)
        return OK
    _write_team(call, stored)
    return OK


def _write_team(call: Invocation, stored: Stored[StoredTeam]) -> None:
    found = stored.value.plan.team
    facts: list[tuple[str, str | Cell]] = [
        ("team", stored.value.slug),
        ("of", stored.value.namespace),
        ("mode", found.mode),
        ("description", stored.value.description),
        ("version", f"{stored.version} of {moment(stored.updated_at)}"),
        ("from", stored.value.source),
        ("output", found.output),
    ]
    for each in found.inputs:
        needed = "required" if each.required else f"default {each.default}" if each.default is not None else "optional"
        facts.append((f"input {each.name}", f"{each.type}, {needed}  {each.description}".rstrip()))
    call.screen.fields([(name, text) for name, text in facts if text])
    call.screen.line()
    columns = (Column("step"), Column("role"), Column("model"), Column("after"), Column("if", wide=True))
    rows = []
    for step in found.steps:
        role = found.role(step.role)
        model = step.model or (role.config.model if role else "") or (f"agent {role.agent}" if role else "")
        rows.append((step.name, step.role, model.removesuffix("agent "), ", ".join(step.depends_on), step.condition))
    call.screen.table(columns, rows)


async def _delete(call: Invocation, names: tuple[str, ...], files: tuple[Path, ...], namespace: str) -> int:
    from worker.teams.bundle import read_bundle
    from worker.teams.team_objects import Change, remove

    bundles = [read_bundle(path) for path in files]
    async with _definitions(call) as definitions:
        for bundle in bundles:
            _say(call, await remove(definitions, bundle, namespace))
        for name in names:
            if definitions.teams.visible(name, namespace) is not None:
                await definitions.teams.delete(name, namespace)
                _say(call, [Change(kind="team", slug=name, namespace=namespace, what="removed")])
            elif definitions.team_agents.visible(name, namespace) is not None:
                await definitions.team_agents.delete(name, namespace)
                _say(call, [Change(kind="agent", slug=name, namespace=namespace, what="removed")])
            else:
                raise _not_found(name)
    return OK


def _not_found(name: str) -> Exception:
    from worker.teams.errors import TeamNotFound

    return TeamNotFound(f"no team {name!r} is stored: `shoal team list` shows those that are")
