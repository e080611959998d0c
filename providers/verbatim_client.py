"""An httpx client, carried by aiohttp, that sends addresses as they are written.

aiohttp takes back what it finds needlessly encoded, such as `%3A` for a colon, when an address comes as a text. Who
signs an address, as AWS wants it, signs every letter of it.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import httpx
import yarl
from aiohttp import ClientSession, InvalidURL, TCPConnector
from httpx_aiohttp import AiohttpTransport, HttpxAiohttpClient
from httpx_aiohttp.transport import AiohttpResponseStream

from providers.carried_body import CarriedBody
from providers.reading_pace import ReadingPace

BODY = "shoal_body"
"""The extension of a response that holds its `CarriedBody`."""

_WRITTEN_AT_ONCE_BYTES = 1024 * 1024

SocketFactory: TypeAlias = Callable[[tuple[Any, ...]], socket.socket]
"""Makes a socket for (family, type, protocol, canonical name, socket address)."""


class VerbatimClient(HttpxAiohttpClient):
    """Differs from its base by nothing else, unless `open_socket` is to make the sockets of direct connections. Proxies
    are honoured."""

    def __init__(self, *, open_socket: SocketFactory | None = None, **settings: Any) -> None:
        self._open_socket = open_socket
        super().__init__(**settings)

    def _init_transport(
        self, *_: Any, transport: httpx.AsyncBaseTransport | None = None, **settings: Any
    ) -> httpx.AsyncBaseTransport:
        if self._open_socket is not None:
            return _guarded_transport(self._open_socket, settings["verify"], settings["limits"])
        return transport or _VerbatimTransport(**settings)

    def _init_proxy_transport(self, proxy: httpx.Proxy, *_: Any, **settings: Any) -> httpx.AsyncBaseTransport:
        return _VerbatimTransport(proxy=proxy, **settings)


class _VerbatimSession:
    """As much of an aiohttp session as the transport uses."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session

    def request(self, method: str, url: str, **settings: Any) -> Any:
        try:
            address = yarl.URL(url, encoded=True)
            _ = address.port  # is looked at only now, and may be none
        except ValueError as error:
            raise InvalidURL(url) from error
        data = settings["data"]
        if type(data) is bytes and len(data) > _WRITTEN_AT_ONCE_BYTES:  # in pieces, so that other tasks get their turn
            settings["data"] = io.BytesIO(data)
        return self.session.request(method, address, **settings)


class _VerbatimTransport(AiohttpTransport):
    _verbatim: _VerbatimSession | None = None
    _pace: ReadingPace | None = None

    def get_client(self) -> ClientSession:
        if self._verbatim is None:
            self._verbatim = _VerbatimSession(super().get_client())
        return cast("ClientSession", self._verbatim)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if self._pace is None:
            self._pace = ReadingPace()
        carried = cast("AiohttpResponseStream", response.stream)._aiohttp_response  # noqa: SLF001 - the only way to it
        response.extensions[BODY] = CarriedBody(carried, self._pace)
        return response

    async def aclose(self) -> None:
        if self._verbatim is not None:
            await self._verbatim.session.close()


def _guarded_transport(open_socket: SocketFactory, context: ssl.SSLContext, limits: httpx.Limits) -> _VerbatimTransport:
    def session() -> ClientSession:
        connector = TCPConnector(
            ssl=context,
            limit=limits.max_connections or 0,
            keepalive_timeout=limits.keepalive_expiry,
            socket_factory=open_socket,
        )
        return ClientSession(connector=connector)

    return _VerbatimTransport(client=session)
