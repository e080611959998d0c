"""The transport against a real socket: limits, retries, broken answers, pooling, TLS and proxies."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import inspect
import re
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from providers.calls import Call, Limits
from providers.errors import (
    BadResponse,
    InvalidRequest,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StreamBroken,
    Unavailable,
)
from providers.event_stream import EventStream
from providers.replay_server import Ending, ReplayServer, Reply, json_error
from providers.transport import CONNECTION_ERRORS, Transport

pytestmark = pytest.mark.timeout(20)

_OK = Reply(frames=(b"data: one\n\n", b"data: two\n\n"))
_BUSY = json_error(503, b'{"error":{"message":"busy"}}')


class Waits:
    """Stands in for sleeping: notes how long, and goes on at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Wait for nothing."""
        self.seconds.append(seconds)


@pytest.fixture
async def waits() -> Waits:
    """The waits between tries, in order."""
    return Waits()


@pytest.fixture
async def transport(waits: Waits) -> AsyncIterator[Transport]:
    """A transport that does not sleep and whose random numbers are all one half."""
    transport = Transport(sleep=waits, random=lambda: 0.5, clock=lambda: 1_763_700_000.0)
    yield transport
    await transport.aclose()


def _call(url: str) -> Call:
    return Call(provider="acme", url=url + "/v1/chat", headers={"authorization": "Bearer top-secret-key"}, body=b"{}")


async def _rest(stream: EventStream) -> list[bytes]:
    return [data async for batch in stream for data in batch]


async def _events(transport: Transport, url: str, limits: Limits | None = None) -> list[bytes]:
    async with transport.stream_events(_call(url), limits or Limits()) as stream:
        return [data async for batch in stream for data in batch]


async def test_request_as_sent(transport: Transport) -> None:
    """Method, path, headers and body arrive as they were given."""
    async with ReplayServer([_OK]) as server:
        assert await _events(transport, server.url) == [b"one", b"two"]
    request = server.requests[0]
    assert (request.method, request.target, request.body) == ("POST", "/v1/chat", b"{}")
    assert request.headers["authorization"] == "Bearer top-secret-key"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_passing_failures_are_retried(transport: Transport, waits: Waits, status: int) -> None:
    """The request is sent again, with growing waits, until an answer begins."""
    failed = json_error(status, b"{}")
    async with ReplayServer([failed, failed, _OK]) as server:
        assert await _events(transport, server.url) == [b"one", b"two"]
    assert len(server.requests) == 3
    assert waits.seconds == [0.25, 0.5]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
async def test_lasting_failures_are_not_retried(transport: Transport, status: int) -> None:
    """What will never succeed is not tried again."""
    async with ReplayServer([json_error(status, b"{}")]) as server:
        with pytest.raises(ProviderError):
            await _events(transport, server.url)
    assert len(server.requests) == 1


async def test_retries_are_limited(transport: Transport) -> None:
    """After `max_retries` the last error goes up."""
    async with ReplayServer([_BUSY]) as server:
        with pytest.raises(Overloaded, match="acme API error: 503 busy"):
            await _events(transport, server.url, Limits(max_retries=2))
    assert len(server.requests) == 3


async def test_retry_after_decides(transport: Transport, waits: Waits) -> None:
    """The server's own wish is the wait, whatever form it has."""
    date = json_error(429, b"{}", {"Retry-After": "Fri, 21 Nov 2025 04:40:05 GMT"})
    ms = json_error(429, b"{}", {"retry-after-ms": "1500"})
    async with ReplayServer([date, ms, _OK]) as server:
        await _events(transport, server.url)
    assert waits.seconds == [5.25, 2.0]


async def test_the_vendor_may_forbid_a_retry(transport: Transport) -> None:
    """`x-should-retry: false` overrules the status."""
    async with ReplayServer([json_error(429, b"{}", {"x-should-retry": "false"})]) as server:
        with pytest.raises(RateLimited):
            await _events(transport, server.url)
    assert len(server.requests) == 1


async def test_error_as_first_event_is_retried(transport: Transport) -> None:
    """A 200 whose first event is an error counts as a failed request; later ones are the reader's."""
    busy = Reply(frames=(b"data: busy\n\n",))

    def reject(data: bytes) -> ProviderError | None:
        return Overloaded("busy") if data == b"busy" else None

    async with ReplayServer([busy, Reply(frames=(b"data: one\n\n", b"data: busy\n\n"))]) as server:
        async with transport.stream_events(_call(server.url), Limits(), reject=reject) as stream:
            assert [data async for batch in stream for data in batch] == [b"one", b"busy"]
        assert len(server.requests) == 2


async def test_lost_connections_are_retried(transport: Transport) -> None:
    """Before the first event, a cut or empty answer is asked for again."""
    broken = [
        Reply(silent_head=True, ending=Ending.CUT),
        Reply(ending=Ending.CUT),
        Reply(ending=Ending.HALF_CLOSE),
        Reply(),
    ]
    async with ReplayServer([*broken, _OK]) as server:
        assert await _events(transport, server.url, Limits(max_retries=4)) == [b"one", b"two"]
    assert len(server.requests) == 5


async def test_a_lost_connection_is_no_timeout(transport: Transport) -> None:
    """A server that hangs up without a word is unreachable, not slow."""
    async with ReplayServer([Reply(silent_head=True, ending=Ending.CUT)]) as server:
        with pytest.raises(Unavailable, match="cannot reach") as caught:
            await _events(transport, server.url, Limits(max_retries=0))
    assert type(caught.value) is Unavailable


async def test_nobody_listens(transport: Transport, waits: Waits) -> None:
    """A refused connection is retried, then `Unavailable`; the message names the address."""
    with socket.socket() as reserved:  # bound and not listening: nobody else gets the port
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"acme: cannot reach {url}/v1/chat") as caught:
            await _events(transport, url)
    assert len(waits.seconds) == 3
    assert not isinstance(caught.value, ProviderTimeout)


async def test_cut_after_the_first_event(transport: Transport) -> None:
    """What had come is handed out, then the break is reported, and nothing is sent again."""
    async with ReplayServer([Reply(frames=_OK.frames, ending=Ending.CUT)]) as server:
        async with transport.stream_events(_call(server.url), Limits()) as stream:
            assert (await anext(stream))[0] == b"one"
            with pytest.raises(StreamBroken, match="acme: the stream broke"):
                await _rest(stream)
        assert len(server.requests) == 1


async def test_wrong_chunk_size_in_the_middle(transport: Transport) -> None:
    """A body that violates HTTP after the first event ends in a typed error, never in a wait without end.

    The driver's compiled parser does not report this one, so there the limit on silence ends the wait.
    """
    first_read = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n")
        await first_read.wait()
        writer.write(b"zz\r\nwhat is this?\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with transport.stream_events(_call(url), Limits(idle_timeout_s=0.2)) as stream:
            assert await anext(stream) == [b"one"]
            first_read.set()
            with pytest.raises((StreamBroken, ProviderTimeout)):
                await _rest(stream)


async def test_wrong_compression(transport: Transport) -> None:
    """A body that is not what its header says is a broken stream."""
    lying = Reply(frames=_OK.frames, headers={"content-encoding": "gzip"})
    async with ReplayServer([lying]) as server:
        with pytest.raises(StreamBroken, match="DecodingError"):
            await _events(transport, server.url, Limits(max_retries=0))


async def test_compressed_answer(transport: Transport) -> None:
    """A server that compresses although it was not asked to is understood."""
    frames = (gzip.compress(b"".join(_OK.frames)),)
    async with ReplayServer([Reply(frames=frames, headers={"content-encoding": "gzip"})]) as server:
        assert await _events(transport, server.url) == [b"one", b"two"]
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_silence_in_the_middle(transport: Transport) -> None:
    """The limit on silence ends the wait, and the socket is closed."""
    async with ReplayServer([Reply(frames=_OK.frames, ending=Ending.SILENCE)]) as server:
        with pytest.raises(ProviderTimeout, match=r"silent for 0.1 s \(idle_timeout_s\)"):
            await _events(transport, server.url, Limits(idle_timeout_s=0.1))
        await server.client_gone.wait()


@pytest.mark.parametrize(
    "reply",
    [Reply(silent_head=True), Reply(ending=Ending.SILENCE), Reply(frames=(b": hi\n\n",), ending=Ending.SILENCE)],
)
async def test_no_first_event(transport: Transport, reply: Reply) -> None:
    """The first event's limit covers the head and the wait after it; such a request is not repeated."""
    async with ReplayServer([reply]) as server:
        with pytest.raises(ProviderTimeout, match=r"no answer from http://127.0.0.1:\d+/v1/chat within 0.5 s"):
            await _events(transport, server.url, Limits(first_event_timeout_s=0.5))
        await server.client_gone.wait()
    assert len(server.requests) == 1


async def test_outer_cancellation_is_not_mistaken_for_silence(transport: Transport) -> None:
    """A reader's own time limit stays a `TimeoutError` of its own."""
    async with ReplayServer([Reply(frames=_OK.frames, ending=Ending.SILENCE)]) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await _events(transport, server.url, Limits(idle_timeout_s=30.0))
        await server.client_gone.wait()


async def test_cancelled_while_waiting_for_the_head(transport: Transport) -> None:
    """Cancelling before any answer closes the socket too."""
    async with ReplayServer([Reply(silent_head=True)]) as server:
        reading = asyncio.create_task(_events(transport, server.url))
        while not server.requests:
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await server.client_gone.wait()


async def test_connections_are_used_again(transport: Transport) -> None:
    """After a whole answer, and after an error, the next request comes on the same connection."""
    async with ReplayServer([_OK, json_error(400, b"{}"), _OK]) as server:
        await _events(transport, server.url)
        with pytest.raises(InvalidRequest):
            await _events(transport, server.url)
        await _events(transport, server.url)
    assert {request.connection for request in server.requests} == {0}


async def test_many_streams_at_once(transport: Transport) -> None:
    """There is no hidden limit on connections."""
    held = Reply(frames=_OK.frames, ending=Ending.SILENCE)
    async with ReplayServer([held]) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(150):
            await stack.enter_async_context(transport.stream_events(_call(server.url), Limits()))
        assert len(server.requests) == 150


async def test_one_document_instead_of_a_stream(transport: Transport) -> None:
    """A JSON answer is the only event."""
    async with ReplayServer([json_error(200, b'{"a":1}')]) as server:
        assert await _events(transport, server.url) == [b'{"a":1}']


async def test_web_page_instead_of_a_stream(transport: Transport) -> None:
    """A captive portal's page is no answer."""
    page = Reply(frames=(b"<html><body>Please log in</body></html>",), content_type="text/html; charset=utf-8")
    async with ReplayServer([page]) as server:
        with pytest.raises(BadResponse, match="Please log in"):
            await _events(transport, server.url)


async def test_garbage_instead_of_http(transport: Transport) -> None:
    """A server that speaks something else is an error of the tree, not the driver's."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Unavailable):
            await _events(transport, url, Limits(max_retries=0))


@pytest.mark.parametrize("url", ["ftp://host", "no-scheme", "http://", "http://[::1", "http://h:99999"])
async def test_addresses_that_are_none(transport: Transport, url: str) -> None:
    """A wrong base URL says so, at once."""
    with pytest.raises((InvalidRequest, Unavailable)) as caught:
        await _events(transport, url, Limits(max_retries=0))
    assert isinstance(caught.value, InvalidRequest)


async def test_secrets_are_not_shown(transport: Transport) -> None:
    """Neither the call's repr nor an error names the key, a password or a query."""
    call = Call(
        provider="acme", url="http://me:pass@127.0.0.1:1/x?key=abc", headers={"authorization": "Bearer topsecret"}
    )
    with pytest.raises(Unavailable) as caught:
        async with transport.stream_events(call, Limits(max_retries=0)):
            pytest.fail("nobody listens there")
    for text in (repr(call), str(caught.value), repr(caught.value)):
        assert not any(secret in text for secret in ("topsecret", "pass", "key=abc"))


async def test_user_and_password_in_the_address(transport: Transport) -> None:
    """They become the header that they stand for, unless there is one already."""
    async with ReplayServer([_OK]) as server:
        address = server.url.replace("http://", "http://me:pass@")
        await transport.request("GET", address)
        await transport.request("GET", address, headers={"authorization": "Bearer x"})
    assert [request.headers["authorization"] for request in server.requests] == ["Basic bWU6cGFzcw==", "Bearer x"]


async def test_plain_request(transport: Transport) -> None:
    """Any status comes back as it is, once."""
    async with ReplayServer([json_error(503, b"[1]", {"X-Extra": "yes"})]) as server:
        answer = await transport.request("PUT", server.url + "/hook?a=1", headers={"x-mine": "1"}, content=b"hello")
    assert (answer.status, answer.headers["x-extra"], answer.body) == (503, "yes", b"[1]")
    request = server.requests[0]
    assert (request.method, request.target, request.body) == ("PUT", "/hook?a=1", b"hello")
    assert len(server.requests) == 1


async def test_plain_request_limits(transport: Transport) -> None:
    """Time and size are bounded."""
    async with ReplayServer([_OK, Reply(frames=(b"x",), ending=Ending.SILENCE)]) as server:
        await transport.request("GET", server.url)  # now there is a connection, and no time goes by for making one
        with pytest.raises(ProviderTimeout):
            await transport.request("GET", server.url, timeout_s=0.1)
        await server.client_gone.wait()
    async with ReplayServer([Reply(frames=(b"x" * 100,))]) as server:
        with pytest.raises(BadResponse, match="more than 10 bytes"):
            await transport.request("GET", server.url, max_body_bytes=10)


async def test_proxy_from_the_environment(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTP_PROXY` is used, and `NO_PROXY` excepts from it."""
    async with ReplayServer([_OK]) as proxy, ReplayServer([_OK]) as direct:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert await _events(transport, "http://model.invalid") == [b"one", b"two"]
        await _events(transport, direct.url)
    assert [request.target for request in proxy.requests] == ["http://model.invalid/v1/chat"]
    assert len(direct.requests) == 1


async def test_own_certificate_authority(
    transport: Transport, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SSL_CERT_FILE` is trusted; without it the connection is refused."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    async with ReplayServer([_OK], tls=tls) as server:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await _events(transport, server.url, Limits(max_retries=0))
        await transport.aclose()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert await _events(transport, server.url) == [b"one", b"two"]


async def test_client_certificate(transport: Transport, certificate: tuple[Path, Path]) -> None:
    """A plain request can name its own authority and present a certificate."""
    cert, key = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cert))
    tls.load_cert_chain(cert, key)
    tls.verify_mode = ssl.CERT_REQUIRED
    async with ReplayServer([_OK], tls=tls) as server:
        answer = await transport.request("GET", server.url, verify=str(cert), cert=(str(cert), str(key)))
        assert answer.status == 200
        with pytest.raises(Unavailable):
            await transport.request("GET", server.url, verify=str(cert))


def test_every_error_of_the_drivers_is_translated() -> None:
    """An exception class that a new version of httpx or aiohttp brings does not slip through."""
    never_raised = {httpx.CookieConflict, aiohttp.EofStream}
    kinds = {
        kind
        for module in (httpx, aiohttp, aiohttp.http_exceptions)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and not issubclass(kind, Warning)
    }
    websocket = {kind for kind in kinds if kind.__name__.startswith(("WS", "WebSocket"))}
    assert {kind for kind in kinds - never_raised - websocket if not issubclass(kind, CONNECTION_ERRORS)} == set()


def test_nobody_else_speaks_http() -> None:
    """The HTTP libraries are imported in one place, so that a change of either stays there."""
    packages = [Path(__file__).parents[2] / name for name in ("providers", "queue_backends", "worker")]
    users = {
        path.name
        for package in packages
        for path in package.rglob("*.py")
        if re.search(r"^\s*(?:import|from) (?:httpx|httpx_aiohttp|aiohttp)\b", path.read_text(), re.MULTILINE)
    }
    assert users == {"carried_body.py", "transport.py", "verbatim_client.py"}


@pytest.mark.parametrize(("status", "length"), [(200, 480), (404, 180)])
async def test_web_page_that_repeats_the_key(transport: Transport, status: int, length: int) -> None:
    """Neither a key nor the half of one comes out with a page."""
    page = f"<html><body>{'x' * length} you sent my-own-format-key</body></html>".encode()
    async with ReplayServer([Reply(status=status, frames=(page,), content_type="text/html")]) as server:
        call = Call(provider="acme", url=server.url, headers={"x-api-key": "my-own-format-key"})
        with pytest.raises((BadResponse, InvalidRequest)) as told:
            async with transport.stream_events(call, Limits()):
                raise AssertionError("no stream")
    assert "my-own" not in str(told.value)
