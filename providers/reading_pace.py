"""How soon an answer is read again, when so many come at once that the process can hardly keep up.

To read a socket, wake a run and publish what it says costs about 30 µs, the text of one more chunk 2 µs (measured,
1,000 answers of 50 chunks a second). Network cards have the same trouble with packets, and moderate their interrupts;
so here a busy process lets each connection rest after a read, and finds several chunks there when it comes back.

Only connections without TLS, as within one's own network, can rest (`providers.verbatim_client` says why).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

LONGEST_REST_S = 0.05
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
        self._resting: deque[tuple[float, asyncio.ReadTransport]] = deque()

    def after_read(self, transport: asyncio.ReadTransport) -> None:
        """All that was there was read, and it was little: keep the connection from being read again for a while."""
        self._reads += 1
        now = self._loop.time()
        if now - self._window_began >= _WINDOW_S:
            self._adapt(now)
        if self.rest_s:
            transport.pause_reading()
            if not self._resting:
                self._loop.call_later(_TICK_S, self._tick)
            self._resting.append((now + self.rest_s, transport))

    def _adapt(self, now: float) -> None:
        """One step up or down: rests settle where about `BUSY_SHARE` of a core is used."""
        lasted_s, cpu_s = now - self._window_began, self._cpu_s()
        is_busy = cpu_s - self._cpu_then_s > BUSY_SHARE * lasted_s and self._reads > MANY_READS_PER_S * lasted_s
        self.rest_s = min(max(self.rest_s + (_STEP_S if is_busy else -_STEP_S), 0.0), LONGEST_REST_S)
        self._window_began, self._cpu_then_s, self._reads = now, cpu_s, 0

    def _tick(self) -> None:
        """One timer for all, because they are far more than its turns."""
        now, resting = self._loop.time(), self._resting
        try:
            while resting and resting[0][0] <= now:
                resting.popleft()[1].resume_reading()  # does nothing to one that is closed
        finally:  # should one raise all the same, the others must not rest for ever
            if resting:
                self._loop.call_later(_TICK_S, self._tick)
