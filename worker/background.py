"""Work that goes on beside everything else, from the moment it is started until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

STOP_WITHIN_S = 30.0
"""Work that has not ended by then is left alone: somebody's code swallows the cancellation."""

log = structlog.get_logger(__name__)


class BackgroundWork:
    """A piece of endless work as a task: from `start` to `stop`, or while it is entered (`async with`).

    A service whose whole work this is derives from it. Nobody waits for endless work, so an error that ends it is
    logged at once, with its traceback, and not only when it is stopped.
    """

    def __init__(self, job: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> None:
        """`job` is called by each `start`; `name` is the task's, and what the log calls it."""
        self._job = job
        self._job_name = name
        self._at_work: asyncio.Task[None] | None = None
        self._is_told = False
        """To end."""

    def start(self) -> None:
        """Begin. Raises `RuntimeError` if it was started and not stopped."""
        if self._at_work is not None:
            raise RuntimeError(f"the work {self._job_name!r} was started before: stop it first")
        self._is_told = False
        self._at_work = asyncio.create_task(self._job(), name=self._job_name)
        self._at_work.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancel it, and return when it has cleaned up, after `STOP_WITHIN_S` at most. Does nothing if it was not
        started."""
        task = self._at_work
        if task is None:
            return
        if not self._is_told:  # else it cleans up already, for another one who stops it
            self._is_told = True
            task.cancel()
        _, still_working = await asyncio.wait([task], timeout=STOP_WITHIN_S)
        if self._at_work is task:
            self._at_work = None
        if still_working:
            log.error("work in the background does not end though it was told to", work=self._job_name)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work in the background has failed and stands still", work=self._job_name, exc_info=error)


def heed_cancellation() -> None:
    """For work that goes on whatever has become of a part of it. Raises `CancelledError` if this task was cancelled
    meanwhile: a task group forgets that when a child of it fails just then, and so may other people's code."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
