"""Deliveries under way: many at once, but few to the same host, and none that outlives the work it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from worker.background import heed_cancellation
from worker.deliveries.line import HostLine

log = structlog.get_logger(__name__)


class Deliveries:
    """Begins each delivery when its turn has come: at most `most` at a time, and `most_of_one` to the same host."""

    def __init__(self, deliver: Callable[[str], Awaitable[None]], *, most: int, most_of_one: int, what: str) -> None:
        """`deliver` is called with the key of each; `what` it is, in the words of the log."""
        self._deliver = deliver
        self._most = most
        self._most_of_one = most_of_one
        self._what = what
        self._line = HostLine(most=most, most_of_one=most_of_one)
        self._tasks: asyncio.TaskGroup | None = None

    def __contains__(self, key: str) -> bool:
        """Whether it waits for its turn, or is under way."""
        return key in self._line

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """While entered, what is added is delivered. Leaving it by an error or a cancellation ends what is under way,
        and forgets what waits."""
        self._line = HostLine(most=self._most, most_of_one=self._most_of_one)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                yield
        finally:
            self._tasks = None

    def add(self, key: str, host: str) -> None:
        """Deliver it as soon as there is room; does nothing if it waits already."""
        self._line.add(key, host)
        self._begin_next()

    def _begin_next(self) -> None:
        if self._tasks is None:
            raise RuntimeError(f"no {self._what} can be delivered: `going_on` is not entered")
        while (key := self._line.take()) is not None:
            self._tasks.create_task(self._one(key), name=f"{self._what} {key}")

    async def _one(self, key: str) -> None:
        try:
            await self._deliver(key)
        except Exception:  # whatever it is, the others go on
            log.exception("a delivery has failed", what=self._what, key=key)
        finally:
            self._line.leave(key)
        heed_cancellation()  # a delivery may have made an error of it, or an end
        self._begin_next()
