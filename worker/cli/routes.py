"""`shoal routes`: where model calls may go, as shoal.yaml and the live settings have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from worker.cli.failures import NOT_FOUND, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.live_values import live_settings, value_from
from worker.cli.screen import Column

if TYPE_CHECKING:
    from worker.routing import Route


@click.group(
    help="Where model calls may go: named sets of targets, which agents (route: in shoal.yaml) and tasks (--route) "
    "take. See docs/routing.md."
)
def routes() -> None:
    """The group; each command has its own options."""


@routes.command(
    "list",
    help="Show all routes of shoal.yaml and the live settings.\n\n" + examples("shoal routes list"),
)
@shoal_options
def list_routes(call: Invocation) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_list(call))


@routes.command(
    "show",
    help="Show one route as JSON, with all that its targets have of their own. Exit code 4 if there is none.\n\n"
    + examples("shoal routes show main"),
)
@click.argument("name")
@shoal_options
def show_route(call: Invocation, name: str) -> int:
    """What `set` takes, but for masked secrets."""
    return call.wait_for(_show(call, name))


@routes.command(
    "set",
    help="Set a route for all workers, instead of the one of that name in shoal.yaml. ROUTE is JSON, or - for stdin. "
    "Runs in flight keep the route that they began with.\n\n"
    + examples(
        """shoal routes set main '["claude-sonnet-4-5", "gpt-4o"]'""",
        "shoal routes set main - < main.json",
    ),
)
@click.argument("name")
@click.argument("route")
@shoal_options
def set_route(call: Invocation, name: str, route: str) -> int:
    """Exit code 2 if it cannot be one."""
    from worker.cli.settings import put

    return call.wait_for(put(call, f"routes.{name}", value_from(route)))


@routes.command(
    "unset",
    help="Take a live route away, for all workers: the one of shoal.yaml counts again, if there is one. Exit code 4 if "
    "it was not set.\n\n" + examples("shoal routes unset main"),
)
@click.argument("name")
@shoal_options
def unset_route(call: Invocation, name: str) -> int:
    """As `shoal settings unset routes.NAME`."""
    return call.wait_for(_unset(call, name))


async def _known(call: Invocation) -> dict[str, tuple[str, Route]]:
    """Name -> where it is from, and the route."""
    from worker.routing.route_table import PREFIX, RouteTable

    settings = call.settings()
    async with live_settings(call) as (live, _):
        table = RouteTable(settings.routes, live)
        return {
            name: ("live" if live.get(PREFIX + name) is not None else settings.sources["routes"], table.get(name))
            for name in table.names()
        }


async def _list(call: Invocation) -> int:
    known = await _known(call)
    if call.screen.as_json:
        for name, (source, route) in known.items():
            call.screen.json({"name": name, "source": source, "route": _plain(route)})
        return OK
    rows = [
        (name, source, route.strategy.value, ", ".join(target.name for target in route.targets))
        for name, (source, route) in known.items()
    ]
    columns = (Column("name"), Column("from"), Column("strategy"), Column("targets", wide=True))
    call.screen.table(columns, rows, empty="no route is declared: add routes: to shoal.yaml, or shoal routes set")
    return OK


async def _show(call: Invocation, name: str) -> int:
    known = await _known(call)
    if name not in known:
        there = ", ".join(known) or "none"
        call.screen.note(f"there is no route {name!r}; there are: {there}", "bad")
        return NOT_FOUND
    text = msgspec.json.encode(_plain(known[name][1]))
    call.screen.line((text if call.screen.as_json else msgspec.json.format(text)).decode())
    return OK


def _plain(route: Route) -> object:
    from worker.settings.masking import masked

    plain = msgspec.to_builtins(route)
    plain.pop("name", None)
    return masked(plain)


async def _unset(call: Invocation, name: str) -> int:
    async with live_settings(call) as (live, _):
        was_there = await live.unset(f"routes.{name}")
    if call.screen.as_json:
        call.screen.json({"name": name, "unset": was_there})
    elif was_there:
        call.screen.line(f"route {name} is not set any more")
    else:
        call.screen.note(f"route {name} was not set")
    return OK if was_there else NOT_FOUND
