"""Runs plain functions in threads of their own.

A thread cannot be killed. Here it is a daemon, so that one that hangs blocks neither the end of the process nor the
event loop's own thread pool, and hanging ones count against the limit until they end.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class Threads:
    """At most `limit` functions at once."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)

    async def run(self, function: Callable[[], _T], *, name: str) -> _T:
        """Run the function and return or raise what it does. After a cancel the function goes on, unheard."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(value: _T | None, error: BaseException | None) -> None:
            self._free.release()
            if answer.done():
                return
            if error is None:
                answer.set_result(value)  # type: ignore[arg-type]  # without an error there is a value
            else:
                answer.set_exception(_carriable(error))

        def work() -> None:
            value, error = None, None
            try:
                value = context.run(function)
            except BaseException as raised:  # noqa: BLE001  it is raised again, where the caller waits
                error = raised
            try:
                loop.call_soon_threadsafe(deliver, value, error)
            except RuntimeError:
                return  # the loop is closed: nobody is left to tell

        threading.Thread(target=work, name=name, daemon=True).start()
        return await answer


def _carriable(error: BaseException) -> BaseException:
    """A future cannot carry StopIteration."""
    if isinstance(error, StopIteration):
        wrapped = RuntimeError(f"the function raised StopIteration({error.value!r})")
        wrapped.__cause__ = error
        return wrapped
    return error
