"""A gRPC server whose messages are JSON, whatever content subtype a peer sends."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from providers.errors import ProviderError
from providers.remote.channel import KEEPALIVE_S, KEEPALIVE_TIMEOUT_S, MAX_MESSAGE_BYTES
from providers.remote.dialect import Dialect, dialect_of
from providers.remote.library import grpc_library

_LEAST_PING_MS = 20_000


class Caller(Struct, frozen=True):
    """Who calls."""

    metadata: Mapping[str, str]
    peer: str
    """As gRPC writes it: `ipv4:127.0.0.1:5000`."""

    def dialect(self, *texts: str) -> Dialect:
        """What it speaks, judging by the byte fields it sent and by what it says of itself."""
        return dialect_of(self.metadata, *texts)


class Refused(Exception):
    """A call that gets a gRPC status instead of an answer: `INVALID_ARGUMENT`, `PERMISSION_DENIED`, …"""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}")
        self.status = status
        self.details = details


Unary = Callable[[bytes, Caller], Awaitable[bytes]]
Streaming = Callable[[bytes, Caller], AsyncIterator[bytes]]


class ServerOptions(Struct, frozen=True, kw_only=True):
    """How to serve."""

    token: str = ""
    """Shared secret that every caller has to send; empty: none is asked for."""
    tls_cert: str = ""
    """Path of the certificate chain; with `tls_key`, the server speaks TLS."""
    tls_key: str = ""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    shares_port: bool = False
    """Other processes of this machine may listen on the same port, too, and get their part of the connections."""

    def __repr__(self) -> str:
        return f"ServerOptions(tls_cert={self.tls_cert!r}, shares_port={self.shares_port})"


class JsonServer:
    """Serves the methods of one service. `unary` and `streaming` are by method name."""

    def __init__(
        self,
        service: str,
        unary: Mapping[str, Unary],
        streaming: Mapping[str, Streaming] | None = None,
        options: ServerOptions | None = None,
    ) -> None:
        self._grpc = grpc_library("grpc")
        aio = grpc_library("grpc.aio")
        self._options = options or ServerOptions()
        self._server = aio.server(options=self._settings())
        handlers = {name: self._grpc.unary_unary_rpc_method_handler(self._unary(call)) for name, call in unary.items()}
        for name, stream in (streaming or {}).items():
            handlers[name] = self._grpc.unary_stream_rpc_method_handler(self._streaming(stream))
        self._server.add_generic_rpc_handlers((self._grpc.method_handlers_generic_handler(service, handlers),))

    def _settings(self) -> list[tuple[str, int]]:
        return [
            ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
            ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_MS),
            ("grpc.max_send_message_length", self._options.max_message_bytes),
            ("grpc.max_receive_message_length", self._options.max_message_bytes),
            ("grpc.so_reuseport", int(self._options.shares_port)),
        ]

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises `OSError` if the address cannot be had."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._options.tls_cert:
                bound: int = self._server.add_secure_port(address, self._credentials())
            else:
                bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: the address is in use, or not this machine's") from error
        if not bound:
            raise OSError(f"cannot listen on {address}: the address is in use, or not this machine's")
        await self._server.start()
        return bound

    def _credentials(self) -> Any:
        try:
            pair = (Path(self._options.tls_key).read_bytes(), Path(self._options.tls_cert).read_bytes())
        except OSError as error:
            raise ProviderError(f"TLS: {error.filename} cannot be read: {error.strerror}") from error
        return self._grpc.ssl_server_credentials([pair])

    async def stop(self, grace_s: float) -> None:
        """Take no new call, and end those that run longer than that."""
        await self._server.stop(grace_s)

    def _unary(self, call: Unary) -> Any:
        async def handle(body: bytes, context: Any) -> bytes:
            try:
                return await call(body, self._caller(context))
            except Refused as refused:
                await self._abort(context, refused)
                raise

        return handle

    def _streaming(self, stream: Streaming) -> Any:
        async def handle(body: bytes, context: Any) -> AsyncIterator[bytes]:
            try:
                async for answer in stream(body, self._caller(context)):
                    yield answer
            except Refused as refused:
                await self._abort(context, refused)

        return handle

    async def _abort(self, context: Any, refused: Refused) -> None:
        await context.abort(self._grpc.StatusCode[refused.status], refused.details)

    def _caller(self, context: Any) -> Caller:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        sent = metadata.pop("authorization", "").removeprefix("Bearer ")
        if self._options.token and not hmac.compare_digest(sent.encode(), self._options.token.encode()):
            raise Refused("UNAUTHENTICATED", "the shared token is missing or wrong")
        return Caller(metadata, context.peer() or "")
