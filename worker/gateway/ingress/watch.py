"""A submitted task as its client watches it: until its end, or until the client goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import structlog
from starlette.requests import ClientDisconnect

from queue_backends import Chunk, ChunkType, QueueError, TaskState
from worker.gateway.ingress.narration import Failed, failure_in
from worker.gateway.ingress.submission import Submitted
from worker.gateway.operation import Call
from worker.gateway.problem import Problem, shutting_down

T = TypeVar("T")

CANCEL_LIMIT_S = 10.0
"""So long may it take to cancel a task whose client has gone."""

log = structlog.get_logger(__name__)


class Watch:
    """The chunks of one task for one client. Closed before the end, it cancels the task, unless that is kept."""

    def __init__(self, call: Call, task: Submitted) -> None:
        self._call = call
        self._task = task
        self._chunks = call.gateway.hub.follow(task.task_id)
        self._first: asyncio.Task[Chunk | None] | None = None
        self._has_ended = False
        self.failure: Failed | None = None
        """How the run failed, if it did."""
        self._is_closed = False

    async def first(self, *, at_most_s: float | None = None) -> Chunk | None:
        """The first chunk, as soon as it is there; None if it is not within `at_most_s`.

        Raises `Problem` 503 if no worker has taken the task within the gateway's limit, and what following raises.
        """
        if self._first is None:
            self._first = asyncio.create_task(self._begin(), name=f"first chunk of {self._task.task_id}")
        limit_s = self._start_limit_s()
        if at_most_s is not None and (not limit_s or at_most_s < limit_s):
            await asyncio.wait([self._first], timeout=at_most_s)
            return self._begun() if self._first.done() else None
        if limit_s:
            await asyncio.wait([self._first], timeout=limit_s)
            if not self._first.done():
                await self._check_started(limit_s)
        await asyncio.wait([self._first])
        return self._begun()

    async def _begin(self) -> Chunk | None:
        return await anext(self._chunks, None)

    def _begun(self) -> Chunk:
        assert self._first is not None  # noqa: S101 - asked only once it is done
        if (chunk := self._first.result()) is None:
            raise shutting_down()
        return chunk

    def _start_limit_s(self) -> float:
        return 0.0 if self._task.may_wait else self._call.gateway.settings.gateway.start_timeout_s

    async def _check_started(self, limit_s: float) -> None:
        [status] = await self._call.gateway.backend.queue.status([self._task.task_id])
        if status.state is not TaskState.READY:
            return
        then = "it stays in the queue: ask again with the same key" if self._task.is_kept else "it was cancelled"
        raise Problem(
            503,
            f"no worker has taken the task within {limit_s:g} s, {then}. Are there workers? `shoal workers` tells",
            code="no_worker",
            headers={"Retry-After": "5"},
        )

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """All chunks, to the final one."""
        first = await self.first()
        if first is None:
            return
        yield self._seen(first)
        if first.is_final:
            return
        async for chunk in self._chunks:
            yield self._seen(chunk)

    def _seen(self, chunk: Chunk) -> Chunk:
        if chunk.is_final:
            self._has_ended = True
            if chunk.type is ChunkType.ERROR:
                self.failure = failure_in(chunk)
        return chunk

    async def close(self) -> None:
        """Watch no more; a task that has not ended and is not kept is cancelled."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._first is not None:
            self._first.cancel()
            await asyncio.wait([self._first])
        await self._chunks.aclose()
        if not self._has_ended and not self._task.is_kept:
            await self._cancel()

    async def _cancel(self) -> None:
        task_id = self._task.task_id
        try:
            async with asyncio.timeout(CANCEL_LIMIT_S):
                await self._call.gateway.backend.queue.cancel([task_id])
        except (QueueError, TimeoutError) as error:
            log.warning("a task whose client has gone could not be cancelled", task=task_id, error=str(error))


async def in_one_piece(call: Call, watch: Watch, work: Coroutine[Any, Any, T]) -> T:
    """What `work` makes of a watched task, which is closed then. Raises as `unless_client_leaves`."""
    try:
        return await unless_client_leaves(call, work)
    finally:
        await watch.close()


async def unless_client_leaves(call: Call, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; it is ended when the client closes its connection. Raises `ClientDisconnect` then."""
    working = asyncio.create_task(work, name="answer")
    leaving = asyncio.create_task(_left(call), name="the client's end")
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait([working, leaving])


async def _left(call: Call) -> None:
    while (await call.request.receive())["type"] != "http.disconnect":
        pass
