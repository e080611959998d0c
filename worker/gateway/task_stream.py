"""A task's chunks as server-sent events: `id` is the chunk's `seq`, `data` its JSON.

After the final chunk the stream ends. A browser then connects again by itself, says what it had last, and is told by
204 that there is nothing more. What goes wrong once the stream has begun is told by an event named `problem`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.responses import Response

from queue_backends import QueueError, ReplayTrimmed, TaskState
from queue_backends.messages import encode_json
from worker.gateway.errors import problem_of
from worker.gateway.operation import Call
from worker.gateway.ownership import owned_status
from worker.gateway.problem import Problem
from worker.gateway.sse import last_event_id, sse_response
from worker.gateway.sse_event import encode_event

_ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
_BEGIN_WITHIN_S = 0.25
"""So long the answer's head waits for a first chunk or an error, where a task goes on."""
_REPLAY_WITHIN_S = 10.0
_MOST_DIGITS = 16


async def stream_task(call: Call, task_id: str) -> Response:
    """The response; 204 if the client has had everything. Raises `TaskNotFound`, `ReplayTrimmed`, and `Problem` 400
    for a `Last-Event-ID` that is none of ours."""
    after_seq = _after_seq(call)
    status = await owned_status(call, task_id)
    events = call.gateway.hub.follow_events(task_id, after_seq=after_seq)
    begun = _Begun(events)
    try:
        await begun.begin(_REPLAY_WITHIN_S if status.state in _ENDED else _BEGIN_WITHIN_S)
    except ReplayTrimmed as error:
        await begun.aclose()
        raise _trimmed(error) from error
    except BaseException:
        await begun.aclose()
        raise
    if begun.is_empty:
        return Response(status_code=204)
    return sse_response(begun, heartbeat_s=call.gateway.settings.gateway.heartbeat_s)


def _after_seq(call: Call) -> int:
    last = last_event_id(call.request)
    if not last:
        after_seq: int = call.query.after_seq
        return after_seq
    if not (last.isascii() and last.isdigit() and len(last) < _MOST_DIGITS):
        raise Problem(400, f"Last-Event-ID is {last[:100]!r}: it must be the id of an event of this stream")
    return int(last)


class _Begun:
    """A stream whose first event, or error, has been looked at. An error that comes later is its last event."""

    def __init__(self, source: AsyncGenerator[bytes, None]) -> None:
        self._source = source
        self._first: asyncio.Task[bytes | None] | None = None
        self._is_over = False

    async def begin(self, within_s: float) -> None:
        """Wait for the first event. Raises what the source raises."""
        self._first = asyncio.create_task(self._next(), name="first event of a stream")
        await asyncio.wait([self._first], timeout=within_s)
        if self._first.done():
            self._first.result()

    @property
    def is_empty(self) -> bool:
        """Whether it is over, without any event."""
        return self._first is not None and self._first.done() and self._first.result() is None

    def __aiter__(self) -> _Begun:
        return self

    async def __anext__(self) -> bytes:
        if self._is_over:
            raise StopAsyncIteration
        try:
            first, self._first = self._first, None
            event = await (first or self._next())
        except QueueError as error:
            self._is_over = True
            return _problem_event(error)
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Give the stream up."""
        if self._first is not None:
            self._first.cancel()
            await asyncio.wait([self._first])
            self._first = None
        await self._source.aclose()

    async def _next(self) -> bytes | None:
        return await anext(self._source, None)


def _trimmed(error: ReplayTrimmed) -> Problem:
    detail = f"chunks before seq {error.first_seq} are no longer kept: ask for those after {error.first_seq - 1}"
    return Problem(410, detail, code="replay_trimmed", extra={"first_seq": error.first_seq})


def _problem_event(error: QueueError) -> bytes:
    problem = _trimmed(error) if isinstance(error, ReplayTrimmed) else problem_of(error)
    problem = problem or Problem(500, "the stream has failed")
    body = {"title": problem.title, "status": problem.status, "detail": problem.detail, "code": problem.code}
    body |= problem.extra
    return encode_event(encode_json(body), event="problem")
