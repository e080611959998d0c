"""One place in a fleet: it holds one process, starts it again when it dies, and puts another in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from worker.fleet.child import Child, within

log = structlog.get_logger(__name__)


class Timing(Struct, frozen=True, kw_only=True):
    """How patient a supervisor is. Seconds."""

    first_wait_s: float = 1.0
    """Before a process that died is started again; it doubles with each death."""
    longest_wait_s: float = 30.0
    steady_s: float = 60.0
    """After so long a life, the next death counts as the first."""
    ready_within_s: float = 60.0
    """A replacement that is not ready by then is given up."""
    ahead_s: float = 10.0
    """At the start, the first process goes ahead of the others for so long at most."""
    memory_every_s: float = 3.0
    kill_after_s: float = 25.0
    """A draining process is killed so long after its grace period: after it would have ended itself, and said what held
    it (`worker.worker.GOODBYE_S` and `worker.fleet.last_resort.SPARE_S`)."""


class Backoff:
    """Waits that double, from the first to the longest; a long quiet time starts over."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._wait_s = 0.0
        self._last_at = time.monotonic()

    def next_s(self) -> float:
        """How long to wait this time."""
        now = time.monotonic()
        is_steady = now - self._last_at > self._timing.steady_s
        self._wait_s = self._timing.first_wait_s if is_steady or not self._wait_s else 2 * self._wait_s
        self._wait_s = min(self._wait_s, self._timing.longest_wait_s)
        self._last_at = now
        return self._wait_s


class Slot:
    """Keeps one process alive. `launch` starts one and sees to it that it is watched."""

    def __init__(
        self, index: int, launch: Callable[[int], Awaitable[Child]], stopping: asyncio.Event, timing: Timing
    ) -> None:
        self.index = index
        self.child: Child | None = None
        self.retired = False
        """No process is wanted here any more."""
        self._launch = launch
        self._stopping = stopping
        self._timing = timing
        self._changing = asyncio.Lock()
        self._deaths = Backoff(timing)
        self._replacements = Backoff(timing)
        self._replace_after = 0.0

    async def keep(self) -> None:
        """Run a process, again and again, until the fleet stops, an operator drains it, or the slot is retired."""
        while not (self._stopping.is_set() or self.retired):
            async with self._changing:
                child = self.child = self.child or await self._started()
            if child is None:
                await within(self._deaths.next_s(), self._stopping.wait())
                continue
            await child.ended.wait()
            if self.child is child:  # else another one took its place
                self.child = None
                await self._after(child)

    async def _after(self, child: Child) -> None:
        if self._stopping.is_set() or self.retired:
            return
        if child.was_drained:
            log.info("worker process left, as an operator asked", pid=child.pid)
            self.retired = True
            return
        wait_s = self._deaths.next_s()
        log.warning("worker process ended and is started again", pid=child.pid, exit_code=child.code, wait_s=wait_s)
        await within(wait_s, self._stopping.wait())

    async def _started(self) -> Child | None:
        """A new process; None if the system will not give one now."""
        try:
            return await self._launch(self.index)
        except OSError as error:
            log.warning("a worker process cannot be started", error=str(error))
            return None

    async def replace(self, old: Child | None, *, limit_s: float) -> bool:
        """Start a process, and when it is ready, let the `old` one drain; returns when that has ended.

        Does nothing if the slot holds another one by now. Says False if the new one did not become ready: then the old
        one stays.
        """
        async with self._changing:
            if old is None or self.child is not old or old.is_leaving:
                return True  # nobody to replace: whoever comes next is new anyway
            new = await self._started()
            if new is None:
                return False
            if not await self._becomes_ready(new):
                await new.leave(limit_s)
                return self._stopping.is_set()
            if old.was_drained or self.retired:
                await new.leave(limit_s)
                return True
            self.child = new
        log.info("the new worker process is ready, the old one drains", old_pid=old.pid, new_pid=new.pid)
        await old.leave(limit_s)
        return True

    def is_due(self) -> bool:
        """Whether a process that is too large may be replaced now. Not too often: a ceiling that is too low for any
        process would otherwise replace them all the time."""
        now = time.monotonic()
        if self._changing.locked() or now < self._replace_after:
            return False
        self._replace_after = now + self._replacements.next_s()
        return True

    async def _becomes_ready(self, child: Child) -> bool:
        waiting = [asyncio.ensure_future(event.wait()) for event in (child.settled, self._stopping)]
        try:
            await asyncio.wait(waiting, timeout=self._timing.ready_within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiting:
                waiter.cancel()
        return child.is_ready and not child.ended.is_set() and not self._stopping.is_set()
