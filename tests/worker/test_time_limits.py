"""One timer for many runs: each is told when its own time is up, and only then."""

from __future__ import annotations

import asyncio

from worker.time_limits import TimeLimits

LIMIT_S = 30


class Run:
    """Notes in which order they were told."""

    def __init__(self, name: str, told: list[str], heard: asyncio.Event) -> None:
        self._name, self._told, self._heard = name, told, heard

    def time_is_up(self) -> None:
        self._told.append(self._name)
        self._heard.set()


async def test_those_that_have_not_ended_are_told_in_order() -> None:
    """Of three, the one that ends in time hears nothing; the timer goes on to the next one that is due."""
    limits, told, last = TimeLimits(0.05), list[str](), asyncio.Event()
    first, ended, later = (Run(name, told, asyncio.Event()) for name in ("first", "ended", "later"))
    final = Run("final", told, last)
    limits.begin(first)
    limits.begin(ended)
    limits.end(ended)
    await asyncio.sleep(0.01)
    limits.begin(later)
    limits.begin(final)
    async with asyncio.timeout(LIMIT_S):
        await last.wait()
    assert told == ["first", "later", "final"]


async def test_one_that_begins_when_nobody_is_left_has_its_whole_time() -> None:
    """The timer of runs that have ended is no limit for the next one."""
    limits, told, heard = TimeLimits(0.2), list[str](), asyncio.Event()
    gone = Run("gone", told, heard)
    limits.begin(gone)
    limits.end(gone)
    await asyncio.sleep(0.1)
    began = asyncio.get_running_loop().time()
    limits.begin(Run("next", told, heard))
    async with asyncio.timeout(LIMIT_S):
        await heard.wait()
    assert asyncio.get_running_loop().time() - began >= 0.2 - 0.001
    assert told == ["next"]
