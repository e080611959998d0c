"""Event streams over real connections: heartbeats, slow clients, clients that go, and servers that stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.responses import Response

from queue_backends.memory import open_backend
from tests.gateway.gateway_harness import WITHIN_S, gateway_settings
from tests.gateway.raw_client import Connection
from worker.gateway.app import build_app
from worker.gateway.assembly import open_gateway
from worker.gateway.operation import Call, Operation
from worker.gateway.server import serving
from worker.gateway.sse import SseEvent, sse_response

SETTINGS = gateway_settings(gateway={"auth": "off", "grace_s": WITHIN_S})


class Source:
    """A stream of events that a test controls."""

    def __init__(self, *, heartbeat_s: float = 60.0, slow_client_s: float = 60.0) -> None:
        self.events: asyncio.Queue[SseEvent | bytes | Exception | None] = asyncio.Queue()
        self.is_closed = asyncio.Event()
        self.heartbeat_s = heartbeat_s
        self.slow_client_s = slow_client_s

    async def answer(self, call: Call) -> Response:
        """The endpoint."""
        return sse_response(
            self._all(), heartbeat_s=self.heartbeat_s, slow_client_s=self.slow_client_s, headers={"X-Extra": "yes"}
        )

    async def _all(self) -> AsyncIterator[SseEvent | bytes]:
        try:
            while (event := await self.events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.is_closed.set()


@contextlib.asynccontextmanager
async def gateway_of(*sources: Source) -> AsyncIterator[str]:
    """A gateway whose only operation gives each client a source of its own; its address."""
    rest = iter(sources)

    async def answer(call: Call) -> Response:
        return await next(rest).answer(call)

    operation = Operation(
        method="GET", path="/", handler=answer, summary="Events", scope=None, tag="Test", is_stream=True
    )
    async with contextlib.AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend("memory://", SETTINGS.backend))
        gateway = await stack.enter_async_context(open_gateway(SETTINGS, backend))
        server = await stack.enter_async_context(serving(build_app(gateway, [operation]), SETTINGS.gateway))
        yield server.url


async def test_events_are_written_as_the_format_has_them() -> None:
    """The head forbids buffering, a hint says when to come back, and each event has its id, its name and its lines."""
    source = Source()
    async with gateway_of(source) as url, Connection(url) as client:
        source.events.put_nowait(SseEvent("one\ntwo\r\nthree", event="said", id="7"))
        source.events.put_nowait(b"data: ready made\n\n")
        source.events.put_nowait(None)
        seen = await client.until(b"\r\n0\r\n\r\n")

    head, _, body = seen.partition(b"\r\n\r\n")
    assert b"content-type: text/event-stream; charset=utf-8" in head
    assert b"cache-control: no-store" in head
    assert b"x-extra: yes" in head
    assert b"content-length" not in head
    assert b"retry: 1000\n\n" in body
    assert b"id: 7\nevent: said\ndata: one\ndata: two\ndata: three\n\n" in body
    assert b"data: ready made\n\n" in body
    assert source.is_closed.is_set()


async def test_a_silent_stream_has_heartbeats() -> None:
    """Comments keep the connection open through proxies while there is nothing to tell."""
    source = Source(heartbeat_s=0.02)
    async with gateway_of(source) as url, Connection(url) as client:
        await client.until(b": still here\n\n")
        await client.until(b": still here\n\n")
        source.events.put_nowait(SseEvent("after all"))
        await client.until(b"data: after all\n\n")


async def test_a_client_that_goes_is_noticed() -> None:
    """The source is closed although it has nothing to send."""
    source = Source()
    async with gateway_of(source) as url:
        async with Connection(url) as client:
            await client.until(b"retry:")
            assert not source.is_closed.is_set()
        async with asyncio.timeout(WITHIN_S):
            await source.is_closed.wait()


async def test_a_client_that_takes_nothing_is_dropped() -> None:
    """Its connection is cut, with what was still to be sent, and its source is closed."""
    source = Source(slow_client_s=0.2)
    async with gateway_of(source) as url, Connection(url) as client:
        await client.until(b"retry:")
        for _ in range(200):
            source.events.put_nowait(SseEvent("x" * 65536))
        async with asyncio.timeout(WITHIN_S):
            await source.is_closed.wait()
        with contextlib.suppress(ConnectionError):
            assert len(await client.rest()) < 200 * 65536
        assert source.events.qsize() > 0


async def test_streams_end_when_the_server_stops() -> None:
    """The client is told, and the server does not wait for its grace period."""
    source = Source()
    async with asyncio.timeout(WITHIN_S), contextlib.AsyncExitStack() as stack:
        async with gateway_of(source) as url:
            client = await stack.enter_async_context(Connection(url))
            await client.until(b"retry:")
        rest = await client.rest()

    assert rest.endswith(b"\r\n0\r\n\r\n")
    assert source.is_closed.is_set()


async def test_an_error_in_the_source_ends_the_stream() -> None:
    """The client sees an end and can come back; the error goes to the log."""
    source = Source()
    async with gateway_of(source) as url, Connection(url) as client:
        source.events.put_nowait(SseEvent("before"))
        source.events.put_nowait(RuntimeError("broken"))
        assert b"data: before\n\n" in await client.until(b"\r\n0\r\n\r\n")


async def test_one_frozen_client_hinders_no_other() -> None:
    """Two hundred clients get everything while one takes nothing of the much that is there for it."""
    frozen_source, *sources = [Source() for _ in range(201)]
    async with gateway_of(frozen_source, *sources) as url, contextlib.AsyncExitStack() as stack:
        frozen = await stack.enter_async_context(Connection(url))
        await frozen.until(b"retry:")
        for _ in range(200):
            frozen_source.events.put_nowait(SseEvent("x" * 65536))
        clients = [await stack.enter_async_context(Connection(url)) for _ in sources]
        for source in sources:
            for number in range(20):
                source.events.put_nowait(SseEvent("y" * 100, id=str(number)))
            source.events.put_nowait(SseEvent("the end"))

        seen = await asyncio.gather(*(client.until(b"data: the end\n\n") for client in clients))

        assert all(each.count(b"\ndata: y") == 20 for each in seen)
        assert frozen_source.events.qsize() > 0
