"""Bounds: requests of a caller, open streams, heads that do not end; and how a gateway stops."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.probe_operations import LARGE_BYTES, OPERATIONS
from worker.gateway import limits as limits_module
from worker.gateway.connection_limits import MAX_HEAD_BYTES
from worker.gateway.limits import FailureLimit, RequestLimits, StreamSlots
from worker.gateway.problem import Problem

ROOT = Path(__file__).parents[2]


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills() -> None:
    """A burst is allowed, then as many as the rate gives; each caller has a bucket of its own."""
    clock = Clock()
    limits = RequestLimits(burst=3, clock=clock)
    for _ in range(3):
        limits.take("a", 60)
    with pytest.raises(Problem) as refused:
        limits.take("a", 60)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    assert limits.take("b", 60) is not None
    clock.now += 2
    limits.take("a", 60)
    limits.take("a", 60)
    with pytest.raises(Problem):
        limits.take("a", 60)
    assert limits.take("a", 0) is None


def test_callers_are_forgotten_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those not heard of for longest, so that strangers cannot fill the memory; who comes again stays known."""
    monkeypatch.setattr(limits_module, "_MOST_CALLERS", 3)
    limits = RequestLimits(burst=1, clock=Clock())
    for who in ("busy", "a", "b"):
        limits.take(who, 60)
    with pytest.raises(Problem):
        limits.take("busy", 60)
    limits.take("c", 60)
    limits.take("a", 60)  # forgotten, so that it has a full bucket
    with pytest.raises(Problem):
        limits.take("busy", 60)


def test_failures_of_an_address_are_counted() -> None:
    """Twenty wrong keys a minute are enough; another address is not meant."""
    clock = Clock()
    failures = FailureLimit(most=20, clock=clock)
    for _ in range(20):
        failures.failed("203.0.113.1")
    with pytest.raises(Problem):
        failures.failed("203.0.113.1")
    failures.failed("203.0.113.2")
    clock.now += 60
    failures.failed("203.0.113.1")


def test_streams_are_counted_and_given_back() -> None:
    """Neither one caller nor all together may have more than is allowed."""
    slots = StreamSlots(most=3, most_of_one=2)
    with slots.held("a"), slots.held("a"):
        with pytest.raises(Problem, match="one caller"):
            slots.check("a")
        slots.check("b")
        with slots.held("b"), pytest.raises(Problem, match="this gateway"):
            slots.check("c")
    assert slots.total == 0
    slots.check("a")


async def test_a_caller_may_have_so_many_streams() -> None:
    """One more is refused, and again possible when one has ended."""
    settings = gateway_settings(gateway={"max_streams_per_key": 1})
    with GatewayServer(settings, with_worker=False, operations=OPERATIONS) as server:
        async with server.client() as client, asyncio.timeout(WITHIN_S):
            async with client.stream("GET", "/t/stream") as first:
                assert first.status_code == 200
                assert (await client.get("/t/stream")).status_code == 429
                assert "shoal_gateway_streams 1" in (await client.get("/metrics")).text
            while "shoal_gateway_streams 1" in (await client.get("/metrics")).text:
                await asyncio.sleep(0.02)
            async with client.stream("GET", "/t/stream") as second:
                assert second.status_code == 200


async def test_heads_are_bounded() -> None:
    """A head that is too large, in one piece or in many, is refused and its connection closed."""
    with GatewayServer(gateway_settings(), with_worker=False, operations=OPERATIONS) as server:
        port = int(server.url.rpartition(":")[2])
        async with asyncio.timeout(WITHIN_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
            with_end = b"x-filler: " + b"a" * (MAX_HEAD_BYTES + 1000) + b"\r\n\r\n"
            writer.write(with_end)
            assert b" 431 " in await reader.readuntil(b"\r\n")
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-filler: ")
            for _ in range(3):
                writer.write(b"a" * (MAX_HEAD_BYTES // 2))
                await writer.drain()
            with contextlib.suppress(ConnectionResetError):  # what was still on its way meets a closed connection
                assert b" 431 " in await reader.read()
            writer.close()


async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that send nothing, or a little now and then, are closed; also the second request of a connection."""
    from worker.gateway import connection_limits
    from worker.gateway import server as gateway_server

    quick = connection_limits.bounded
    monkeypatch.setattr(gateway_server, "bounded", lambda kind: quick(kind, head_limit_s=0.2))
    with GatewayServer(gateway_settings(), with_worker=False, operations=OPERATIONS) as server:
        port = int(server.url.rpartition(":")[2])
        for first, second in ((b"", b""), (b"GET /heal", b""), (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /")):
            async with asyncio.timeout(WITHIN_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(first)
                if second:
                    assert b" 200 " in await reader.readuntil(b"\r\nok")
                    writer.write(second)
                with contextlib.suppress(ConnectionResetError):
                    await reader.read()
                writer.close()


async def test_a_client_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not read is not kept for it without end; who reads, however late, gets everything."""
    from worker.gateway import connection_limits
    from worker.gateway import server as gateway_server

    quick = connection_limits.bounded
    monkeypatch.setattr(gateway_server, "bounded", lambda kind: quick(kind, stall_limit_s=0.3))
    with GatewayServer(gateway_settings(), with_worker=False, operations=OPERATIONS) as server:
        port = int(server.url.rpartition(":")[2])
        async with asyncio.timeout(WITHIN_S), server.client() as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            head = f"GET /t/large HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.admin_key}\r\n\r\n"
            writer.write(head.encode())
            await reader.readline()
            while server.http.connections:
                await asyncio.sleep(0.02)
            taken = 0
            with contextlib.suppress(ConnectionResetError):
                while part := await reader.read(1 << 20):
                    taken += len(part)
            assert taken < LARGE_BYTES
            writer.close()
            assert len((await client.get("/t/large")).content) == LARGE_BYTES


async def test_streams_are_told_when_the_gateway_stops() -> None:
    """A stream gets a last word and ends in order, instead of being cut off; running requests are answered."""
    server = GatewayServer(gateway_settings(), with_worker=False, operations=OPERATIONS)
    with server:
        client = server.client()
        streaming = asyncio.create_task(_read_whole(client, "/t/stream"))
        slow = asyncio.create_task(client.get("/t/slow"))
        async with asyncio.timeout(WITHIN_S), server.client() as watcher:
            while "shoal_gateway_streams 1" not in (await watcher.get("/metrics")).text:
                await asyncio.sleep(0.02)
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        async with asyncio.timeout(WITHIN_S):
            text, answer = await streaming, await slow
            await stopping
            await client.aclose()
    assert "data: hello" in text
    assert text.endswith(": the gateway is shutting down, connect again\n\n")
    assert answer.json() == "done"


async def test_who_waits_past_the_grace_is_told_why() -> None:
    """A request that does not end within the grace period is answered with 503, in the API's form."""
    server = GatewayServer(gateway_settings(gateway={"grace_s": 1.0}), with_worker=False, operations=OPERATIONS)
    with server:
        client = server.client()
        waiting = asyncio.create_task(client.get("/t/endless"))
        streaming = asyncio.create_task(_read_whole(client, "/t/stream"))
        async with asyncio.timeout(WITHIN_S), server.client() as watcher:
            while "shoal_gateway_streams 1" not in (await watcher.get("/metrics")).text:
                await asyncio.sleep(0.02)
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        async with asyncio.timeout(WITHIN_S):
            answer, _ = await waiting, await streaming
            await stopping
            await client.aclose()
    assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")


async def _read_whole(client: httpx.AsyncClient, path: str) -> str:
    async with client.stream("GET", path) as answer:
        return "".join([part async for part in answer.aiter_text()])


def test_as_many_files_as_streams_are_allowed() -> None:
    """In a process of its own: the limit is raised to what is needed, or to what the system allows."""
    script = (
        "import resource as r; soft, hard = r.getrlimit(r.RLIMIT_NOFILE); r.setrlimit(r.RLIMIT_NOFILE, (256, hard)); "
        "from worker.gateway.file_limit import allow_files; allow_files(1000); "
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0] == (1512 if hard < 0 else min(1512, hard)))"
    )
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("True")
