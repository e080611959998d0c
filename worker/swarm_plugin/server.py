"""The gRPC server of both plugin services: plaintext, as kubeswarm has it."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from queue_backends import (
    BackendMisconfigured,
    BackendUnavailable,
    InvalidTask,
    LeaseLost,
    QueueError,
    QueueFull,
    TaskNotFound,
)
from queue_backends.protobuf import MalformedMessage, Message, decode, encode
from queue_backends.swarm_plugin.calls import OPTIONS
from queue_backends.swarm_plugin.messages import (
    LLM_SERVICE,
    QUEUE_SERVICE,
    AckRequest,
    CancelRequest,
    NackRequest,
    PollRequest,
    ResultsRequest,
    SubmitRequest,
)
from worker.errors import BadSetting
from worker.swarm_plugin.llm_service import LLMService
from worker.swarm_plugin.queue_service import QueueService

M = TypeVar("M", bound=Message)

_STATUS: tuple[tuple[type[QueueError], str], ...] = (
    (LeaseLost, "FAILED_PRECONDITION"),
    (InvalidTask, "INVALID_ARGUMENT"),
    (TaskNotFound, "NOT_FOUND"),
    (QueueFull, "RESOURCE_EXHAUSTED"),
    (BackendUnavailable, "UNAVAILABLE"),
    (BackendMisconfigured, "FAILED_PRECONDITION"),
)

log = structlog.get_logger(__name__)


@asynccontextmanager
async def plugin_server(
    listen: str, *, llm: LLMService | None = None, queue: QueueService | None = None, grace_s: float = 0.0
) -> AsyncIterator[int]:
    """Serve on `host:port` (port 0: any free one) while entered; gives the port. Runs in flight get `grace_s` to end.

    Raises `BadSetting` if the address cannot be listened on or grpcio is missing.
    """
    grpc = _grpc()
    server = grpc.aio.server(options=(*OPTIONS, ("grpc.so_reuseport", 0)))
    handlers = []
    if llm is not None:
        stream = grpc.stream_stream_rpc_method_handler(llm.run_task)
        handlers.append(grpc.method_handlers_generic_handler(LLM_SERVICE, {"RunTask": stream}))
    if queue is not None:
        handlers.append(grpc.method_handlers_generic_handler(QUEUE_SERVICE, _queue_methods(grpc, queue)))
    server.add_generic_rpc_handlers(tuple(handlers))
    try:
        port: int = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise BadSetting(f"cannot listen on {listen!r}: {error}: use host:port of a free port") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace_s)


def _queue_methods(grpc: Any, queue: QueueService) -> dict[str, Any]:
    def unary(kind: type[M], handle: Callable[[M], Awaitable[Message]]) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            try:
                return encode(await handle(decode(kind, request)))
            except MalformedMessage as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except QueueError as error:
                await context.abort(getattr(grpc.StatusCode, _status_of(error)), str(error))
            raise AssertionError("abort always raises")

        return grpc.unary_unary_rpc_method_handler(answer)

    return {
        "Submit": unary(SubmitRequest, queue.submit),
        "Poll": unary(PollRequest, queue.poll),
        "Ack": unary(AckRequest, queue.ack),
        "Nack": unary(NackRequest, queue.nack),
        "Results": unary(ResultsRequest, queue.results),
        "Cancel": unary(CancelRequest, queue.cancel),
    }


def _status_of(error: QueueError) -> str:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), "INTERNAL")


def _grpc() -> Any:
    try:
        importlib.import_module("grpc.aio")
        return importlib.import_module("grpc")
    except ImportError as error:
        raise BadSetting("serving kubeswarm's plugin protocol needs grpcio: pip install 'shoal[grpc]'") from error
