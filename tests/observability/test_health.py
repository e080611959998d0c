"""The health pages tell what an orchestrator must know, over plain HTTP, whatever a client sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker.health import HealthServer, HealthState
from worker.metrics import Metrics


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at an arbitrary moment."""
    return Clock()


@pytest.fixture
def state(clock: Clock) -> HealthState:
    """A worker with free slots that has just pulled."""
    state = HealthState(clock=clock)
    state.free_slots = 5
    state.pulled()
    return state


def _server(state: HealthState, clock: Clock, **changes: Any) -> HealthServer:
    values: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "clock": clock, **changes}
    return HealthServer(state, Metrics(), **values)


async def _exchange(port: int, request: bytes) -> bytes:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()


async def _get(server: HealthServer, path: str, *, accept: str = "*/*") -> tuple[int, str, str]:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
    head, _, body = (await _exchange(server.port, request.encode())).decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), head, body


async def test_a_working_worker_is_alive_and_ready(state: HealthState, clock: Clock) -> None:
    """The bodies are ark's: `ok` and `ready`."""
    async with _server(state, clock) as server:
        assert (await _get(server, "/healthz"))[::2] == (200, "ok")
        assert (await _get(server, "/readyz?verbose=1"))[::2] == (200, "ready")


async def test_the_metrics_page_says_its_format(state: HealthState, clock: Clock) -> None:
    """Prometheus reads the page by its content type."""
    async with _server(state, clock) as server:
        status, head, body = await _get(server, "/metrics")
    assert status == 200
    assert "Content-Type: text/plain; version=0.0.4" in head
    assert f"Content-Length: {len(body)}" in head
    assert "# TYPE shoal_worker_running gauge" in body


async def test_a_worker_that_stopped_pulling_is_not_alive(state: HealthState, clock: Clock) -> None:
    """A process that looks fine and consumes nothing is what an orchestrator must restart."""
    async with _server(state, clock, not_pulling_after_s=30.0) as server:
        clock.now += 31.0
        status, _, body = await _get(server, "/healthz")
        assert (status, body) == (503, "not pulling: the queue has not answered for 31 s")
        state.pulled()
        assert (await _get(server, "/healthz"))[0] == 200


@pytest.mark.parametrize("reason", ["full", "draining"])
async def test_a_worker_that_need_not_pull_is_alive(state: HealthState, clock: Clock, reason: str) -> None:
    """A full worker and a draining one do not pull on purpose, for as long as that takes."""
    if reason == "full":
        state.free_slots = 0
    else:
        state.is_draining = True
    clock.now += 3600.0
    assert _server(state, clock).healthz().ok


async def test_the_time_starts_anew_when_a_slot_becomes_free(state: HealthState, clock: Clock) -> None:
    """A worker that was full for an hour is not blamed at the moment in which a slot becomes free."""
    state.free_slots = 0
    clock.now += 3600.0
    state.free_slots = 1
    assert _server(state, clock).healthz().ok
    clock.now += 20.0
    state.free_slots = 2
    clock.now += 20.0
    assert not _server(state, clock).healthz().ok


async def test_a_draining_worker_is_not_ready(state: HealthState, clock: Clock) -> None:
    """No new work shall be expected of a worker that is going away."""
    state.is_draining = True
    async with _server(state, clock) as server:
        assert (await _get(server, "/readyz"))[::2] == (503, "draining")
        assert (await _get(server, "/healthz"))[0] == 200


async def test_readiness_needs_the_queue_and_hides_its_password(state: HealthState, clock: Clock) -> None:
    """A queue that does not answer makes the worker unready; the reason shows no secret."""

    async def ping() -> None:
        raise ConnectionError("redis://user:hunter2@broker:6379 refused")

    async with _server(state, clock, ping=ping) as server:
        status, _, body = await _get(server, "/readyz")
    assert status == 503
    assert body.startswith("queue cannot be used: redis://[masked]@broker")


def _answers(*answers: str | Exception) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    calls: list[int] = []

    async def probe() -> str:
        calls.append(1)
        await asyncio.sleep(0)
        answer = answers[min(len(calls), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return probe, calls


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("HEALTHY", (200, "ready")),
        ("I am HEALTHY.", (200, "ready")),
        ("UNHEALTHY", (503, "unexpected response: UNHEALTHY")),
        ("healthy", (503, "unexpected response: healthy")),
        (RuntimeError("no key sk-abcdefgh12345"), (503, "semantic check failed: no key [masked]")),
    ],
)
async def test_the_semantic_probe_decides(
    state: HealthState, clock: Clock, answer: str | Exception, expected: tuple[int, str]
) -> None:
    """The model must say HEALTHY as a word of its own; texts are ark's, secrets are masked."""
    probe, _ = _answers(answer)
    async with _server(state, clock, probe=probe) as server:
        assert (await _get(server, "/readyz"))[::2] == expected


async def test_a_probe_that_hangs_is_given_up(state: HealthState, clock: Clock) -> None:
    """A model that does not answer within the limit makes the worker unready."""

    async def probe() -> str:
        await asyncio.Event().wait()
        return "HEALTHY"

    async with _server(state, clock, probe=probe, probe_limit_s=0.01) as server:
        status, _, body = await _get(server, "/readyz")
    assert (status, body) == (503, "semantic check failed: no answer within 0 s")


async def test_a_probe_costs_one_model_call_a_minute_however_many_ask(state: HealthState, clock: Clock) -> None:
    """Callers at the same time share one call, its verdict is kept, and it is asked again after its time."""
    probe, calls = _answers("HEALTHY", "no")
    server = _server(state, clock, probe=probe, probe_cache_s=60.0)
    verdicts = await asyncio.gather(*(server.readyz() for _ in range(5)))
    assert [verdict.ok for verdict in verdicts] == [True] * 5
    assert len(calls) == 1
    clock.now += 61.0
    assert not (await server.readyz()).ok
    assert len(calls) == 2


async def test_tool_servers_that_are_down_are_named_without_making_it_unready(state: HealthState, clock: Clock) -> None:
    """A worker without one of its tools is still of use; the body says what is missing, as text or as JSON."""
    state.tools_down = lambda: {"files": "refused, token=abc123secret"}
    async with _server(state, clock) as server:
        assert (await _get(server, "/readyz"))[::2] == (
            200,
            "ready\ntool server down: files: refused, token=[masked]",
        )
        status, head, body = await _get(server, "/readyz", accept="text/html, application/json;q=0.9")
    assert "Content-Type: application/json" in head
    assert (status, json.loads(body)) == (
        200,
        {"ok": True, "reason": "ready", "tools_down": {"files": "refused, token=[masked]"}},
    )


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /secret HTTP/1.1\r\n\r\n", 404),
        (b"\x00\xff nonsense\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 400),
    ],
)
async def test_bad_requests_get_an_answer_and_harm_nobody(
    state: HealthState, clock: Clock, request_bytes: bytes, status: int
) -> None:
    """Other methods, other paths, garbage and endless headers are answered; the next request works."""
    async with _server(state, clock) as server:
        answer = await _exchange(server.port, request_bytes)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert (await _get(server, "/healthz"))[0] == 200


async def test_a_client_that_says_nothing_is_dropped(state: HealthState, clock: Clock) -> None:
    """An idle connection is closed after the read limit, without an answer."""
    async with _server(state, clock, read_limit_s=0.01) as server:
        assert await _exchange(server.port, b"GET /healthz HT") == b""


async def test_closing_ends_open_connections(state: HealthState, clock: Clock) -> None:
    """Shutting down does not wait for a client that holds its connection open."""
    server = _server(state, clock)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET ")
    await writer.drain()
    async with asyncio.timeout(5):
        await server.close()
        with contextlib.suppress(ConnectionResetError):  # or so, if our bytes had not been read yet
            assert await reader.read() == b""
    writer.close()
    assert server.port == 0


async def test_a_port_that_is_taken_is_a_warning(state: HealthState, clock: Clock) -> None:
    """The worker goes on without its pages, and the log names the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with capture_logs() as lines:
            async with _server(state, clock, port=port) as server:
                assert server.port == 0
    assert [(line["log_level"], line["port"]) for line in lines] == [("warning", port)]


async def test_a_successor_takes_the_port_over() -> None:
    """A process that replaces another one waits for its port, and serves as soon as the old one is gone."""
    async with HealthServer(HealthState(), host="127.0.0.1", port=0) as old:
        port = old.port
        async with HealthServer(HealthState(), host="127.0.0.1", port=port, waits_for_port=True) as new:
            assert new.port == 0
            await old.close()
            async with asyncio.timeout(20):
                while not new.port:
                    await asyncio.sleep(0.05)
            assert new.port == port
