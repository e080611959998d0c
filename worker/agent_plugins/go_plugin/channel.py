"""gRPC to a plugin's process, with messages that we encode ourselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from providers.remote.library import grpc_library
from queue_backends.protobuf import MalformedMessage, Message, decode, encode
from worker.agent_plugins.errors import AgentPluginError

M = TypeVar("M", bound=Message)

UNLIMITED = -1
SETTINGS = [
    ("grpc.max_send_message_length", UNLIMITED),
    ("grpc.max_receive_message_length", UNLIMITED),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
"""Of both sides: go-plugin sets no limit on messages."""


class PluginCallFailed(AgentPluginError):
    """A call to a plugin's process has failed. `status` is gRPC's name of how, such as `UNAVAILABLE`."""

    def __init__(self, method: str, status: str, details: str) -> None:
        super().__init__(f"{method.rpartition('/')[2]} failed: {details or status} ({status})")
        self.method = method
        self.status = status
        self.details = details


class PluginChannel:
    """The connection to one process."""

    def __init__(self, target: str) -> None:
        self._grpc = grpc_library()
        self._channel = self._grpc.insecure_channel(target, options=SETTINGS)

    async def unary(self, method: str, request: Message, answer: type[M], *, timeout_s: float) -> M:
        """One request, one answer. Raises `PluginCallFailed`."""
        call = self._channel.unary_unary(method)
        try:
            return decode(answer, await call(encode(request), timeout=timeout_s))
        except self._grpc.AioRpcError as error:
            raise PluginCallFailed(method, error.code().name, error.details() or "") from error
        except MalformedMessage as error:
            raise PluginCallFailed(method, "INTERNAL", f"the answer cannot be read: {error}") from error

    async def stream(self, method: str, request: Message, answer: type[M]) -> AsyncGenerator[M, None]:
        """One request, many answers. Raises `PluginCallFailed`. Closing the iterator ends the call."""
        call = self._channel.unary_stream(method)(encode(request))
        try:
            async for raw in call:
                yield decode(answer, raw)
        except self._grpc.AioRpcError as error:
            raise PluginCallFailed(method, error.code().name, error.details() or "") from error
        except MalformedMessage as error:
            raise PluginCallFailed(method, "INTERNAL", f"an answer cannot be read: {error}") from error
        finally:
            call.cancel()

    def both_ways(self, method: str) -> Any:
        """A call in which both sides send: grpcio's own object."""
        return self._channel.stream_stream(method)()

    async def aclose(self) -> None:
        """End all calls and the connection."""
        await self._channel.close(None)
