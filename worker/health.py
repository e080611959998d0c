"""Whether the worker is alive and of use: /healthz, /readyz and /metrics, over a small HTTP server of our own.

Bodies are plain text as ark's are, or JSON if the request's Accept header asks for `application/json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

import structlog
from msgspec import Struct

from queue_backends.messages import encode_json
from worker import prometheus
from worker.log import mask_text
from worker.metrics import Metrics

Probe = Callable[[], Awaitable[str]]
"""Asks the model the validator prompt (AGENT_VALIDATOR_PROMPT) and returns its answer."""
Ping = Callable[[], Awaitable[None]]
"""Returns if the queue answers, raises if not: `TaskQueue.ping`."""

DEFAULT_PORT = 8080
NOT_PULLING_AFTER_S = 30.0
PROBE_CACHE_S = 60.0
PROBE_LIMIT_S = 15.0

_PING_LIMIT_S = 5.0
_PING_CACHE_S = 1.0
_READ_LIMIT_S = 5.0
_ANSWER_LIMIT_S = 20.0
_MAX_HEADER_BYTES = 8192
_PORT_RECHECK_S = 0.5
_MAX_CONNECTIONS = 64
_HEALTHY = re.compile(r"\bHEALTHY\b")
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

_log = structlog.get_logger(__name__)


class HealthState:
    """What the pull loop tells about itself. Cheap enough for every pull."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free_slots = 0
        self._waiting_since = self._tried_at = clock()
        self._problem = ""
        self.loop_blocked_s = 0.0
        """How long the event loop has been held up now; 0 while it turns."""
        self.longest_block_s = math.inf
        """After this long nothing in the event loop can be waited for any more."""
        self.is_draining = False
        """Set when the worker stops pulling on purpose."""
        self.tools_down: Callable[[], Mapping[str, str]] = dict
        """Says which tool servers cannot be used now: name -> reason. It is asked for every page."""

    def pulled(self) -> None:
        """The queue has answered a pull, with tasks or with none."""
        self._waiting_since = self._tried_at = self._clock()
        self._problem = ""

    def pull_failed(self, reason: str) -> None:
        """A pull has come back with an error: the queue is at fault, the worker tries on."""
        self._tried_at = self._clock()
        self._problem = reason

    @property
    def free_slots(self) -> int:
        """How many more tasks the worker would take now. Set it whenever it changes."""
        return self._free_slots

    @free_slots.setter
    def free_slots(self, count: int) -> None:
        if self._free_slots <= 0 < count:
            # A full worker does not pull, and shall not be blamed for that.
            self._waiting_since = self._tried_at = self._clock()
        self._free_slots = count

    def silent_s(self) -> float:
        """How long the worker could have pulled and got no answer; 0 while it is full or draining."""
        return self._since(self._waiting_since)

    def stuck_s(self) -> float:
        """How long the worker could have pulled and did not even fail to; 0 while it is full or draining."""
        return self._since(self._tried_at)

    def _since(self, moment: float) -> float:
        if self.is_draining or self._free_slots <= 0:
            return 0.0
        return self._clock() - moment

    @property
    def problem(self) -> str:
        """Why the last pull failed; empty if it did not."""
        return self._problem


class Verdict(Struct, frozen=True):
    """An answer to a probe. `reason` is the plain text body."""

    ok: bool
    reason: str


class _Cached:
    """The verdict of one check at a time, remembered for a while: callers that come meanwhile share it."""

    def __init__(self, check: Callable[[], Awaitable[Verdict]], keep_s: float, clock: Callable[[], float]) -> None:
        self._check = check
        self._keep_s = keep_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._verdict: Verdict | None = None
        self._valid_until = 0.0

    async def verdict(self) -> Verdict:
        async with self._lock:
            if self._verdict is None or self._clock() >= self._valid_until:
                self._verdict = await self._check()
                self._valid_until = self._clock() + self._keep_s
            return self._verdict


class HealthServer:
    """Serves the three pages. Use it as an async context manager, or `start` and `close`."""

    def __init__(
        self,
        state: HealthState,
        metrics: Metrics | None = None,
        *,
        host: str = "0.0.0.0",  # noqa: S104 - probes come from outside the container
        port: int = DEFAULT_PORT,
        ping: Ping | None = None,
        probe: Probe | None = None,
        probe_cache_s: float = PROBE_CACHE_S,
        probe_limit_s: float = PROBE_LIMIT_S,
        not_pulling_after_s: float = NOT_PULLING_AFTER_S,
        read_limit_s: float = _READ_LIMIT_S,
        waits_for_port: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._metrics = metrics
        self._host = host
        self._wanted_port = port
        self._not_pulling_after_s = not_pulling_after_s
        self._read_limit_s = read_limit_s
        self._ping = _Cached(lambda: _pinged(ping), _PING_CACHE_S, clock) if ping else None
        self._probe = _Cached(lambda: _probed(probe, probe_limit_s), probe_cache_s, clock) if probe else None
        self._waits_for_port = waits_for_port
        self._server: asyncio.Server | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        """The port it listens on; 0 while it does not."""

    async def start(self) -> None:
        """Begin to listen. A port that is taken is a warning: the worker works without its pages. Or, if it shall wait
        for its port, they come as soon as the process that it replaces is gone."""
        try:
            await self._listen()
        except OSError as error:
            if self._waits_for_port and error.errno == errno.EADDRINUSE:
                _log.info("the health port is taken, waiting until it is free", port=self._wanted_port)
                self._waiting = asyncio.create_task(self._wait_for_port(), name="health port")
                return
            _log.warning(
                "health pages are off: the port cannot be used; set another one with SHOAL_HEALTH_PORT",
                host=self._host,
                port=self._wanted_port,
                error=error.strerror or str(error),
            )

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, self._wanted_port, limit=_MAX_HEADER_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _wait_for_port(self) -> None:
        while True:
            await asyncio.sleep(_PORT_RECHECK_S)  # nothing tells when a port becomes free
            with contextlib.suppress(OSError):
                await self._listen()
                return

    async def close(self) -> None:
        """Stop listening and end open connections."""
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait([self._waiting])
            self._waiting = None
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server, self.port = None, 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def healthz(self) -> Verdict:
        """Alive: not ok only if the worker has free slots and has not tried to pull for too long. One that tries in
        vain is alive: what it runs would be lost with it, and the queue would not be back any sooner."""
        state = self._state
        if state.loop_blocked_s > state.longest_block_s:
            return Verdict(False, f"event loop blocked for {state.loop_blocked_s:.0f} s, longer than any run may take")
        if state.loop_blocked_s:
            return Verdict(True, f"event loop blocked for {state.loop_blocked_s:.0f} s")  # it cannot pull meanwhile
        stuck_s = state.stuck_s()
        if stuck_s > self._not_pulling_after_s:
            return Verdict(False, f"not pulling: the queue has not answered for {stuck_s:.0f} s")
        return Verdict(True, "ok")

    async def readyz(self) -> Verdict:
        """Of use: not draining, pulling, the queue answers, and the model passes its probe if there is one."""
        if self._state.is_draining:
            return Verdict(False, "draining")
        if blocked_s := self._state.loop_blocked_s:
            return Verdict(False, f"event loop blocked for {blocked_s:.0f} s")
        silent_s = self._state.silent_s()
        if silent_s > self._not_pulling_after_s and self._state.problem:
            problem = mask_text(self._state.problem)
            return Verdict(False, f"not pulling: no pull has succeeded for {silent_s:.0f} s: {problem}")
        for check in (self._ping, self._probe):
            if check is not None:
                verdict = await check.verdict()
                if not verdict.ok:
                    return verdict
        return Verdict(True, "ready")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None  # noqa: S101 - asyncio.start_server runs this in a task
        self._connections.add(connection)
        try:
            if len(self._connections) <= _MAX_CONNECTIONS:
                async with asyncio.timeout(self._read_limit_s + _ANSWER_LIMIT_S):
                    writer.write(await self._answer(reader))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            return  # too slow, or gone
        except asyncio.CancelledError:
            return  # by `close`, which waits for this; Python 3.11's streams would report the exception as an error
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._read_limit_s):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.LimitOverrunError:
            return _response(400, f"request header is larger than {_MAX_HEADER_BYTES} bytes")
        lines = head.split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return _response(400, "this is no HTTP request")
        if words[0] != "GET":
            return _response(405, "only GET is allowed", extra={"Allow": "GET"})
        return await self._page(words[1].partition("?")[0], wants_json=_wants_json(lines[1:]))

    async def _page(self, path: str, *, wants_json: bool) -> bytes:
        match path:
            case "/healthz":
                return self._verdict_page(self.healthz(), wants_json=wants_json)
            case "/readyz":
                return self._verdict_page(await self.readyz(), wants_json=wants_json)
            case "/metrics" if self._metrics is not None:
                if self._metrics.queue is not None:
                    await self._metrics.queue.refresh()
                return _response(200, prometheus.render(self._metrics), content_type=prometheus.CONTENT_TYPE)
            case _:
                return _response(404, "there is /healthz, /readyz and /metrics")

    def _verdict_page(self, verdict: Verdict, *, wants_json: bool) -> bytes:
        status = 200 if verdict.ok else 503
        down = {name: mask_text(reason) for name, reason in self._state.tools_down().items()}
        if wants_json:
            body = {"ok": verdict.ok, "reason": verdict.reason, "tools_down": down}
            return _response(status, encode_json(body).decode(), content_type="application/json")
        lines = [verdict.reason, *(f"tool server down: {name}: {reason}" for name, reason in down.items())]
        return _response(status, "\n".join(lines))


async def _pinged(ping: Ping) -> Verdict:
    try:
        async with asyncio.timeout(_PING_LIMIT_S):
            await ping()
    except TimeoutError:
        return Verdict(False, f"queue does not answer within {_PING_LIMIT_S:.0f} s")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return Verdict(False, f"queue cannot be used: {mask_text(str(error))}")
    return Verdict(True, "ready")


async def _probed(probe: Probe, limit_s: float) -> Verdict:
    """ark looks for `HEALTHY` anywhere, so `UNHEALTHY` passes there; here it must be a word of its own."""
    try:
        async with asyncio.timeout(limit_s):
            answer = await probe()
    except TimeoutError:
        return Verdict(False, f"semantic check failed: no answer within {limit_s:.0f} s")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return Verdict(False, f"semantic check failed: {mask_text(str(error))}")
    if _HEALTHY.search(answer):
        return Verdict(True, "ready")
    return Verdict(False, f"unexpected response: {mask_text(answer)}")


def _wants_json(header_lines: list[str]) -> bool:
    for line in header_lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "accept":
            return "application/json" in value.lower()
    return False


def _response(
    status: int,
    body: str,
    *,
    content_type: str = "text/plain; charset=utf-8",
    extra: Mapping[str, str] | None = None,
) -> bytes:
    payload = body.encode()
    headers = {
        "Content-Type": content_type,
        "Content-Length": str(len(payload)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **(extra or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\n{head}\r\n".encode() + payload
