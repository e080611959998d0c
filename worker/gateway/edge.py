"""What happens to every request, whatever its path: a request id, the client's address, safe headers, a line in the
log, and an end in order for streams that are ended before their time."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.gateway.auth import NOBODY
from worker.gateway.connection_limits import MAX_HEAD_BYTES
from worker.gateway.errors import error_response, style_of
from worker.gateway.front import Front
from worker.gateway.headers import with_safe_headers
from worker.gateway.problem import ErrorStyle, Problem, shutting_down

_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_ONCE: Final = frozenset({b"host", b"authorization", b"x-api-key", b"origin"})
"""What a proxy between may have read the other one of."""

log = structlog.get_logger(__name__)


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, front: Front) -> None:
        self._app = app
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = f"req_{secrets.token_hex(12)}"
        state["answer_headers"] = {}
        state["client"] = self._front.peers.settle(scope, headers)
        answer = _Answer(send, scope, self._front)
        started = time.monotonic()
        try:
            problem = _head_problem(scope["headers"])
            if problem is not None:
                await error_response(problem, style_of(scope["path"]), state["request_id"])(scope, receive, answer.send)
            else:
                await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            goodbye = self._front.streams.goodbye()
            if goodbye:
                _taken_back()
                await answer.say(goodbye)
            elif self._front.streams.is_ending and not answer.status:  # its time of grace is over
                _taken_back()
                said = error_response(shutting_down(), style_of(scope["path"]), state["request_id"])
                await said(scope, receive, answer.send)
            else:
                raise
        finally:
            answer.close()
            self._note(scope, answer, time.monotonic() - started)

    def _note(self, scope: Scope, answer: _Answer, took_s: float) -> None:
        state = scope["state"]
        operation = state.get("operation")
        name = f"{operation.method} {operation.path}" if operation is not None else "unknown"
        status = answer.status or 499  # the client has gone before there was one
        self._front.metrics.answered(name, status, None if answer.is_stream else took_s)
        write = log.debug if scope["path"] in _QUIET else log.info
        caller = state.get("caller")
        write(
            "request",
            method=scope["method"],
            path=scope.get("raw_path", b"").decode("latin-1")[:300],  # still encoded: no line ends, nothing invisible
            status=status,
            took_ms=round(1000 * took_s, 1),
            caller=caller.id if caller is not None else "",
            client=state["client"],
            request_id=state["request_id"],
            **({"stream": True} if answer.is_stream else {}),
        )


class _Answer:
    """Watches what is sent, and adds to it."""

    def __init__(self, send: Send, scope: Scope, front: Front) -> None:
        self._send = send
        self._scope = scope
        self._front = front
        self._held = contextlib.ExitStack()
        self._is_whole = False
        self.status = 0
        self.is_stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        elif not message.get("more_body", False):
            self._is_whole = True
        await self._send(message)

    async def say(self, goodbye: bytes) -> None:
        """End a stream that was cancelled before its time."""
        if not self._is_whole:
            if (last_word := self._scope["state"].get("last_word")) is not None:
                goodbye += last_word(goodbye.decode().strip(": \n"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._send({"type": "http.response.body", "body": goodbye, "more_body": False})

    def close(self) -> None:
        if self.is_stream:
            self._front.metrics.open_streams -= 1
        self._held.close()

    def _begin(self, message: Message) -> None:
        state = self._scope["state"]
        self.status = message["status"]
        extra = {"x-request-id": state["request_id"], **state["answer_headers"]}
        if style_of(self._scope["path"]) is ErrorStyle.ANTHROPIC:
            extra["request-id"] = state["request_id"]
        given = [(name.lower(), value) for name, value in message.get("headers", [])]
        given += [(name.lower().encode(), value.encode("latin-1")) for name, value in extra.items()]
        message["headers"] = with_safe_headers(given, is_shared=bool(self._front.settings.cors_origins))
        if any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in given):
            self._begin_stream()

    def _begin_stream(self) -> None:
        self.is_stream = True
        caller = self._scope["state"].get("caller", NOBODY)
        self._front.metrics.open_streams += 1
        self._held.enter_context(self._front.slots.held(caller.id))
        self._held.enter_context(self._front.streams.joined(caller))


def _head_problem(headers: Sequence[tuple[bytes, bytes]]) -> Problem | None:
    names = [name for name, _ in headers if name in _ONCE]
    if len(names) > len(set(names)):
        named = next(name for name in names if names.count(name) > 1).decode()
        return Problem(400, f"header {named!r} is there more than once: send it once", code="ambiguous_header")
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
        return Problem(431, f"the headers have more than {MAX_HEAD_BYTES} bytes", code="headers_too_large")
    return None


def _taken_back() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
