"""The time, as triggers see it. Tests bring one of their own."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> float:
        """Unix seconds."""
        ...

    async def wait(self, news: asyncio.Event, until: float) -> None:
        """Return when there is news, or at that moment, or a little before: who calls looks at the time himself."""
        ...


class WallClock:
    """The machine's clock."""

    longest_wait_s = 60.0
    """The clock may be set, and the machine may sleep: a timer alone would be late by as much."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    async def wait(self, news: asyncio.Event, until: float) -> None:
        """As `Clock.wait`."""
        try:
            async with asyncio.timeout(min(max(0.0, until - self.now()), self.longest_wait_s)):
                await news.wait()
        except TimeoutError:
            return
