"""Where requests end and begin, whatever a client writes: raw bytes against a gateway that runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.probe_operations import OPERATIONS

_UPGRADE = b"connection: upgrade\r\nupgrade: h2c\r\n"
_CHUNKED = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[GatewayServer]:
    """A gateway that asks for no key."""
    with GatewayServer(gateway_settings(), with_worker=False, operations=OPERATIONS) as running:
        yield running


async def _connected(server: GatewayServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))


def _head(method: str, path: str, server: GatewayServer, more: bytes = b"") -> bytes:
    key = f"x-api-key: {server.admin_key}\r\n" if server.admin_key else ""
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{key}".encode() + more + b"\r\n"


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return int(head.split()[1]), await reader.readexactly(int(fields[b"content-length"]))


async def test_a_body_is_no_request_because_its_head_asks_for_another_protocol(server: GatewayServer) -> None:
    """The body belongs to its request, in one piece with it or not, and what follows is answered too."""
    body = b'{"text": "hello", "number": 7}'
    head = _head("POST", "/t/echo", server, b"content-type: application/json\r\ncontent-length: 30\r\n" + _UPGRADE)
    async with asyncio.timeout(WITHIN_S):
        for pieces in ([head + body], [head, body], [head + body[:9], body[9:]]):
            reader, writer = await _connected(server)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            status, answer = await _answer(reader)
            assert (status, b'"hello"' in answer) == (200, True)
            writer.write(_head("GET", "/healthz", server, _UPGRADE) + _head("GET", "/healthz", server))
            assert [await _answer(reader), await _answer(reader)] == [(200, b"ok"), (200, b"ok")]
            writer.close()


async def test_what_comes_after_a_body_is_no_header(server: GatewayServer) -> None:
    """Trailers are thrown away: a second `Host` among them is none."""
    chunks = b'10\r\n{"text": "hello"\r\n1\r\n}\r\n0\r\nhost: evil\r\nx-forwarded-for: 1.2.3.4\r\n\r\n'
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await _connected(server)
        writer.write(_head("POST", "/t/echo", server, _CHUNKED) + chunks)
        assert (await _answer(reader))[0] == 200
        writer.close()


async def test_a_trailer_that_does_not_end_is_not_kept(server: GatewayServer) -> None:
    """Nobody can fill the gateway's memory with what is neither head nor body."""
    _, writer = await _connected(server)
    writer.write(_head("POST", "/t/echo", server, _CHUNKED) + b"0\r\nx-filler: ")
    async with asyncio.timeout(WITHIN_S):
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b"a" * 65_536)
                await writer.drain()
            pytest.fail("64 MB of a trailer were taken")
    writer.close()


@pytest.mark.parametrize("name", ["host", "authorization", "x-api-key", "origin"])
async def test_what_counts_is_said_once(server: GatewayServer, name: str) -> None:
    """Two of a header that decides something are refused: a proxy between may have looked at the other one."""
    twice = f"{name}: localhost\r\n".encode() * 2
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await _connected(server)
        writer.write(b"GET /healthz HTTP/1.1\r\n" + twice + b"\r\n")
        status, answer = await _answer(reader)
        assert (status, b"ambiguous_header" in answer) == (400, True)
        writer.close()


async def test_nothing_is_tunnelled(server: GatewayServer) -> None:
    """CONNECT closes the connection, so that what follows it is read by nobody."""
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await _connected(server)
        writer.write(_head("CONNECT", "/healthz", server) + _head("GET", "/healthz", server))
        seen = await reader.read()
        assert (seen.split()[1], seen.count(b"HTTP/1.1 ")) == (b"400", 1)
        writer.close()
