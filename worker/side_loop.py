"""A second event loop, in a thread of its own, for what must go on while the main one is held up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

STOP_WITHIN_S = 5.0

T = TypeVar("T")


class SideLoop:
    """Use it with `async with`. What runs here must not touch what belongs to the main loop, but through
    `call_soon_threadsafe`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._home: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    async def __aenter__(self) -> Self:
        self._home, self._ended = asyncio.get_running_loop(), asyncio.Event()
        # A daemon: a thread that hangs must not keep the process from ending.
        threading.Thread(target=self._turn, name=self._name, daemon=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ended is not None  # noqa: S101 - it was entered
        self._loop.call_soon_threadsafe(self._loop.stop)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._ended.wait()

    def _turn(self) -> None:
        assert self._ended is not None  # noqa: S101 - it was entered
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            self._tell(self._ended.set)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` there and return or raise what it does. Cancelling this cancels it there, and waits for its end."""
        ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        jobs: list[asyncio.Task[T]] = []

        def begin() -> None:
            job = self._loop.create_task(work)
            jobs.append(job)
            job.add_done_callback(lambda job: self._tell(_hand_over, job, ended))

        self._loop.call_soon_threadsafe(begin)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(lambda: jobs[0].cancel())  # after `begin`, in the order of these calls
            await asyncio.wait([ended], timeout=STOP_WITHIN_S)
            if ended.done() and not ended.cancelled():
                ended.exception()  # it has been looked at; the cancellation is what counts
            raise

    def _tell(self, what: Any, *args: Any) -> None:
        assert self._home is not None  # noqa: S101 - it was entered
        with contextlib.suppress(RuntimeError):  # the main loop is closed: nobody is left to tell
            self._home.call_soon_threadsafe(what, *args)


def _hand_over(job: asyncio.Task[T], ended: asyncio.Future[T]) -> None:
    if ended.done():
        return
    if job.cancelled():
        ended.cancel()
    elif error := job.exception():
        ended.set_exception(error)
    else:
        ended.set_result(job.result())
