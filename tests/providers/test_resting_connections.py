"""Answers whose connections rest after every read lose nothing, and end as they would without."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from providers.calls import Call, Limits
from providers.errors import ProviderTimeout, StreamBroken
from providers.reading_pace import LONGEST_REST_S, ReadingPace, Resting
from providers.replay_server import Ending, ReplayServer, Reply
from providers.transport import Transport
from worker import event_loop

pytestmark = pytest.mark.timeout(20)

FRAMES = tuple(b"data: %d\n\n" % number for number in range(30))
EVENTS = [b"%d" % number for number in range(30)]


class _AlwaysBusy(ReadingPace):
    """As in a process that has been busy for long, and stays so."""

    rests = 0
    lasting_s = LONGEST_REST_S

    def __init__(self) -> None:
        super().__init__()
        self.rest_s = self.lasting_s

    def _adapt(self, now: float) -> None:
        """Stay as busy."""

    def after_read(self, connection: Resting) -> None:
        """Count the rests, too."""
        _AlwaysBusy.rests += 1
        super().after_read(connection)


@pytest.fixture
def always_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection of a new client rests after each read."""
    monkeypatch.setattr("providers.verbatim_client.ReadingPace", _AlwaysBusy)
    _AlwaysBusy.rests = 0


@pytest.fixture(params=[True, False], ids=["reader", "unknown reader"])
async def transport(
    always_busy: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Transport]:
    """Its connections rest after each read; the carrier's reader is one that is known, or another release's."""
    if not request.param:
        monkeypatch.setattr("providers.carried_body.KNOWS_READER", False)
    transport = Transport()
    yield transport
    await transport.aclose()
    assert _AlwaysBusy.rests > 0 or not request.param  # some rest only after what was there at the beginning


async def _events(transport: Transport, server: ReplayServer, limits: Limits | None = None) -> list[bytes]:
    call = Call(provider="acme", url=server.url + "/v1/chat", headers={}, body=b"{}")
    async with transport.stream_events(call, limits or Limits()) as stream:
        return [data async for batch in stream for data in batch]


async def test_all_events_come_in_order_over_one_connection(transport: Transport) -> None:
    """Answer after answer is whole, and the connection goes back to the pool each time."""
    async with ReplayServer([Reply(frames=FRAMES)]) as server:
        for _ in range(3):
            assert await _events(transport, server) == EVENTS
        assert {request.connection for request in server.requests} == {0}


async def test_the_end_is_not_waited_for_at_rest(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has read all it wanted gives the connection back in time, however long its rest would be."""
    monkeypatch.setattr(_AlwaysBusy, "lasting_s", 60.0)
    was_read = asyncio.Event()
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"{}"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                writer.write(b"9\r\ndata: 0\n\n\r\n")
                await was_read.wait()
                was_read.clear()
                writer.write(b"0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for _ in range(3):
            async with transport.stream_events(Call(provider="a", url=url, headers={}, body=b"{}"), Limits()) as stream:
                assert await anext(stream) == EVENTS[:1]
                was_read.set()
                await stream.settle()
        await transport.aclose()
    assert connections == 1


async def _until_it_breaks(server: ReplayServer) -> list[bytes]:
    """The events before the break."""
    transport = Transport()
    seen: list[bytes] = []
    async with server:
        call = Call(provider="acme", url=server.url + "/v1/chat", headers={}, body=b"{}")
        async with transport.stream_events(call, Limits(max_retries=0)) as stream:
            with contextlib.suppress(StreamBroken):
                async for batch in stream:
                    seen += batch
                pytest.fail("the answer did not break")
        await transport.aclose()
    return seen


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, event_loop.loop_factory()], ids=["asyncio", "own"])
@pytest.mark.parametrize(
    ("is_encrypted", "ending"), [(False, Ending.CUT), (False, Ending.HALF_CLOSE), (True, Ending.CUT)]
)
def test_a_connection_that_breaks_while_it_rests(
    always_busy: None,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
    is_encrypted: bool,
    ending: Ending,
) -> None:
    """The break is noticed when the connection is read again, and all that came before it is read."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if is_encrypted else None
    if tls is not None:
        tls.load_cert_chain(*certificate)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        seen = runner.run(_until_it_breaks(ReplayServer([Reply(frames=FRAMES, ending=ending)], tls=tls)))
    assert seen == EVENTS


async def test_silence_after_a_rest(transport: Transport) -> None:
    """A rest is no silence, and no sign of life either."""
    async with ReplayServer([Reply(frames=FRAMES, ending=Ending.SILENCE)]) as server:
        with pytest.raises(ProviderTimeout, match="silent"):
            await _events(transport, server, Limits(idle_timeout_s=4 * LONGEST_REST_S, max_retries=0))


async def test_cancelled_while_the_connection_rests(transport: Transport) -> None:
    """The server is told at once, and the end of the rest finds a closed connection."""
    heard = asyncio.Event()

    async def listen(server: ReplayServer) -> None:
        call = Call(provider="acme", url=server.url + "/v1/chat", headers={}, body=b"{}")
        async with transport.stream_events(call, Limits()) as stream:
            async for _ in stream:
                heard.set()

    async with ReplayServer([Reply(frames=FRAMES, ending=Ending.SILENCE)]) as server:
        listening = asyncio.create_task(listen(server))
        await heard.wait()
        listening.cancel()
        await asyncio.wait([listening])
        assert listening.cancelled()
        async with asyncio.timeout(10):
            await server.client_gone.wait()
        await asyncio.sleep(2 * LONGEST_REST_S)  # the rest's own time: a warning of the event loop would fail the test
