"""Notices, from a thread beside it, that the event loop is held up, and says by whom."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_stack

import structlog

from worker.health import HealthState
from worker.metrics import WorkerMetrics

TICK_S = 0.5
LOOK_EVERY_S = 0.5
WARN_AFTER_S = 3.0
STOOD_STILL_S = 3.0
"""A look that comes this late tells that the whole process was stopped, not its loop alone."""
FRAMES_SHOWN = 6

log = structlog.get_logger(__name__)


class LoopWatch:
    """Watches one event loop: `watching` is for that loop, `run` for another one in another thread.

    A loop that has not turned for `warn_after_s` is reported once, with the task that holds it, and once more as an
    error after `lease_s`. `metrics` and `health` are told all the while.
    """

    def __init__(
        self,
        metrics: WorkerMetrics,
        health: HealthState,
        *,
        lease_s: float,
        warn_after_s: float = WARN_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._lease_s = lease_s
        self._warn_after_s = warn_after_s
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._timer: asyncio.TimerHandle | None = None
        self._alive_at = self._looked_at = clock()
        self._warned = self._alarmed = False
        self.blocked_s = 0.0
        """How long the loop has not turned; 0 while it does. Time when the whole process stood still is left out."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the body runs, the running loop is the one that is watched."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._looked_at = self._clock()
        self._tick()
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _tick(self) -> None:
        assert self._loop is not None  # noqa: S101 - a tick belongs to a watched loop
        self._alive_at = self._clock()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Look at the loop once."""
        now = self._clock()
        since_last_s, self._looked_at = now - self._looked_at, now
        if since_last_s > LOOK_EVERY_S + STOOD_STILL_S:
            log.warning(
                "this process stood still: it was stopped, or native code kept all threads waiting",
                for_s=round(since_last_s, 1),
            )
            self._alive_at = now
        blocked_s = now - self._alive_at - TICK_S
        if blocked_s >= self._warn_after_s:
            counted_s = self._health.loop_blocked_s
            self._metrics.loop_blocked_s += blocked_s - counted_s
            self._health.loop_blocked_s = self.blocked_s = blocked_s
            self._complain()
            return
        if self._warned:
            log.warning("event loop turns again", blocked_s=round(self.blocked_s, 1))
        self._warned = self._alarmed = False
        self._health.loop_blocked_s = 0.0
        self.blocked_s = max(0.0, blocked_s)

    def _complain(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning("event loop blocked", **self._facts())
        if not self._alarmed and self.blocked_s >= self._lease_s:
            self._alarmed = True
            log.error("event loop blocked for longer than a lease: no task of this worker gets on", **self._facts())

    def _facts(self) -> dict[str, object]:
        assert self._loop is not None  # noqa: S101 - only a watched loop can be blocked
        task = asyncio.current_task(self._loop)
        frames = stack_of(self._thread)
        return {
            "by": task.get_name() if task else "a callback",
            "for_s": round(self.blocked_s, 1),
            "at": frames[0] if frames else "unknown",
            "called_from": frames[1:],
        }


def stack_of(thread: int) -> list[str]:
    """Where a thread is, as `file.py:41 function`, innermost first."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, and the only way to look into a thread
    if frame is None:
        return []
    return [
        f"{Path(inner.f_code.co_filename).name}:{line} {inner.f_code.co_qualname}"
        for (inner, line), _ in zip(walk_stack(frame), range(FRAMES_SHOWN), strict=False)
    ]
