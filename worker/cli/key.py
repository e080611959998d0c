"""`shoal key`: who may call the gateway."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.parameters import DURATION
from worker.cli.screen import Cell, Column
from worker.cli.wording import duration
from worker.settings.gateway import SCOPES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker.gateway.key_view import KeyView
    from worker.gateway.keys import ApiKeys

_STYLES = {"active": "good", "expired": "dim", "revoked": "dim"}
_COLUMNS = (
    Column("id"),
    Column("name", wide=True),
    Column("state"),
    Column("scopes"),
    Column("groups"),
    Column("tenant"),
    Column("app"),
    Column("expires"),
    Column("last used"),
)


@click.group(help="API keys of the gateway: `Authorization: Bearer shoal_…`. They are stored as hashes.")
def key() -> None:
    """The group; each command has its own options."""


@key.command(
    help="Create a key and write it: it is shown this once.\n\n"
    + examples(
        "shoal key create ops --scope admin",
        "shoal key create website --scope agents.use --group staff --expires-in 90d",
        "export SHOAL_KEY=$(shoal key create ci --scope tasks.write --scope tasks.read)",
    )
)
@click.argument("name")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="What it may do.")
@click.option("--group", "groups", metavar="SLUG", multiple=True, help="Access group of agents that it sees.")
@click.option("--tenant", metavar="SLUG", default="", help="Sees and does things of this tenant alone.")
@click.option("--app", metavar="SLUG", default="", help="May use this app's agents and models alone.")
@click.option("--expires-in", type=DURATION, help="Such as 90d.  [default: never]")
@click.option("--requests-per-minute", type=click.IntRange(0), help="Instead of the gateway's limit; 0: no limit.")
@shoal_options
def create(
    call: Invocation,
    name: str,
    scopes: tuple[str, ...],
    groups: tuple[str, ...],
    tenant: str,
    app: str,
    expires_in: float | None,
    requests_per_minute: int | None,
) -> int:
    """The key alone on stdout, so that a script can take it."""

    async def work() -> int:
        from worker.gateway.caller import Scope
        from worker.gateway.key_view import view_of

        expires_at = None if expires_in is None else time.time() + expires_in
        async with _keys(call) as keys:
            made, secret = await keys.create(
                name,
                [Scope(scope) for scope in scopes],
                groups,
                tenant,
                app,
                expires_at,
                requests_per_minute=requests_per_minute,
                by="shoal key",
            )
            view = await view_of(keys, keys.get(made.slug), secret=secret)
        if call.screen.as_json:
            call.screen.json(view)
        else:
            call.screen.line(secret)
            call.screen.note(f"key {made.slug} ({name}): keep it, it is not shown again")
        return OK

    return call.wait_for(work())


@key.command("list", help="List all keys, the newest first.\n\n" + examples("shoal key list", "shoal key list --json"))
@shoal_options
def list_keys(call: Invocation) -> int:
    """One table, or one JSON document for each key."""

    async def work() -> int:
        from worker.gateway.key_view import view_of

        async with _keys(call) as keys:
            views = [await view_of(keys, each) for each in keys.all()]
        if call.screen.as_json:
            for view in views:
                call.screen.json(view)
        else:
            call.screen.table(_COLUMNS, [_row(view) for view in views], empty="no keys: create one by shoal key create")
        return OK

    return call.wait_for(work())


@key.command(help="Show one key, without its secret.\n\n" + examples("shoal key show k3x7m2p9q4ab"))
@click.argument("key_id", metavar="ID")
@shoal_options
def show(call: Invocation, key_id: str) -> int:
    """Exit code 4 if there is none."""

    async def work() -> int:
        from worker.gateway.key_view import view_of

        async with _keys(call) as keys:
            view = await view_of(keys, keys.get(key_id))
        if call.screen.as_json:
            call.screen.json(view)
        else:
            cells = zip(_COLUMNS, _row(view), strict=True)
            call.screen.fields([(column.title, cell) for column, cell in cells if cell])
        return OK

    return call.wait_for(work())


@key.command(
    help="Make keys useless, on every gateway within about a second.\n\n" + examples("shoal key revoke k3x7m2p9q4ab")
)
@click.argument("key_ids", metavar="ID…", nargs=-1, required=True)
@shoal_options
def revoke(call: Invocation, key_ids: tuple[str, ...]) -> int:
    """Exit code 4 if there is none of that id."""

    async def work() -> int:
        from worker.gateway.key_view import view_of

        async with _keys(call) as keys:
            for key_id in key_ids:
                view = await view_of(keys, await keys.revoke(key_id, by="shoal key"))
                if call.screen.as_json:
                    call.screen.json(view)
                else:
                    call.screen.line(f"revoked {view.id} ({view.name})")
        return OK

    return call.wait_for(work())


@asynccontextmanager
async def _keys(call: Invocation) -> AsyncIterator[ApiKeys]:
    from worker.gateway.keys import ApiKeys

    async with call.fleet() as fleet:
        keys = ApiKeys(fleet.backend.state)
        await keys.load()
        yield keys


def _row(view: KeyView) -> list[str | Cell]:
    now = time.time()
    return [
        view.id,
        view.name,
        Cell(view.state, _STYLES[view.state]),
        ", ".join(view.scopes),
        ", ".join(view.groups),
        view.tenant,
        view.app,
        _when(view.expires_at, now),
        _when(view.last_used_at, now),
    ]


def _when(at: float | None, now: float) -> str:
    if at is None:
        return ""
    return f"in {duration(at - now)}" if at > now else f"{duration(now - at)} ago"
