"""How long to wait between attempts to reach something that is down."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable


class Backoff:
    """Waits that double from `first_s` to `longest_s`, with jitter. A wait can be cut short down to `first_s`."""

    def __init__(
        self,
        *,
        first_s: float = 0.25,
        longest_s: float = 30.0,
        steady_s: float = 10.0,
        random: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What worked for less than `steady_s` before it failed counts as having failed again."""
        self._first_s = first_s
        self._longest_s = longest_s
        self._steady_s = steady_s
        self._random = random
        self._clock = clock
        self._next_s = first_s
        self._worked_since: float | None = None
        self._woken = asyncio.Event()

    def reset(self) -> None:
        """Note that it works from now on."""
        self._worked_since = self._clock()

    def wake(self) -> None:
        """Somebody needs it now: end the present wait early."""
        self._woken.set()

    def next_wait_s(self) -> float:
        """How long the next wait is; the one after it is twice as long. At least half of it is certain."""
        if self._worked_since is not None and self._clock() - self._worked_since >= self._steady_s:
            self._next_s = self._first_s
        self._worked_since = None
        wait_s = self._next_s * (0.5 + self._random() / 2)
        self._next_s = min(self._next_s * 2, self._longest_s)
        return wait_s

    async def wait(self) -> None:
        """Wait before the next attempt."""
        wait_s = self.next_wait_s()
        # The first part is never cut short, so that many callers cannot make the attempts follow without a pause.
        floor_s = min(wait_s, self._first_s / 2)
        await asyncio.sleep(floor_s)
        try:
            async with asyncio.timeout(wait_s - floor_s):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
