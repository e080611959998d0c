"""A small HTTP server for tests of providers: it replays what a vendor sent, and can break off at any point."""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from msgspec import Struct


class Ending(enum.StrEnum):
    """What the server does after the last frame of an answer."""

    PROPER = "proper"
    """End the body as HTTP says and keep the connection."""
    CLOSE = "close"
    """End the body as HTTP says and close the connection."""
    CUT = "cut"
    """Reset the connection in the middle of the body."""
    HALF_CLOSE = "half_close"
    """Send no more, but go on listening: the end of the stream comes without the end of the body."""
    SILENCE = "silence"
    """Send nothing more and wait for the client to go."""


class Reply(Struct, frozen=True, kw_only=True):
    """One HTTP answer, sent frame by frame."""

    frames: tuple[bytes, ...] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = {}
    ending: Ending = Ending.PROPER
    silent_head: bool = False
    """Not even the status line is sent; `SILENCE` from the very beginning."""


class Received(Struct, frozen=True, kw_only=True):
    """One request as the server got it. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    """Seconds on the event loop's clock."""
    connection: int
    """Which connection it came on, counted from 0."""


def json_error(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """A failed request whose body is JSON."""
    return Reply(status=status, frames=(body,), content_type="application/json", headers=headers or {})


class ReplayServer:
    """Listens on a free loopback port while its context lasts; answers requests in turn, the last reply for ever."""

    def __init__(self, replies: Iterable[Reply] = (), *, tls: ssl.SSLContext | None = None) -> None:
        self.replies = list(replies)
        self.requests: list[Received] = []
        self.client_gone = asyncio.Event()
        """A client closed its connection during an answer."""
        self._tls = tls
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The server's address, without a slash at the end."""
        if self._server is None:
            raise RuntimeError("the server is not running: use it in `async with`")
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._tasks.add(task)
        number, self._connections = self._connections, self._connections + 1
        try:
            while (request := await _read_request(reader, number)) is not None:
                self.requests.append(request)
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if not await self._answer(reply, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.client_gone.set()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if not reply.silent_head:
            writer.write(_head(reply))
            for frame in reply.frames:
                writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))
                await writer.drain()
                await asyncio.sleep(0)
        if reply.ending in (Ending.PROPER, Ending.CLOSE) and not reply.silent_head:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return reply.ending is Ending.PROPER
        if reply.ending is Ending.CUT:
            writer.transport.abort()
            return False
        if reply.ending is Ending.HALF_CLOSE:
            writer.write_eof()
        await reader.read()  # returns when the client closes
        self.client_gone.set()
        return False


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    method, target, _ = first.split(" ", 2)
    return Received(
        method=method,
        target=target,
        headers=headers,
        body=await reader.readexactly(int(headers.get("content-length", "0"))),
        at=asyncio.get_running_loop().time(),
        connection=connection,
    )


def _head(reply: Reply) -> bytes:
    headers = {"content-type": reply.content_type, "transfer-encoding": "chunked", **reply.headers}
    lines = [f"HTTP/1.1 {reply.status} Recorded", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
