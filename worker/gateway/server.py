"""The HTTP server, in this process' event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Final

import uvicorn
from starlette.applications import Starlette

from worker.errors import BadSetting
from worker.gateway.connection_limits import bounded
from worker.gateway.front import Front
from worker.gateway.http_protocol import http_protocol
from worker.settings.gateway import GatewaySettings

_GOODBYE_LIMIT_S: Final = 5.0


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's, which has more to end than this server."""
        yield


class HttpServer:
    """A server that listens."""

    def __init__(self, host: str, port: int, *, is_tls: bool, front: Front, server: uvicorn.Server) -> None:
        self._front = front
        self._server = server
        self.port = port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if is_tls else 'http'}://{shown}:{port}"

    @property
    def is_open(self) -> bool:
        """Whether it asks nobody for a key."""
        return self._front.auth.is_open

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.server_state.connections)


@contextlib.asynccontextmanager
async def serving(app: Starlette, settings: GatewaySettings) -> AsyncIterator[HttpServer]:
    """Serve `app` until the body ends; then let running requests finish within the grace period.

    Raises `BadSetting` if the address, or the certificate, cannot be used.
    """
    _check_certificate(settings)
    listener = listening_socket(settings)
    server = _Server(_config(app, settings))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[listener]), name="http server")
        await server.has_started.wait()
        try:
            port = listener.getsockname()[1]
            yield HttpServer(settings.host, port, is_tls=bool(settings.tls_cert), front=app.state.front, server=server)
        finally:
            await _end(server, app, settings.grace_s)


async def _end(server: _Server, app: Starlette, grace_s: float) -> None:
    """Take no more connections, say goodbye on streams, and let requests that are being answered finish."""
    for listening in server.servers:
        listening.close()
    streams = app.state.front.streams
    try:
        await streams.end(min(_GOODBYE_LIMIT_S, grace_s))
    finally:
        server.should_exit = True


def listening_socket(settings: GatewaySettings) -> socket.socket:
    """A socket bound to the address of the settings. Raises `BadSetting` if it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Without the protocol's number, the event loop would not switch Nagle's algorithm off: 40 ms for each answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listener.close()
        raise BadSetting(
            f"gateway.port: cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        ) from error
    listener.setblocking(False)
    return listener


def _check_certificate(settings: GatewaySettings) -> None:
    if not settings.tls_cert:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except OSError as error:
        raise BadSetting(
            f"gateway.tls_cert {settings.tls_cert!r} with gateway.tls_key {settings.tls_key!r} cannot be used: "
            f"{error.strerror or error}; both are PEM files, the key's without a password"
        ) from None


def _config(app: Starlette, settings: GatewaySettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=bounded(http_protocol()),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=max(1, round(settings.keep_alive_s)),
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
    )
