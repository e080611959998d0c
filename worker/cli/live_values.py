"""What commands about live settings share: reading them, taking a value, and showing none that is secret."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from providers.live_config import REFERENCE
from worker.cli.invocation import Invocation

if TYPE_CHECKING:
    from queue_backends import StateStore
    from worker.cli.screen import Screen
    from worker.live_settings import LiveSettings
    from worker.sealing import Sealer

SECRET = "****"  # noqa: S105 - what is shown instead of one
LONGEST_SHOWN = 120


@asynccontextmanager
async def live_settings(call: Invocation) -> AsyncIterator[tuple[LiveSettings, StateStore]]:
    """The live settings as they are now, and the store that they are in. Raises `QueueError`s as the backend does."""
    from queue_backends.memory.state import MemoryState
    from worker.live_settings import LiveSettings

    async with call.fleet() as fleet:
        state = fleet.backend.state
        if isinstance(state, MemoryState):
            call.screen.note("the state is in this process' memory, so no worker hears of it: name a --queue", "warn")
        live = LiveSettings(state)
        await live.load()
        yield live, state


def value_from(argument: str) -> str:
    """The value that an argument gives: itself, or what stdin holds for `-`, without the line end."""
    if argument != "-":
        return argument
    value = sys.stdin.read().rstrip("\r\n")
    if not value:
        raise click.UsageError("stdin is empty: pipe the value into it", click.get_current_context())
    return value


def shown(value: str, *, is_secret: bool, whole: bool = False) -> str:
    """The value for people: a secret is masked, and so is a password in an address; a long one is cut,
    unless `whole`."""
    from worker.settings.masking import masked_url

    if is_secret and not value.startswith(REFERENCE):
        return SECRET
    value = masked_url(value) if "://" in value and " " not in value and "{" not in value else value
    return value if whole or len(value) <= LONGEST_SHOWN else value[: LONGEST_SHOWN - 1] + "…"


def warn_of_plain_secret(screen: Screen, sealer: Sealer, key: str, value: str) -> None:
    """Say that a secret is about to be stored as it is, where it is."""
    if not sealer.seals and not value.startswith(REFERENCE):
        screen.note(
            f"SHOAL_SECRET_KEY is not set: {key} is a secret and is stored unencrypted. Set the variable for all "
            "processes, or store a reference such as env:MY_KEY",
            "warn",
        )
