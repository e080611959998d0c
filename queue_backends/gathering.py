"""Single items that are submitted at the same time travel together: those that come while a call is under way go in the
next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from queue_backends.batching import batches
from queue_backends.errors import QueueError, QueueFull

T = TypeVar("T")


class _Submission(NamedTuple, Generic[T]):
    """An item on its way in, and whoever waits for its id."""

    item: T
    accepted: asyncio.Future[str]


class Gatherer(Generic[T]):
    """Adds items one by one for those who submit them, and several at a time for the engine.

    Measured on Redis with 100 callers at once: more than four times as many tasks per second as with a call for each.
    """

    def __init__(self, add: Callable[[Sequence[T]], Awaitable[list[str]]], size_of: Callable[[T], int]) -> None:
        """`add` returns the ids in order, or raises and has added nothing; `size_of` bounds what goes in one call."""
        self._add = add
        self._size_of = size_of
        self._waiting: list[_Submission[T]] = []
        self._sending: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> str:
        """The item's id, once it is accepted. Raises what `add` raises."""
        accepted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Submission(item, accepted))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name="submit")
        return await accepted

    async def close(self, timeout_s: float) -> None:
        """Let what is on its way arrive."""
        if self._sending is not None and not self._sending.done():
            await asyncio.wait([self._sending], timeout=timeout_s)

    async def _send_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for batch in batches(waiting, lambda submission: self._size_of(submission.item)):
                await self._send(batch)

    async def _send(self, batch: Sequence[_Submission[T]]) -> None:
        try:
            ids = await self._add([submission.item for submission in batch])
        except QueueFull as error:
            if len(batch) == 1:
                _refuse(batch, error)
            for submission in batch if len(batch) > 1 else ():  # some of them may fit
                await self._send([submission])
        except QueueError as error:
            _refuse(batch, error)
        except BaseException:
            for submission in batch:
                submission.accepted.cancel()
            raise
        else:
            for submission, item_id in zip(batch, ids, strict=True):
                if not submission.accepted.done():
                    submission.accepted.set_result(item_id)


def _refuse(batch: Sequence[_Submission[T]], error: QueueError) -> None:
    """Each caller gets an exception of its own, for its own traceback."""
    for submission in batch:
        if not submission.accepted.done():
            submission.accepted.set_exception(type(error)(str(error)))
