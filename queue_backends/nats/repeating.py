"""Trying again what somebody else has disturbed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from queue_backends.errors import BackendUnavailable
from queue_backends.nats.refusals import Conflict

MOST_TRIES = 50
FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.1

T = TypeVar("T")


def pauses() -> Iterator[float]:
    """How long to wait before each repetition, at random, so that two who disturb each other part."""
    pause_s = FIRST_PAUSE_S
    for _ in range(MOST_TRIES):
        yield random.uniform(0, pause_s)  # noqa: S311 - spreads load, guards nothing
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def until_as_expected(attempt: Callable[[], Awaitable[T]], what: str) -> T:
    """Repeat what reads and then writes until nobody has changed what it had read. Raises `BackendUnavailable`."""
    for pause_s in pauses():
        try:
            return await attempt()
        except Conflict:
            await asyncio.sleep(pause_s)
    raise BackendUnavailable(f"{what}: others kept changing the same records, {MOST_TRIES} times: try again")
