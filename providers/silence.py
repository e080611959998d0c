"""A time limit on waiting that costs next to nothing per wait."""

from __future__ import annotations

import asyncio

LATE_S = 0.5
"""A timer that fires so late tells that the loop, or the whole process, stood still. What came meanwhile is in the
socket, and is read before anybody may speak of silence."""


class SilenceLimit:
    """Ends a wait that takes longer than `limit_s`, by one timer for many waits.

    `asyncio.timeout` sets and clears a timer around each wait, which is a third of the cost of a streamed chunk. Here
    a wait only notes its beginning; the one timer looks at that note when it fires, and sets itself again if needed.

        limit.begin()
        try:
            data = await something()
        except asyncio.CancelledError:
            if limit.ended_it():
                raise ...
            raise
        finally:
            limit.end()
    """

    def __init__(self, limit_s: float, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._limit_s = limit_s
        self._loop = loop or asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._since = 0.0
        self._due = 0.0
        self._cancels = 0
        """How often the task had been cancelled when it began to wait: what counts when both end the same wait."""
        self._has_ended_it = False

    def begin(self) -> None:
        """The current task starts to wait."""
        self._task = task = asyncio.current_task()
        if task is not None:
            self._cancels = task.cancelling()
        self._since = self._loop.time()
        if self._timer is None:
            self._look_in(self._limit_s)

    def heard(self) -> None:
        """Something came, and the wait goes on."""
        self._since = self._loop.time()

    def end(self) -> None:
        """The wait is over."""
        self._task = None

    def ended_it(self) -> bool:
        """Whether the cancellation just caught is this limit's alone; if so, it is taken back."""
        if not self._has_ended_it or self._task is None:
            return False
        self._has_ended_it = False
        return self._task.uncancel() <= self._cancels

    def close(self) -> None:
        """Clear the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return  # nobody waits now: the next wait sets the timer
        now = self._loop.time()
        left_s = self._since + self._limit_s - now
        if left_s > 0:
            self._look_in(left_s)
        elif now - self._due > LATE_S:
            self._look_in(min(self._limit_s, LATE_S))
        else:
            self._has_ended_it = True
            self._task.cancel()

    def _look_in(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._look)
