"""The SDK's transports, made from a declaration: with credentials, a place for stderr, and news of their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from worker.net_guard import NetGuard
from worker.tools.config import McpServer
from worker.tools.mcp_auth import Credentials
from worker.tools.shared_folders import NO_FOLDERS, VARIABLE, SharedFolders
from worker.tools.stderr_tail import StderrTail

if TYPE_CHECKING:
    import httpx2

_IDLE_STREAM_S = 86_400.0
"""A session may say nothing for hours; each call has its own time limit."""


class TransportNews(Struct, frozen=True):
    """Whom to tell what the SDK itself tells nobody."""

    on_end: Callable[[], None]
    """The incoming stream has ended: the session cannot be used any more."""
    on_http_error: Callable[[int], None]
    """An HTTP answer had this error status."""


async def open_transport(
    server: McpServer,
    credentials: Credentials,
    stderr: StderrTail,
    news: TransportNews,
    guard: NetGuard | None = None,
    folders: SharedFolders = NO_FOLDERS,
) -> WatchedTransport:
    """A transport that is not connected yet, for the SDK's client to enter and leave."""
    from mcp import StdioServerParameters
    from mcp.client.sse import sse_client
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client

    if server.kind == "stdio":
        shared = {} if folders.of_the_only_task is None else {VARIABLE: str(folders.of_the_only_task)}
        environ = {**shared, **server.env}
        parameters = StdioServerParameters(command=server.command, args=list(server.args), env=environ)
        return WatchedTransport(stdio_client(parameters, errlog=stderr.writer), news.on_end)
    client = await asyncio.to_thread(_http_client, credentials, news, guard)  # reads the CA files
    if server.kind == "sse":
        sse = sse_client(server.url, sse_read_timeout=_IDLE_STREAM_S, httpx_client_factory=lambda *_, **__: client)
        return WatchedTransport(sse, news.on_end)
    return WatchedTransport(streamable_http_client(server.url, http_client=client), news.on_end, client)


def _http_client(credentials: Credentials, news: TransportNews, guard: NetGuard | None) -> httpx2.AsyncClient:
    # The SDK's transports take this client and no other. Nothing else here speaks HTTP through it.
    import httpx2

    async def note_error(response: httpx2.Response) -> None:
        if response.status_code >= 400:
            news.on_http_error(response.status_code)

    settings: dict[str, Any] = {
        "headers": credentials.headers,
        "verify": credentials.tls or True,
        "timeout": httpx2.Timeout(30.0, read=_IDLE_STREAM_S),
        "event_hooks": {"response": [note_error]},
    }
    if guard is None:
        return httpx2.AsyncClient(**settings)
    from worker.tools.guarded_client import GuardedClient

    return GuardedClient(guard, settings)


class WatchedTransport:
    """An SDK transport that says when its incoming stream has ended, and closes its HTTP client after itself."""

    def __init__(self, transport: Any, on_end: Callable[[], None], client: httpx2.AsyncClient | None = None) -> None:
        self._transport = transport
        self._on_end = on_end
        self._client = client

    async def __aenter__(self) -> Any:
        try:
            incoming, outgoing = await self._transport.__aenter__()
        except BaseException:
            await self._close_client()
            raise
        return WatchedStream(incoming, self._on_end), outgoing

    async def __aexit__(self, *exc_info: Any) -> Any:
        try:
            return await self._transport.__aexit__(*exc_info)
        finally:
            await self._close_client()

    async def _close_client(self) -> None:
        if self._client is not None:
            await self._client.aclose()


class WatchedStream:
    """A stream of messages from the server, unchanged."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    @property
    def last_context(self) -> Any:
        """The context in which the last message was sent; the SDK looks for it by this name."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Any:
        """The next message."""
        return await self._watched(self._stream.receive())

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    def __aiter__(self) -> WatchedStream:
        return self

    async def __anext__(self) -> Any:
        return await self._watched(self._stream.__anext__())

    async def _watched(self, message: Any) -> Any:
        try:
            return await message
        except BaseException:
            self._on_end()
            raise

    async def __aenter__(self) -> WatchedStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> Any:
        return await self._stream.__aexit__(*exc_info)
