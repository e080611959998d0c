"""A response that sends server-sent events: with heartbeats, a limit for slow clients, and a clean end.

It costs two asyncio tasks a client and one timer that looks after it every few seconds, whatever the number of events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from worker.gateway.sse_event import SseEvent, encode_event

__all__ = ["SseEvent", "SseResponse", "encode_event", "sse_response"]

HEARTBEAT_S = 15.0
SLOW_CLIENT_S = 30.0
"""Who takes nothing for so long, while there is something for it, is dropped. It can come back and resume."""
RETRY_MS = 1000
"""So long a browser waits before it connects again."""
ABORT_EXTENSION = "shoal.abort"
"""In the scope's `extensions`: ends the connection at once, whatever is still to be sent."""

_HEARTBEAT = b": still here\n\n"

log = structlog.get_logger(__name__)


def sse_response(
    events: AsyncIterator[SseEvent | bytes],
    *,
    heartbeat_s: float = HEARTBEAT_S,
    slow_client_s: float = SLOW_CLIENT_S,
    headers: Mapping[str, str] | None = None,
    retry_ms: int | None = RETRY_MS,
) -> Response:
    """A response that sends events as they come; `bytes` are events that are encoded already.

    `events` is closed when it is over, whoever ended it; it turns its own errors into events.
    """
    return SseResponse(events, heartbeat_s=heartbeat_s, slow_client_s=slow_client_s, headers=headers, retry_ms=retry_ms)


class SseResponse(Response):
    """Sends what `events` yields, for as long as the client takes it."""

    def __init__(
        self,
        events: AsyncIterator[SseEvent | bytes],
        *,
        heartbeat_s: float,
        slow_client_s: float,
        headers: Mapping[str, str] | None = None,
        retry_ms: int | None = RETRY_MS,
    ) -> None:
        """`retry_ms` None: nothing is said of it, for clients that take every line for an event."""
        self.retry_ms = retry_ms
        self.status_code = 200
        self.background = None
        self.events = events
        self.heartbeat_s = heartbeat_s
        self.slow_client_s = slow_client_s
        usual = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            "x-accel-buffering": "no",  # nginx would hold the events back
        }
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in {**usual, **(headers or {})}.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end or the client goes; cancelled, leave the last word to who cancels."""
        try:
            await _Connection(self, send, _abort_of(scope)).run(receive)
        finally:
            closing = getattr(self.events, "aclose", None)
            if closing is not None:
                await closing()


def last_event_id(request: Request) -> str:
    """What a client that comes back says it had last; empty if nothing."""
    return request.headers.get("last-event-id", "").strip()


def _abort_of(scope: Scope) -> Callable[[], None]:
    abort: Callable[[], None] = (scope.get("extensions") or {}).get(ABORT_EXTENSION, _nothing)
    return abort


def _nothing() -> None:
    """A server that offers no way to cut a connection closes it by itself."""


class _Connection:
    """One client."""

    __slots__ = (
        "_abort",
        "_beating",
        "_cut",
        "_loop",
        "_response",
        "_send",
        "_sending_since",
        "_sent_at",
        "_timer",
    )

    def __init__(self, response: SseResponse, send: Send, abort: Callable[[], None]) -> None:
        self._response = response
        self._send = send
        self._abort = abort
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._sending_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None
        self._cut: asyncio.Timeout | None = None

    async def run(self, receive: Receive) -> None:
        """Send everything; return when that is over, one way or another."""
        leaving = asyncio.create_task(_left(receive), name="client of an event stream")
        leaving.add_done_callback(lambda _: self._end())
        try:
            await self._begin()
            async with asyncio.timeout(None) as self._cut:
                if leaving.done():
                    return
                await self._send_all()
                await self._send(_body(b"", more=False))
        except TimeoutError:  # the client has gone, or takes nothing
            return
        finally:
            self._cut = None
            await self._clean_up(leaving)

    def _end(self) -> None:
        cut, self._cut = self._cut, None  # once: one that has run out cannot be set again
        if cut is not None:
            cut.reschedule(self._loop.time())

    async def _begin(self) -> None:
        response = self._response
        await self._send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        if response.retry_ms is not None:
            await self._write(b"retry: %d\n\n" % response.retry_ms)
        self._look()

    async def _send_all(self) -> None:
        try:
            async for event in self._response.events:
                await self._write(event if isinstance(event, bytes) else event.encode())
        except Exception:  # the head is out, so that nobody above can answer with an error any more
            log.exception("an event stream has failed")

    async def _write(self, raw: bytes) -> None:
        self._sending_since = self._loop.time()
        try:
            await self._send(_body(raw))
        except OSError:  # how some servers say that the client has gone
            self._end()
        finally:
            self._sent_at = self._loop.time()
            self._sending_since = None

    def _look(self) -> None:
        """Look after the client, now and then: does it take what is sent, and has it heard of us lately?"""
        now = self._loop.time()
        if self._sending_since is not None:
            due = self._sending_since + self._response.slow_client_s
            if now >= due:
                self._drop()
                return
        else:
            due = self._sent_at + self._response.heartbeat_s
            if now >= due:
                self._beating = asyncio.create_task(self._write(_HEARTBEAT), name="heartbeat of an event stream")
                due = now + self._response.heartbeat_s
            due = min(due, now + self._response.slow_client_s)
        self._timer = self._loop.call_at(due, self._look)

    def _drop(self) -> None:
        log.info("a client that takes nothing is dropped", after_s=self._response.slow_client_s)
        self._abort()
        self._end()

    async def _clean_up(self, leaving: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        others = [task for task in (leaving, self._beating) if task is not None and not task.done()]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)


def _body(raw: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": raw, "more_body": more}


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
