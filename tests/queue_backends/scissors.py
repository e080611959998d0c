"""A way to a server that is cut in the middle of what a process sends, after exactly so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Scissors:
    """Listens on a loopback port of its own. Requests are counted over all connections together; replies are not.

    async with Scissors(server.port) as scissors:
        scissors.cut_after(100)  # the next 100 bytes arrive; then every connection ends, and new ones do, too
        scissors.mend()  # new connections work
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._left: int | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self.sent = 0
        """Bytes that went to the server so far."""
        self.port = 0

    def cut_after(self, sent: int) -> None:
        """Let so many more bytes through, then none."""
        self._left = sent
        if not sent:
            self._cut()

    def mend(self) -> None:
        """Let through what comes over new connections."""
        self._left = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._cut()
        await asyncio.gather(*self._jobs)

    def _cut(self) -> None:
        for job in self._jobs:
            job.cancel()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        job = asyncio.current_task()
        assert job is not None
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        try:
            if self._left != 0:
                await self._carry(client, to_client)
        except (OSError, asyncio.CancelledError):
            return  # this is how it ends; asyncio's streams would complain
        finally:
            to_client.transport.abort()

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        ways = [
            asyncio.create_task(self._requests(client, to_server)),
            asyncio.create_task(_replies(server, to_client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            to_server.close()  # what it was sent, it gets
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            self.sent += len(data)
            sink.write(data)
            if self._left == 0:
                self._cut()
                return
            await sink.drain()


async def _replies(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
