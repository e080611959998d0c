"""A body straight from the connection that carries it."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import cast

from aiohttp import ClientResponse, StreamReader

from providers.answer_body import Take
from providers.reading_pace import SMALL_READ_BYTES, ReadingPace

CAN_READ = sys.platform != "win32"
"""Whether a socket can be read by its number."""
_READER_HAS = ("_buffer", "_exception", "_high_water", "_protocol", "_size", "total_bytes")
KNOWS_READER = all(hasattr(StreamReader, name) for name in _READER_HAS)
"""Whether the carrier's reader is made as we know it. Another release's, that is not, is left as it is: slower."""
_MOST_BYTES = 65_536


class _PouredReader(StreamReader):
    """What the carrier feeds with a body that is poured.

    Its own reader feeds the parser with nothing, and resumes the connection, after each piece that is read: that costs
    more than to read it, and would end a connection's rest.
    """

    __slots__ = ()

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        """Called by the carrier's parser."""
        self._buffer.append(data)
        self._size += len(data)
        self.total_bytes += len(data)
        if self._size > self._high_water:
            self._protocol.pause_reading()
        return False

    def begin_http_chunk_receiving(self) -> None:
        """Called by the carrier's parser. Where HTTP's own chunks end is of no interest."""

    def end_http_chunk_receiving(self) -> None:
        """Called by the carrier's parser."""

    @classmethod
    def replace(cls, reader: StreamReader) -> None:
        """Make this of a reader that nobody waits for."""
        began = reader.read_nowait()  # its own way, which ends a pause of its own
        reader.__class__ = cls
        if began:
            reader._buffer.append(began)  # noqa: SLF001 - it is one of these now
            reader._size = len(began)  # noqa: SLF001

    @property
    def has_some(self) -> bool:
        """Whether there is something to be taken."""
        return bool(self._buffer)

    def taken(self) -> bytes:
        """All that is there. Raises what broke the connection."""
        if self._exception is not None:
            raise self._exception
        buffer, was_paused = self._buffer, self._size > self._high_water
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        self._size = 0
        if was_paused:
            self._protocol.resume_reading()
        return data


class CarriedBody:
    """The body of one of aiohttp's responses.

    httpx would hand on the same pieces through two generators, which cost a tenth of a chunk. The connection keeps the
    client's pace, unless it is encrypted.
    """

    __slots__ = ("_connection", "_content", "_listener", "_pace", "_take", "_waiter")

    def __init__(self, response: ClientResponse, pace: ReadingPace) -> None:
        self._content = response.content
        self._connection = response.connection
        self._pace = pace
        self._listener: _Listener | None = None
        """Once it was poured, until the answer is complete."""
        self._take: Take | None = None
        self._waiter: asyncio.Future[bool] | None = None

    async def pour(self, take: Take) -> bool:
        """As `AnswerBody.pour`. Pieces are given away by whoever reads the connection, and the caller's task sleeps:
        to wake a run's task for each of them is a fifth of what they cost (7 of 34 µs, measured)."""
        self._listen()
        self._take = take
        try:
            has_some = self._content.has_some if type(self._content) is _PouredReader else False
            wants_more = self._drain()
            if has_some and self._listener is not None:
                self._listener.rest()
            if wants_more is not None:
                return wants_more
            self._waiter = asyncio.get_running_loop().create_future()
            return await self._waiter
        finally:
            self._take = self._waiter = None

    def hurry(self) -> None:
        """End the connection's rest."""
        if self._listener is not None:
            self._listener.resume_reading()

    @property
    def is_poured(self) -> bool:
        """Whether somebody wants what comes now."""
        return self._waiter is not None and not self._waiter.done()

    def news(self) -> bool:
        """The connection was read, or has ended: give away what there is. Returns whether somebody took it."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return False  # who pours next looks first
        try:
            wants_more = self._drain()
        except Exception as error:  # noqa: BLE001 - the driver's, or the taker's
            waiter.set_exception(error)
            return False
        if wants_more is not None:
            waiter.set_result(wants_more)
        return True

    def broke(self, error: OSError) -> None:
        """The connection cannot be read any more."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def complete(self) -> None:
        """All of it has been read from the connection."""
        self._listener = None

    def _drain(self) -> bool | None:
        """Give away what is there. Returns what `pour` does, or None if it goes on."""
        content, take = self._content, self._take
        assert take is not None  # noqa: S101 - only called while somebody pours
        data = content.taken() if type(content) is _PouredReader else content.read_nowait()
        if data and not take(data):
            return True
        return False if content.at_eof() else None

    def _listen(self) -> None:
        """None once the answer is complete: then the connection is somebody else's."""
        if self._listener is None and self._connection is not None and self._connection.transport is not None:
            self._listener = _Listener(self._connection.transport, self, self._content, self._pace)
            if KNOWS_READER and type(self._content) is StreamReader:
                _PouredReader.replace(self._content)


class _Listener(asyncio.Protocol):
    """Stands before the carrier's own protocol until the answer is complete, and tells the body what happened."""

    __slots__ = ("_body", "_carrier", "_content", "_fd", "_pace", "_transport")

    def __init__(
        self, transport: asyncio.Transport, body: CarriedBody, content: StreamReader, pace: ReadingPace
    ) -> None:
        self._transport = transport
        self._carrier = cast("asyncio.Protocol", transport.get_protocol())
        self._body: CarriedBody | None = body
        self._content = content
        # A pause of TLS saves no read of the socket, and loses what came in it if the connection ends before it does:
        # uvloop closes then, and drops what it has not decrypted yet.
        self._pace = pace if transport.get_extra_info("sslcontext") is None else None
        self._fd: int = transport.get_extra_info("socket").fileno()
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        # What is large may be of a connection that the carrier itself has paused, because its buffer was full.
        if self._received(data) and len(data) < SMALL_READ_BYTES:
            self.rest()

    def rest(self) -> None:
        """Not to be read again for a while, if it is one of very many."""
        if self._pace is not None:
            self._pace.after_read(self)

    def pause_reading(self) -> None:
        """As `Resting.pause_reading`."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """As `Resting.resume_reading`."""
        self._transport.resume_reading()  # does nothing to one that is closed

    def read_now(self) -> bool:
        """As `Resting.read_now`."""
        body = self._body
        if body is None or not body.is_poured or self._transport.is_closing() or not CAN_READ:
            return False
        try:
            data = os.read(self._fd, _MOST_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            body.broke(error)
            return False
        return bool(data) and self._received(data) and len(data) < SMALL_READ_BYTES

    def _received(self, data: bytes) -> bool:
        """Whether somebody took it, and the answer goes on."""
        self._carrier.data_received(data)
        body = self._body
        if body is None:
            return False
        if self._content.is_eof():
            self._transport.set_protocol(self._carrier)
            self._leave(body)
        return body.news() and self._body is not None

    def eof_received(self) -> bool | None:
        """Called by the event loop."""
        return self._carrier.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._carrier.connection_lost(exc)
        if (body := self._body) is not None:
            self._leave(body)
            body.news()

    def pause_writing(self) -> None:
        """Called by the event loop."""
        self._carrier.pause_writing()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._carrier.resume_writing()

    def _leave(self, body: CarriedBody) -> None:
        self._body = None
        body.complete()
