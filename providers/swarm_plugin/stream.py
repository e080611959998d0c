"""One run's stream to a kubeswarm LLM plugin: plaintext gRPC on a connection of its own."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    InvalidRequest,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StreamBroken,
    Unavailable,
)
from queue_backends.protobuf import MalformedMessage, decode, encode
from queue_backends.swarm_plugin.messages import LLM_SERVICE, RunTaskMessage

RUN_TASK = f"/{LLM_SERVICE}/RunTask"
NAME = "grpc"
MOST_MESSAGE_BYTES = 64 * 1024 * 1024
_ERRORS: dict[str, type[ProviderError]] = {
    "UNAUTHENTICATED": AuthenticationFailed,
    "PERMISSION_DENIED": AuthenticationFailed,
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": InvalidRequest,
    "UNIMPLEMENTED": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest,
    "RESOURCE_EXHAUSTED": RateLimited,
    "DEADLINE_EXCEEDED": ProviderTimeout,
    "UNAVAILABLE": Unavailable,
}


class RunStream:
    """Both directions of one run. Texts of errors are kubeswarm's own."""

    def __init__(self, call: Any, failure: type[Exception]) -> None:
        self._call = call
        self._failure = failure

    async def send(self, message: RunTaskMessage, doing: str) -> None:
        """Send one message; `doing` is what an error is said of. Raises a `ProviderError`."""
        try:
            await self._call.write(encode(message))
        except (self._failure, asyncio.InvalidStateError) as error:
            raise self._failed(error, doing) from error

    async def receive(self, limit_s: float) -> RunTaskMessage | None:
        """The next message; None at the stream's end. Raises a `ProviderError`."""
        try:
            async with asyncio.timeout(limit_s):
                data = await self._call.read()
        except TimeoutError as error:
            raise ProviderTimeout(f"grpc provider: recv: nothing came within {limit_s:g} s", provider=NAME) from error
        except self._failure as error:
            raise self._failed(error, "recv") from error
        if not isinstance(data, bytes):  # grpc's mark of the end
            if not (await self._call.code()).value[0]:
                return None
            raise self._failed(None, "recv", f"{(await self._call.code()).name}: {await self._call.details()}")
        try:
            return decode(RunTaskMessage, data)
        except MalformedMessage as error:
            raise BadResponse(f"grpc provider: recv: {error}", provider=NAME) from error

    def _failed(self, error: Any, doing: str, text: str = "") -> ProviderError:
        if not isinstance(error, self._failure):
            return StreamBroken(f"grpc provider: {doing}: {text or error}", provider=NAME)
        known: Any = error
        status = known.code().name
        return _ERRORS.get(status, StreamBroken)(f"grpc provider: {doing}: {known.details() or status}", provider=NAME)


@asynccontextmanager
async def run_stream(address: str, connect_limit_s: float) -> AsyncIterator[RunStream]:
    """Connect and open the stream; leaving the block ends both. Raises a `ProviderError`."""
    aio = _grpc_aio()
    options = (
        ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
    )
    channel = aio.insecure_channel(address, options=options)
    try:
        await _connected(channel, address, connect_limit_s)
        try:
            call = channel.stream_stream(RUN_TASK)()
        except aio.AioRpcError as error:
            raise Unavailable(f"grpc provider: open stream: {error.details()}", provider=NAME) from error
        try:
            yield RunStream(call, aio.AioRpcError)
        finally:
            call.cancel()
    finally:
        await channel.close()


async def reachable(address: str, limit_s: float) -> None:
    """Return once a plugin can be connected to. Raises `Unavailable`."""
    channel = _grpc_aio().insecure_channel(address)
    try:
        await _connected(channel, address, limit_s)
    finally:
        await channel.close()


async def _connected(channel: Any, address: str, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await channel.channel_ready()
    except TimeoutError as error:
        raise Unavailable(
            f"grpc provider: dial {address}: no connection within {limit_s:g} s", provider=NAME
        ) from error


def _grpc_aio() -> Any:
    try:
        return importlib.import_module("grpc.aio")
    except ImportError as error:
        raise InvalidRequest("the grpc provider needs grpcio: pip install 'shoal[grpc]'", provider=NAME) from error
