"""`shoal notify`: who is told when runs end and budgets run out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from worker.cli.declared_kind import NAMESPACE
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell, Column
from worker.cli.wording import ago

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.objects import Stored
    from worker.teams.notify.model import Channel, Notify
    from worker.teams.notify.service import DispatchView, Notifications

_COLUMNS = (Column("policy"), Column("tells of", wide=True), Column("channels"), Column("for"), Column("last"))
_CHANNELS = (Column("channel"), Column("to", wide=True), Column("event"), Column("last"), Column("result", wide=True))


@click.group(help="Who is told when runs end and budgets run out. Team files declare it; `shoal serve` delivers.")
def notify() -> None:
    """The group; each command has its own options."""


@notify.command(
    "list", help="List notification policies.\n\n" + examples("shoal notify list", "shoal notify list --json")
)
@shoal_options
def list_policies(call: Invocation) -> int:
    """One table, or one JSON document a line."""

    async def work() -> int:
        async with _opened(call) as there:
            stored = sorted(there.definitions.notifies.all(), key=lambda each: (each.value.namespace, each.value.slug))
            pairs = [(each, await there.notifications.dispatches(each)) for each in stored]
        if call.screen.as_json:
            for each, dispatches in pairs:
                call.screen.json({"definition": each.value, "dispatches": dispatches})
        else:
            rows = [_row(each, dispatches) for each, dispatches in pairs]
            call.screen.table(_COLUMNS, rows, empty="no notification policies: a team file declares them")
        return OK

    return call.wait_for(work())


@notify.command(
    help="Show what became of the last notification to each channel.\n\n" + examples("shoal notify show ops")
)
@click.argument("name")
@NAMESPACE
@shoal_options
def show(call: Invocation, name: str, namespace: str) -> int:
    """Exit code 4 if there is none."""

    async def work() -> int:
        async with _opened(call) as there:
            stored = await there.definitions.notifies.read(name, namespace)
            dispatches = await there.notifications.dispatches(stored)
        if call.screen.as_json:
            call.screen.json({"definition": stored.value, "dispatches": dispatches})
        else:
            pairs = zip(stored.value.channels, dispatches, strict=True)
            call.screen.table(_CHANNELS, [_channel_row(channel, each) for channel, each in pairs])
        return OK

    return call.wait_for(work())


@notify.command(
    help="Send a test to all channels of a policy. `shoal serve` delivers it.\n\n" + examples("shoal notify test ops")
)
@click.argument("name")
@NAMESPACE
@shoal_options
def test(call: Invocation, name: str, namespace: str) -> int:
    """Exit code 4 if there is none."""

    async def work() -> int:
        async with _opened(call) as there:
            stored = await there.definitions.notifies.read(name, namespace)
            await there.notifications.test(stored)
        call.screen.note(f"on its way; what became of it: shoal notify show {name}")
        return OK

    return call.wait_for(work())


class _There(NamedTuple):
    definitions: Definitions
    notifications: Notifications


@asynccontextmanager
async def _opened(call: Invocation) -> AsyncIterator[_There]:
    from worker.definitions import Definitions
    from worker.teams.notify.service import Notifications

    async with call.fleet() as fleet:
        definitions = Definitions(fleet.backend.state)
        await definitions.load()
        yield _There(definitions, Notifications(fleet.backend.state))


def _row(stored: Stored[Notify], dispatches: tuple[DispatchView, ...]) -> list[str | Cell]:
    policy = stored.value
    name = f"{policy.namespace}/{policy.slug}" if policy.namespace else policy.slug
    newest = max(dispatches, key=lambda each: each.at or 0.0)
    return [
        name,
        ", ".join(policy.on) or "everything",
        ", ".join(channel.type for channel in policy.channels),
        "everything" if policy.is_for_all else "teams that name it",
        _result(newest) if newest.at else "",
    ]


def _channel_row(channel: Channel, view: DispatchView) -> list[str | Cell]:
    from worker.tools.redaction import mask_url

    to = f"${channel.url_env}" if channel.url_env else mask_url(channel.url)
    return [channel.type, to, view.event, ago(view.at or 0), _result(view) if view.at else ""]


def _result(view: DispatchView) -> Cell:
    return Cell("delivered", "good") if view.succeeded else Cell(view.error or "failed", "bad")
