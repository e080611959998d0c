"""One look at many runs: each is told when its own time is up, and only then."""

from __future__ import annotations

import asyncio
import time

from worker.time_limits import end_in_time

LIMIT_S = 30


class Run:
    """Notes in which order they were told."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.began_at = time.monotonic()
        self.is_limited = True
        self.heard_at = 0.0
        self._name, self._told, self._heard = name, told, asyncio.Event()

    def time_is_up(self) -> None:
        self._told.append(self._name)
        self.heard_at = time.monotonic()
        self.is_limited = False
        self._heard.set()

    async def heard(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await self._heard.wait()


async def test_those_that_have_not_ended_are_told_in_order() -> None:
    """Of five, the one that has ended and the one with a limit of its own hear nothing; the others do, one by one."""
    told = list[str]()
    first, ended, own = (Run(name, told) for name in ("first", "ended", "own"))
    runs = [first, ended, own]
    watching = asyncio.create_task(end_in_time(lambda: runs, 0.05))
    await asyncio.sleep(0.01)
    runs.remove(ended)
    own.is_limited = False
    later, final = Run("later", told), Run("final", told)
    runs += [later, final]
    await final.heard()
    watching.cancel()
    assert told == ["first", "later", "final"]


async def test_one_that_begins_when_nobody_is_left_has_its_whole_time() -> None:
    """The limit of runs that have ended is none for the next one, and it is told all the same."""
    told = list[str]()
    runs = [Run("gone", told)]
    watching = asyncio.create_task(end_in_time(lambda: runs, 0.2))
    await asyncio.sleep(0.1)
    runs[:] = [Run("next", told)]
    await runs[0].heard()
    watching.cancel()
    assert runs[0].heard_at - runs[0].began_at >= 0.2
    assert told == ["next"]
