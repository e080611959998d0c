"""What the commands of all kinds of declared objects share."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from worker.cli.declared_fields import Flag
from worker.cli.failures import OK
from worker.cli.invocation import Invocation
from worker.cli.screen import Column

if TYPE_CHECKING:
    from worker.agents.declarations import Declarations
    from worker.agents.registrar import Registrar
    from worker.objects import Stored

NAMESPACE = click.option(
    "--namespace", default="", metavar="SLUG", help="Whose it is: a tenant.  [default: everybody's]"
)
EXPECT = click.option("--expect", "version", type=int, metavar="VERSION", help="Only if it is at this version still.")


class Kind(NamedTuple):
    """One kind of object on the command line."""

    noun: str
    """`agent`"""
    noun_with_article: str
    plural: str
    """Also the name of its registrar."""
    example: str
    """Flags that a first one would have."""
    flags: tuple[Flag, ...]
    columns: tuple[Column, ...]
    """Of the list, beside those that all kinds have."""
    cells: Callable[[Any], tuple[str, ...]]
    switches: bool = True
    """Whether it can be activated and deactivated."""

    def registrar(self, there: Declarations) -> Registrar[Any]:
        """What does it."""
        found: Registrar[Any] = getattr(there, self.plural)
        return found


@asynccontextmanager
async def declarations_of(call: Invocation) -> AsyncIterator[Declarations]:
    """What is declared, read anew before each operation."""
    from worker.agent_plugins.registry import AgentPlugins
    from worker.agents.declarations import Declarations
    from worker.definitions import Definitions
    from worker.live_settings import LiveSettings

    settings = call.settings()
    async with call.fleet(settings) as fleet:
        state = fleet.backend.state
        live = LiveSettings(state)
        await live.load()
        definitions = Definitions(state)
        yield Declarations(
            definitions,
            settings=settings,
            live=live,
            plugins=AgentPlugins.of(settings, definitions.plugins),
            has_all_plugins=False,
            is_followed=False,
        )


def say(call: Invocation, kind: Kind, what: str, stored: Stored[Any]) -> int:
    if call.screen.as_json:
        call.screen.json(stored)
    else:
        call.screen.line(f"{kind.noun} {stored.value.slug} is {what} (version {stored.version})")
    return OK


def warn(call: Invocation, warnings: Sequence[str]) -> None:
    for warning in warnings:
        call.screen.note(f"warning: {warning}", "warn")


def user() -> str:
    """Who runs this, for the versions' `by`."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""
