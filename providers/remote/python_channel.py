"""A channel to Python peers: `application/grpc` without a subtype, which is all that grpcio speaks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from providers.remote.addresses import Address
from providers.remote.channel import KEEPALIVE_S, KEEPALIVE_TIMEOUT_S, ChannelOptions
from providers.remote.dialect import Dialect
from providers.remote.faults import CallFailed
from providers.remote.library import grpc_library

_NO_CONNECTION = re.compile(r"^failed to connect to all addresses; last error: [A-Z]+: ")
_RECONNECT_MS = 200
_RECONNECT_MOST_MS = 5_000


class PythonChannel:
    """A `PluginChannel` on grpcio."""

    def __init__(self, address: Address, options: ChannelOptions) -> None:
        self._grpc = grpc_library("grpc")
        self._failures = grpc_library("grpc.aio").AioRpcError
        self._metadata = options.metadata(Dialect.PYTHON)
        self._channel = self._opened(address, options)

    def _opened(self, address: Address, options: ChannelOptions) -> Any:
        settings = channel_settings(options.max_message_bytes)
        if not address.tls:
            return self._grpc.aio.insecure_channel(address.target, options=settings)
        credentials = self._grpc.ssl_channel_credentials(root_certificates=options.trusted())
        return self._grpc.aio.secure_channel(address.target, credentials, options=settings)

    async def unary(self, method: str, body: bytes, *, timeout_s: float | None) -> bytes:
        """One request, one answer."""
        call = self._channel.unary_unary(method)
        try:
            answer: bytes = await call(body, timeout=timeout_s, metadata=self._metadata)
        except self._failures as error:
            raise _failed(error) from error
        return answer

    async def stream(self, method: str, body: bytes) -> AsyncIterator[bytes]:
        """One request, many answers."""
        call = self._channel.unary_stream(method)(body, metadata=self._metadata)
        try:
            async for answer in call:
                yield answer
        except self._failures as error:
            raise _failed(error) from error
        finally:
            call.cancel()

    async def aclose(self) -> None:
        """End all calls and the connection."""
        await self._channel.close(None)


def channel_settings(max_message_bytes: int) -> list[tuple[str, int]]:
    """grpcio's settings for a client. Proxies of the environment are for the internet, not for peers."""
    return [
        ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", _RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MOST_MS),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
    ]


def _failed(error: Any) -> CallFailed:
    return CallFailed(error.code().name, _NO_CONNECTION.sub("", error.details() or ""))
