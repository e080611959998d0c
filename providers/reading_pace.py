"""How soon an answer is read again, when so many come at once that the process can hardly keep up.

To read a socket and publish what it says costs about 22 µs, the text of one more chunk 2 µs (measured, 1,000 answers of
50 chunks a second). Network cards have the same trouble with packets, and a driver that is busy polls them instead of
being interrupted; so here a busy process lets each connection rest after a read, and then reads it without asking the
event loop whether there is something: mostly there is, several chunks.

Only connections without TLS, as within one's own network, can rest (`providers.verbatim_client` says why).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

LONGEST_REST_S = 0.04
"""Longer would be seen by those who read along."""
BUSY_SHARE = 0.75
"""Rests get longer while this thread uses more of a core than this, and shorter while it uses less. Above it, what
waits for the event loop's next turns waits longer than a rest would take (measured)."""
MANY_READS_PER_S = 5_000
"""Fewer are not what keeps the process busy, and gain nothing by a rest."""
SMALL_READ_BYTES = 4096
"""Whoever sends more at a time is in a hurry, and costs little per byte."""

_STEP_S = 0.005
_WINDOW_S = 0.02
_TICK_S = 0.002
_MOST_AT_ONCE = 64
"""Connections that are read in one turn of the event loop."""


class Resting(Protocol):
    """A connection that can rest."""

    def pause_reading(self) -> None:
        """The event loop does not read it any more."""
        ...

    def resume_reading(self) -> None:
        """The event loop reads it again."""
        ...

    def read_now(self) -> bool:
        """Read what came while it was resting; false if there was nothing, or something for the event loop to see."""
        ...


class ReadingPace:
    """The pace of all connections of one client, and the rests between their reads. Belongs to one event loop."""

    def __init__(self, *, cpu_s: Callable[[], float] = time.thread_time) -> None:
        """`cpu_s`: CPU time that the loop's thread has used, in seconds."""
        self.rest_s = 0.0
        """How long a connection rests at present."""
        self._loop = asyncio.get_running_loop()
        self._cpu_s = cpu_s
        self._window_began, self._cpu_then_s = self._loop.time(), cpu_s()
        self._reads = 0
        """In this window."""
        self._resting: deque[tuple[float, Resting]] = deque()

    def after_read(self, connection: Resting) -> None:
        """The event loop has read all that was there, and it was little: keep the connection from being read again for
        a while."""
        self._reads += 1
        now = self._loop.time()
        if now - self._window_began >= _WINDOW_S:
            self._adapt(now)
        if self.rest_s:
            connection.pause_reading()
            if not self._resting:
                self._loop.call_later(_TICK_S, self._tick)
            self._resting.append((now + self.rest_s, connection))

    def _adapt(self, now: float) -> None:
        """One step up or down: rests settle where about `BUSY_SHARE` of a core is used."""
        lasted_s, cpu_s = now - self._window_began, self._cpu_s()
        is_busy = cpu_s - self._cpu_then_s > BUSY_SHARE * lasted_s and self._reads > MANY_READS_PER_S * lasted_s
        self.rest_s = min(max(self.rest_s + (_STEP_S if is_busy else -_STEP_S), 0.0), LONGEST_REST_S)
        self._window_began, self._cpu_then_s, self._reads = now, cpu_s, 0

    def _tick(self) -> None:
        """One timer for all, because they are far more than its turns."""
        now, resting = self._loop.time(), self._resting
        if now - self._window_began >= _WINDOW_S:
            self._adapt(now)
        left = _MOST_AT_ONCE
        try:
            while left and resting and resting[0][0] <= now:
                left -= 1
                connection = resting.popleft()[1]
                if self.rest_s and connection.read_now():
                    self._reads += 1
                    resting.append((now + self.rest_s, connection))
                else:
                    connection.resume_reading()
        finally:  # should one raise all the same, the others must not rest for ever
            if resting:
                self._loop.call_later(_TICK_S if left else 0.0, self._tick)
