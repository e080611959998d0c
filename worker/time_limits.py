"""The time limit of all runs, by one look at them: hardly any run ever reaches it, so what counts is its price."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol


class Limited(Protocol):
    """What takes only so long."""

    began_at: float
    """By the monotonic clock."""

    @property
    def is_limited(self) -> bool:
        """Whether the limit counts for it now."""
        ...

    def time_is_up(self) -> None:
        """The limit is reached."""
        ...


async def end_in_time(runs: Callable[[], Iterable[Limited]], limit_s: float) -> None:
    """Tell each run when its time is up, until cancelled.

    `runs` gives those that go on now, in the order in which they began. As all have the same limit, that is the order
    in which they come to it, and nobody need be told of their beginnings and ends: a timer for each run would cost 2 µs
    a task (measured), and its memory.
    """
    while True:
        now = time.monotonic()
        next_look_at = now + limit_s  # whatever begins from now on
        for run in runs():
            if run.is_limited:
                due_at = run.began_at + limit_s
                if due_at > now:
                    next_look_at = due_at
                    break
                run.time_is_up()
        await asyncio.sleep(next_look_at - now)
