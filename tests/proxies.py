"""A TCP proxy that does to connections what networks do: it cuts, refuses, delays, swallows, and loses replies.

Put it between the program under test and its server, then call what shall go wrong:

    async with Proxy(server.port) as proxy:
        backend = await open_backend(proxy.url(stream), options)
        proxy.cut()                        # every connection is reset; new ones work
        await proxy.refuse()               # the same, and nobody listens until `accept`
        proxy.silence()                    # nothing arrives any more, either way, and no one is told, until `heal`
        proxy.strand()                     # the same for today's connections only: a firewall has forgotten them
        proxy.delay_s = 0.2                # each packet, in each direction
        lost = proxy.lose_reply(b"EVALSHA")     # the next such request is carried out; its sender sees a reset instead
        await lost.wait()
        proxy.point_at(replica.port)       # failover behind one address: present connections are reset
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self

PACKET = 65_536


class Trap:
    """A request that shall be carried out without its sender hearing of it. `wait` returns when that has happened."""

    def __init__(self, request: bytes, *, silently: bool) -> None:
        self.request = request
        self.silently = silently
        self.caught = asyncio.Event()
        """Set once such a request is on its way to the server."""
        self.sprung = asyncio.Event()

    async def wait(self, timeout_s: float = 10.0) -> None:
        """Return when the server's answer was thrown away."""
        async with asyncio.timeout(timeout_s):
            await self.sprung.wait()


class Link:
    """One client's connection and its counterpart at the server."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.ends = [client]
        self.is_deaf = False
        """Both ends believe that they are connected; nothing arrives."""
        self.trap: Trap | None = None
        """What to do with the next bytes from the server."""

    def reset(self) -> None:
        """End it at once, with a reset where unread bytes are on their way."""
        for end in self.ends:
            end.transport.abort()


class Proxy:
    """Listens on a loopback port of its own, the same one all its life, and passes on what comes to `port`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._traps: list[Trap] = []
        self._silent = False
        # Bound and never listening: keeps the port ours while connections are refused.
        self._placeholder = _bound(0)
        self.port: int = self._placeholder.getsockname()[1]
        self.delay_s = 0.0
        """How long each packet takes, in each direction."""
        self.accepted = 0
        """Connections that were ever accepted."""

    def url(self, stream: str = "") -> str:
        """A `redis://` URL through this proxy; `stream` names a queue."""
        return f"redis://127.0.0.1:{self.port}/0" + (f"?stream={stream}" if stream else "")

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every connection. New ones are accepted."""
        for link in list(self._links):
            link.reset()

    async def refuse(self) -> None:
        """Reset every connection, and refuse new ones until `accept`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut()

    async def accept(self) -> None:
        """Listen (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self.port))

    def silence(self) -> None:
        """Swallow everything, new connections' bytes too, and tell nobody, until `heal`."""
        self._silent = True
        self.strand()

    def strand(self) -> None:
        """Swallow what present connections send, for as long as they live. New ones work."""
        for link in self._links:
            link.is_deaf = True

    def heal(self) -> None:
        """End `silence` and `delay_s`: new connections work. Those that lost bytes stay deaf, as they do in life."""
        self._silent, self.delay_s = False, 0.0

    def lose_reply(self, request: bytes, *, silently: bool = False) -> Trap:
        """Let the next packet that contains `request` be carried out, and reset its connection when the answer comes;
        `silently`: swallow the answer and leave the connection deaf. Each trap springs once."""
        trap = Trap(request, silently=silently)
        self._traps.append(trap)
        return trap

    def point_at(self, port: int, *, cut: bool = True) -> None:
        """Another server takes over behind this address; without `cut`, present connections stay with the old one."""
        self._target = port
        if cut:
            self.cut()

    async def close(self) -> None:
        """Reset everything and stop listening."""
        await self.refuse()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self._placeholder.close()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        job = asyncio.current_task()
        assert job is not None
        self._jobs.add(job)
        link = Link(writer)
        link.is_deaf = self._silent
        self.accepted += 1
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # of `close`, which waits for this
                await self._carry(link, reader)
        finally:
            self._links.discard(link)
            self._jobs.discard(job)
            link.reset()

    async def _carry(self, link: Link, client: asyncio.StreamReader) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        link.ends.append(to_server)
        pumps = [
            asyncio.create_task(self._requests(link, client, to_server), name="proxy requests"),
            asyncio.create_task(self._replies(link, server, link.ends[0]), name="proxy replies"),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(self, link: Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(PACKET):
            await asyncio.sleep(self.delay_s)
            if link.is_deaf:
                continue
            for trap in self._traps:
                if link.trap is None and trap.request in data:
                    link.trap = trap
                    trap.caught.set()
                    self._traps.remove(trap)
                    break
            sink.write(data)
            await sink.drain()

    async def _replies(self, link: Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(PACKET):
            await asyncio.sleep(self.delay_s)
            if link.trap is not None:
                link.is_deaf = True
                link.trap.sprung.set()
                if not link.trap.silently:
                    return
                link.trap = None
            if not link.is_deaf:
                sink.write(data)
                await sink.drain()


def _bound(port: int) -> socket.socket:
    """A socket that holds a loopback port, next to others that do."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
