"""Calls of a kubeswarm queue plugin over plaintext gRPC."""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

from queue_backends.errors import BackendMisconfigured, BackendUnavailable, InvalidTask, QueueError
from queue_backends.protobuf import MalformedMessage, Message, decode, encode
from queue_backends.swarm_plugin.messages import QUEUE_SERVICE

CALL_LIMIT_S = 15.0
"""For each call, but for `Poll`, which may also take as long as it was told to wait."""
MOST_MESSAGE_BYTES = 64 * 1024 * 1024
OPTIONS = (
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
)
_SETUP = frozenset({"UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"})
_INPUT = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE"})

M = TypeVar("M", bound=Message)


def grpc_aio() -> Any:
    """The `grpc.aio` module. Raises `BackendMisconfigured` if it is not installed."""
    try:
        return importlib.import_module("grpc.aio")
    except ImportError as error:
        raise BackendMisconfigured("kubeswarm plugins need grpcio: pip install 'shoal[grpc]'") from error


class QueueCalls:
    """The six calls of a `TaskQueue` plugin at `host:port`; belongs to the event loop that it is made in.

    Each raises `BackendUnavailable`, `InvalidTask` or `BackendMisconfigured`, with kubeswarm's own texts:
    `grpc queue poll: …`.
    """

    def __init__(self, address: str) -> None:
        aio = grpc_aio()
        self.address = address
        self._failure: type[Exception] = aio.AioRpcError
        self._channel = aio.insecure_channel(address, options=OPTIONS)

    async def call(self, method: str, message: Message, answer: type[M], *, limit_s: float = CALL_LIMIT_S) -> M:
        """Send one message, get one."""
        unary = self._channel.unary_unary(
            f"/{QUEUE_SERVICE}/{method}", request_serializer=encode, response_deserializer=None
        )
        try:
            raw: bytes = await unary(message, timeout=limit_s)
            return decode(answer, raw)
        except MalformedMessage as error:
            raise BackendUnavailable(f"grpc queue {method.lower()}: the answer cannot be read: {error}") from error
        except self._failure as error:
            raise _failed(method, error) from error

    async def ready(self) -> None:
        """Return once the plugin can be reached; the caller bounds the wait."""
        await self._channel.channel_ready()

    async def close(self) -> None:
        """End all calls and the connection."""
        await self._channel.close()


def _failed(method: str, error: Any) -> QueueError:
    status = error.code().name
    text = f"grpc queue {method.lower()}: {error.details() or status}"
    if status in _SETUP:
        return BackendMisconfigured(f"{text} ({status})")
    return InvalidTask(text) if status in _INPUT else BackendUnavailable(text)
