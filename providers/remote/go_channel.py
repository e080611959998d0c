"""A channel to Go peers: `application/grpc+json`, by which they choose their codec."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

from providers.errors import ProviderError
from providers.remote.addresses import Address
from providers.remote.channel import KEEPALIVE_S, KEEPALIVE_TIMEOUT_S, ChannelOptions
from providers.remote.dialect import Dialect
from providers.remote.faults import CallFailed
from providers.remote.library import grpc_library

_MOST_WAITING = 64


class _JsonBytes:
    """The codec `json`: bodies are JSON already."""

    __content_subtype__ = "json"

    def __init__(self, max_message_bytes: int) -> None:
        self._most = max_message_bytes

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The body as it is."""
        body: bytes = message
        if len(body) > self._most:
            raise CallFailed("RESOURCE_EXHAUSTED", f"the message is larger than max ({len(body)} vs. {self._most})")
        return body

    def decode(self, data: bytes, message_type: Any) -> bytes:
        """The body as it is."""
        if len(data) > self._most:
            raise CallFailed("RESOURCE_EXHAUSTED", f"the answer is larger than max ({len(data)} vs. {self._most})")
        return data


class GoChannel:
    """A `PluginChannel` on grpclib."""

    def __init__(self, address: Address, options: ChannelOptions) -> None:
        client = grpc_library("grpclib.client")
        const = grpc_library("grpclib.const")
        exceptions = grpc_library("grpclib.exceptions")
        config = grpc_library("grpclib.config").Configuration(
            _keepalive_time=KEEPALIVE_S,
            _keepalive_timeout=KEEPALIVE_TIMEOUT_S,
            _keepalive_permit_without_calls=True,
            _http2_max_pings_without_data=0,
        )
        self._unary, self._streaming = const.Cardinality.UNARY_UNARY, const.Cardinality.UNARY_STREAM
        self._refused: type[Exception] = exceptions.GRPCError
        self._lost = (exceptions.StreamTerminatedError, exceptions.ProtocolError, OSError)
        self._metadata = options.metadata(Dialect.GO)
        self._channel = client.Channel(
            address.host,
            address.port,
            codec=_JsonBytes(options.max_message_bytes),
            ssl=_trusting(options) if address.tls else None,
            config=config,
        )

    # grpclib ends a call whose connection is lost by cancelling the task that waits for it, and then raises an error of
    # its own: a cancellation from outside that comes at the same moment would be forgotten. So each call has a task.

    async def unary(self, method: str, body: bytes, *, timeout_s: float | None) -> bytes:
        """One request, one answer."""
        call = asyncio.create_task(self._unary_call(method, body, timeout_s), name=f"call of {method}")
        try:
            return await asyncio.shield(call)
        finally:
            await _ended(call)

    async def _unary_call(self, method: str, body: bytes, timeout_s: float | None) -> bytes:
        try:
            async with self._opened(method, self._unary, timeout_s) as call:
                await call.send_message(body, end=True)
                answer: bytes | None = await call.recv_message()
        except Exception as error:
            raise self._failed(error) from error
        if answer is None:
            raise CallFailed("UNAVAILABLE", "the peer ended the call without an answer")
        return answer

    async def stream(self, method: str, body: bytes) -> AsyncIterator[bytes]:
        """One request, many answers."""
        arrived: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)
        call = asyncio.create_task(self._stream_call(method, body, arrived), name=f"call of {method}")
        try:
            while (answer := await arrived.get()) is not None:
                yield answer
            await asyncio.shield(call)
        finally:
            await _ended(call)

    async def _stream_call(self, method: str, body: bytes, arrived: asyncio.Queue[bytes | None]) -> None:
        try:
            async with self._opened(method, self._streaming, None) as call:
                await call.send_message(body, end=True)
                while (answer := await call.recv_message()) is not None:
                    await arrived.put(answer)
        except Exception as error:
            await arrived.put(None)
            raise self._failed(error) from error
        await arrived.put(None)

    def _opened(self, method: str, cardinality: Any, timeout_s: float | None) -> Any:
        return self._channel.request(method, cardinality, bytes, bytes, timeout=timeout_s, metadata=self._metadata)

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, self._refused):
            status: Any = error
            return CallFailed(status.status.name, status.message or "")
        if isinstance(error, TimeoutError):  # an OSError too, so it comes first
            return CallFailed("DEADLINE_EXCEEDED", "no answer within the time limit")
        if isinstance(error, self._lost):
            return CallFailed("UNAVAILABLE", str(error) or type(error).__name__)
        if isinstance(error, CallFailed):
            return error
        # grpclib asserts that a message is whole and plain, and lets h2's errors through.
        return CallFailed("UNAVAILABLE", f"the peer breaks the protocol: {type(error).__name__}: {error}".rstrip(": "))

    async def aclose(self) -> None:
        """End all calls and the connection."""
        self._channel.close()
        await asyncio.sleep(0)  # the socket itself is closed by the loop's next pass, which may be its last


async def _ended(call: asyncio.Task[Any]) -> None:
    """End a call, if it has not ended; its own error has been raised, or comes too late."""
    call.cancel()
    await asyncio.wait([call])
    if not call.cancelled():
        call.exception()


def _trusting(options: ChannelOptions) -> ssl.SSLContext:
    trusted = options.trusted()
    try:
        context = ssl.create_default_context(cadata=trusted.decode("ascii", "replace") if trusted else None)
    except ssl.SSLError as error:
        raise ProviderError(f"TLS: {options.ca_file} holds no certificates (PEM): {error.reason}") from error
    context.set_alpn_protocols(["h2"])
    return context
