"""A client that reads when a test says so, and no earlier."""

from __future__ import annotations

import asyncio
import contextlib
import socket

WITHIN_S = 30.0
LOOK_BACK_BYTES = 70_000
"""More than is read at once, and the text that is looked for."""


class Connection:
    """A client's side of a stream, with no more buffer than it has to have."""

    def __init__(self, url: str, path: str = "/") -> None:
        self._port = int(url.rpartition(":")[2])
        self._path = path

    async def __aenter__(self) -> Connection:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._port))
        self.reader, self.writer = await asyncio.open_connection(sock=raw, limit=4096)
        self.writer.write(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def until(self, text: bytes) -> bytes:
        """Everything up to a text."""
        seen = bytearray()
        async with asyncio.timeout(WITHIN_S):
            while text not in seen[-LOOK_BACK_BYTES:]:
                more = await self.reader.read(65536)
                assert more, f"the stream has ended after {bytes(seen[-200:])!r}"
                seen += more
        return bytes(seen)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.read()
