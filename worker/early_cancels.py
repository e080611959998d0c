"""Cancels of tasks that no run has yet: the task may be on its way here, in the reply to a pull."""

from __future__ import annotations

import time
from collections.abc import Callable

ON_ITS_WAY_S = 30.0
"""A reply to a pull is never older. A cancel that is must not end a later life of the task, as after a requeue."""
MOST_KEPT = 1000


class EarlyCancels:
    """Remembers the latest of them for a short while."""

    __slots__ = ("_asked_at", "_clock")

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at: dict[str, float] = {}

    def add(self, task_id: str) -> None:
        """Somebody wants this task to end."""
        now = self._clock()
        self._asked_at.pop(task_id, None)
        self._asked_at[task_id] = now
        while (oldest := next(iter(self._asked_at.items()), None)) and (
            len(self._asked_at) > MOST_KEPT or now - oldest[1] >= ON_ITS_WAY_S
        ):
            del self._asked_at[oldest[0]]

    def take(self, task_id: str) -> bool:
        """Whether this task, which has just arrived, shall end at once."""
        if not self._asked_at:
            return False
        asked_at = self._asked_at.pop(task_id, None)
        return asked_at is not None and self._clock() - asked_at < ON_ITS_WAY_S
