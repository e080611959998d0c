"""A vendor's stream of events: made of a watched task, begun when there is something to say, ended with the client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Self

import structlog
from starlette.responses import Response

from queue_backends import Chunk
from worker.gateway.errors import error_response, internal_problem, problem_of
from worker.gateway.ingress.failures import problem_of_failure
from worker.gateway.ingress.narration import Failed, Narrator
from worker.gateway.ingress.watch import Watch, unless_client_leaves
from worker.gateway.operation import Call
from worker.gateway.problem import ErrorStyle, Problem
from worker.gateway.sse import SseEvent, sse_response

HOLD_S = 20.0
"""So long an answer's headers wait for the first chunk: an error that comes before is an HTTP status. After that the
stream begins, and heartbeats keep it open."""

REFUSED = "Refused"
"""The error of a run whose model declined to answer: vendors take that for an answer."""

Events = AsyncGenerator[SseEvent, None]

log = structlog.get_logger(__name__)


async def streamed(call: Call, watch: Watch, render: Callable[[AsyncGenerator[Chunk, None]], Events]) -> Response:
    """The response that sends what `render` makes of the chunks. Raises what keeps it from beginning."""
    try:
        _check_begun(call, await unless_client_leaves(call, watch.first(at_most_s=HOLD_S)))
    except BaseException:
        await watch.close()
        raise
    heartbeat_s = call.gateway.settings.gateway.heartbeat_s
    return sse_response(WatchedEvents(watch, render(watch.chunks())), heartbeat_s=heartbeat_s, retry_ms=None)


def _check_begun(call: Call, first: Chunk | None) -> None:
    for event in Narrator().events(first) if first is not None and first.is_final else ():
        if isinstance(event, Failed) and event.error_type != REFUSED:
            raise problem_of_failure(event, style_of_call(call))


class WatchedEvents:
    """Events, and the watch that they come from: closing the one closes the other, even before the first event."""

    def __init__(self, watch: Watch, events: Events) -> None:
        self._watch = watch
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SseEvent:
        return await anext(self._events)

    async def aclose(self) -> None:
        """The client has gone, or has everything."""
        try:
            await self._events.aclose()
        finally:
            await self._watch.close()


def style_of_call(call: Call) -> ErrorStyle:
    """In whose form the client of a call expects errors."""
    style: ErrorStyle = call.request.state.operation.style
    return style


def problem_in_stream(call: Call, error: Exception) -> Problem:
    """What is told of an error after the stream has begun."""
    if (problem := problem_of(error)) is not None:
        return problem
    log.error("a stream failed", path=call.request.url.path, exc_info=error)
    return internal_problem()


def when_cut_off(call: Call, told: Callable[[Problem], SseEvent]) -> None:
    """What a stream says last if the gateway ends it: the vendors' clients take what just stops for a whole answer."""

    def last_word(why: str) -> bytes:
        return told(Problem(503, f"{why}: what has come is not all of it", code="shutting_down")).encode()

    call.request.state.last_word = last_word


def problem_body(call: Call, problem: Problem) -> bytes:
    """A problem as its vendor writes it."""
    response = error_response(problem, style_of_call(call), call.request.state.request_id)
    return bytes(response.body)
