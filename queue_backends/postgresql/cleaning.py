"""Deleting what has outlived its time, in small steps, from whichever processes use the queue."""

from __future__ import annotations

import asyncio
import contextlib
import random

import structlog

from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.interfaces import BackendOptions
from queue_backends.postgresql.connections import Connections

EVERY_S = 30.0
AT_ONCE = 500
"""Rows of one step: it is short, and holds up nobody."""
MOST_STEPS = 40
"""Of one kind, each time."""
WRITES_PER_TALLY = 100
"""After so many writes of one process the sums of changes are added up, so that they are never many."""
TALLIES_AT_ONCE = 5000

_KINDS = ("results", "idempotency", "keys", "records", "windows", "counters", "streams")

log = structlog.get_logger(__name__)


class Cleaner:
    """Cleans for one process, once it has been started by something to clean."""

    def __init__(self, connections: Connections, queue_id: int, options: BackendOptions) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._options = options
        self._burials_per_trim = max(1, options.dead_limit // 20)
        self._writes = 0
        self._burials = 0
        self._wanted = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on, clean every half minute."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="postgresql cleaner")

    def wrote(self) -> None:
        """This process has changed how many tasks are in which state."""
        self._writes += 1
        if self._writes == WRITES_PER_TALLY:
            self.start()
            self._wanted.set()

    def buried(self) -> None:
        """This process has written a dead letter."""
        self._burials += 1
        if self._burials == self._burials_per_trim:
            self.start()
            self._wanted.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_at = loop.time() + random.uniform(0, EVERY_S)  # noqa: S311 - spreads processes, keeps no secret
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_at):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._settle()
                if loop.time() >= next_at:
                    next_at = loop.time() + EVERY_S
                    await self.clean()
            except BackendUnavailable:
                continue  # whoever has something to write says so
            except QueueError as error:
                log.warning("cannot clean up, trying again", error=str(error))

    async def _settle(self) -> None:
        """Add up the changes, and let the oldest dead letters go."""
        if self._writes >= WRITES_PER_TALLY:
            self._writes = 0
            await self.tally()
        if self._burials >= self._burials_per_trim:
            self._burials = 0
            await self._step_by_step("trim_dead", {"keep": self._options.dead_limit})

    async def tally(self) -> None:
        """Add up what changed."""
        await self._connections.execute("tally", {"queue": self._queue_id, "limit": TALLIES_AT_ONCE})

    async def clean(self) -> int:
        """Delete what has expired, a bounded amount of it; returns how many rows."""
        await self.tally()
        parameters = {"keep": float(self._options.result_retention_s)}
        return sum([await self._step_by_step(f"clean_{kind}", parameters) for kind in _KINDS])

    async def _step_by_step(self, name: str, parameters: dict[str, float]) -> int:
        deleted = 0
        for _ in range(MOST_STEPS):
            ((count,),) = await self._connections.execute(
                name, {"queue": self._queue_id, "limit": AT_ONCE, **parameters}
            )
            deleted += count
            if count < AT_ONCE:
                break
        return deleted

    async def close(self) -> None:
        """Clean no more."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
