"""The socket on which a process finds its host's services."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import structlog

from providers.remote.library import grpc_library
from queue_backends.protobuf import MalformedMessage, Message, decode, encode
from worker.agent_plugins.go_plugin.channel import SETTINGS
from worker.agent_plugins.go_plugin.host_api import HostApi, HostRefused
from worker.agent_plugins.go_plugin.messages import (
    CallLLMRequest,
    ExecuteToolRequest,
    KeyRequest,
    PublishRequest,
    QueryDatasourceRequest,
    SubscribeRequest,
    WriteKVRequest,
)

MANAGEMENT = "ai_studio_management.AIStudioManagementService"
EVENTS = "plugin_events.PluginEventService"
MOST_CALLS = 100
"""Of one process at the same time."""

M = TypeVar("M", bound=Message)
During = Callable[[], AbstractContextManager[None]]
"""What surrounds the answering of a call. A subscription belongs to no message."""

log = structlog.get_logger(__name__)


def host_server(api: HostApi, address: str) -> Any:
    """grpcio's server for one process, not started yet."""
    aio, grpc = grpc_library(), grpc_library("grpc")
    server = aio.server(options=SETTINGS, maximum_concurrent_rpcs=MOST_CALLS)
    unary = {
        "ExecuteTool": (ExecuteToolRequest, api.execute_tool),
        "CallToolOperation": (ExecuteToolRequest, api.execute_tool),
        "QueryDatasource": (QueryDatasourceRequest, api.query_datasource),
        "WritePluginKV": (WriteKVRequest, api.write_kv),
        "ReadPluginKV": (KeyRequest, api.read_kv),
        "DeletePluginKV": (KeyRequest, api.delete_kv),
        "ListPlugins": (KeyRequest, api.list_plugins),
    }
    management = {
        name: grpc.unary_unary_rpc_method_handler(_unary(api.answering, kind, answer))  # type: ignore[arg-type]  # each its own
        for name, (kind, answer) in unary.items()
    }
    management["CallLLM"] = grpc.unary_stream_rpc_method_handler(_stream(api.answering, CallLLMRequest, api.call_llm))
    events = {
        "Publish": grpc.unary_unary_rpc_method_handler(_unary(api.answering, PublishRequest, api.publish)),
        "Subscribe": grpc.unary_stream_rpc_method_handler(
            _stream(contextlib.nullcontext, SubscribeRequest, api.subscribe)
        ),
    }
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(MANAGEMENT, management),
            grpc.method_handlers_generic_handler(EVENTS, events),
        )
    )
    server.add_insecure_port(f"unix:{address}")
    return server


def _unary(
    during: During, kind: type[M], answer: Callable[[M], Awaitable[Message]]
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def handle(raw: bytes, context: Any) -> bytes:
        try:
            with during():
                return encode(await answer(decode(kind, raw)))
        except Exception as error:
            await _abort(context, error)
            raise

    return handle


def _stream(
    during: During, kind: type[M], answers: Callable[[M], AsyncIterator[Message]]
) -> Callable[[bytes, Any], AsyncIterator[bytes]]:
    async def handle(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            with during():
                async for answer in answers(decode(kind, raw)):
                    yield encode(answer)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await _abort(context, error)

    return handle


async def _abort(context: Any, error: Exception) -> None:
    codes = grpc_library("grpc").StatusCode
    match error:
        case HostRefused(status=status, details=details):
            await context.abort(codes[status], details)
        case MalformedMessage():
            await context.abort(codes.INVALID_ARGUMENT, f"the request cannot be read: {error}")
        case _:
            log.exception("a plugin's call to its host failed", exc_info=error)
            await context.abort(codes.INTERNAL, "the host failed")
