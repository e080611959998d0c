"""The time limit of all runs, by one timer: hardly any run ever reaches it, so what counts is its price."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Limited(Protocol):
    """What takes only so long."""

    def time_is_up(self) -> None:
        """The limit is reached."""
        ...


class TimeLimits:
    """Tells each run when its time is up. A timer for each run would cost 2 µs a task (measured), and its memory.

    All have the same limit, so they come to it in the order in which they began.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._due: dict[Limited, float] = {}
        """Runs and the loop's time at which each is due, the first one in front."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, run: Limited) -> None:
        """Its time runs from now on."""
        loop = asyncio.get_running_loop()
        self._due[run] = loop.time() + self.limit_s
        if self._timer is None:
            self._timer = loop.call_later(self.limit_s, self._look)

    def end(self, run: Limited) -> None:
        """It does not need its limit any more."""
        self._due.pop(run, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        while self._due:
            run, due = next(iter(self._due.items()))
            if due > now:
                self._timer = loop.call_at(due, self._look)
                return
            del self._due[run]
            run.time_is_up()
