"""The calls that an engine makes to one plugin, typed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct

from providers.interfaces import Health
from providers.remote.addresses import Address, parse_address
from providers.remote.channel import ChannelOptions, PluginChannel, open_channel
from providers.remote.dialect import Dialect, packed, unpacked_json
from providers.remote.faults import CallFailed
from providers.remote.payload import read_output
from providers.remote.plugin_messages import (
    ChatStreamRequest,
    ChatStreamResponse,
    ConfigUpdatedRequest,
    ConfigUpdatedResponse,
    EmbedRequest,
    EmbedResponse,
    ExecuteRequest,
    ExecuteResponse,
    GetSchemaResponse,
    HealthCheckResponse,
    InfoResponse,
)
from providers.remote.wire import AUTONOMOUS, EMPTY, PLUGIN_SERVICE, BadMessage, Message, decode, encode

HEALTH_LIMIT_S = 5.0
CALL_LIMIT_S = 10.0
"""For calls that need no model."""

M = TypeVar("M", bound=Message)


class Answer(Struct, frozen=True, kw_only=True):
    """What Execute came to."""

    success: bool
    output: dict[str, str]
    """The result as a flat map; an agent's that is none has all of it under `content`."""
    result: bytes = b""
    """The result's JSON."""
    error: str = ""
    duration_ms: int = 0


class PluginClient:
    """A plugin, as its engine and its callers see it. Every call raises `CallFailed`; close it with `aclose`."""

    def __init__(self, address: Address, dialect: Dialect, options: ChannelOptions | None = None) -> None:
        self.address = address
        self.dialect = dialect
        self._channel: PluginChannel = open_channel(address, dialect, options)

    async def info(self) -> InfoResponse:
        """Who it is."""
        return await self._ask("Info", EMPTY, InfoResponse, CALL_LIMIT_S)

    async def schema(self) -> GetSchemaResponse | None:
        """What Execute takes and gives; None if it cannot say: Python's SDK 1.11.0 never can."""
        try:
            return await self._ask("GetSchema", EMPTY, GetSchemaResponse, CALL_LIMIT_S)
        except CallFailed as failed:
            if failed.status in {"INTERNAL", "UNKNOWN", "UNIMPLEMENTED"}:
                return None
            raise

    async def health(self) -> Health:
        """Whether it works, by its own word; a plugin that has no such check is taken to be well."""
        try:
            found = await self._ask("HealthCheck", EMPTY, HealthCheckResponse, HEALTH_LIMIT_S)
        except CallFailed as failed:
            if failed.is_unimplemented:
                return Health(healthy=True, message="it has no health check")
            raise
        return Health(healthy=found.healthy, message=found.message, details=found.details)

    async def config_updated(self, values: Mapping[str, str], version: int = 0) -> str:
        """Hand it settings. Returns why it did not take them, empty if it did."""
        request = ConfigUpdatedRequest(config=dict(values), version=version)
        answer = await self._ask("ConfigUpdated", encode(request), ConfigUpdatedResponse, CALL_LIMIT_S)
        return answer.error

    async def execute(
        self,
        params: Mapping[str, str],
        *,
        action_id: str = "",
        tenant_id: str = "",
        execution_id: str = "",
        step_id: str = "",
        time_range: dict[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Let it work, and wait for all of its answer."""
        request = ExecuteRequest(
            execution_id=execution_id,
            step_id=step_id,
            action_id=action_id,
            params_json=self._packed(params),
            execution_mode=AUTONOMOUS,
            time_range=time_range or {},
            tenant_id=tenant_id,
        )
        answer = await self._ask("Execute", self._with_mode(request), ExecuteResponse, timeout_s)
        return Answer(
            success=answer.success,
            output=_output(answer.result_json, must_be_object=False),
            result=unpacked_json(answer.result_json) if answer.result_json else b"",
            error=answer.error,
            duration_ms=answer.duration_ms,
        )

    async def chat_stream(
        self, params: Mapping[str, str], *, tenant_id: str = ""
    ) -> AsyncGenerator[ChatStreamResponse, None]:
        """Let it answer piece by piece; ends after the final piece, or one with an error."""
        request = ChatStreamRequest(params_json=self._packed(params), tenant_id=tenant_id)
        pieces = self._channel.stream(f"/{PLUGIN_SERVICE}/ChatStream", encode(request))
        async with aclosing(cast("Any", pieces)) as open_pieces:
            async for data in open_pieces:
                piece = _read(ChatStreamResponse, data)
                yield piece
                if piece.is_final or piece.error:
                    return

    async def embed(
        self, model: str, texts: list[str], *, tenant_id: str = "", timeout_s: float | None = None
    ) -> EmbedResponse:
        """Turn texts into vectors."""
        request = EmbedRequest(model=model, inputs=texts, tenant_id=tenant_id)
        return await self._ask("Embed", encode(request), EmbedResponse, timeout_s)

    async def aclose(self) -> None:
        """End all calls and the connection."""
        await self._channel.aclose()

    def _packed(self, params: Mapping[str, str]) -> str:
        return packed(msgspec.json.encode(dict(params)), self.dialect)

    def _with_mode(self, request: ExecuteRequest) -> bytes:
        if self.dialect is Dialect.GO:
            return encode(request)
        request.mode, request.execution_mode = request.execution_mode, 0
        return encode(request)

    async def _ask(self, method: str, body: bytes, kind: type[M], timeout_s: float | None) -> M:
        data = await self._channel.unary(f"/{PLUGIN_SERVICE}/{method}", body, timeout_s=timeout_s)
        return _read(kind, data)


def _read(kind: type[M], data: bytes) -> M:
    try:
        return decode(kind, data)
    except BadMessage as error:
        raise CallFailed("DATA_LOSS", f"the answer cannot be read: {error}") from error


def _output(text: str, *, must_be_object: bool = True) -> dict[str, str]:
    """The outputs in a packed result; agents may answer with any JSON, which then is the `content`."""
    data = unpacked_json(text) if text else b""
    try:
        return read_output(data)
    except ValueError as error:
        if must_be_object:
            raise CallFailed("DATA_LOSS", f"the result cannot be read: {error}") from error
        return {"content": data.decode(errors="replace")}


def stream_output(piece: ChatStreamResponse) -> dict[str, str]:
    """The outputs that come with a final piece between two Shoal processes."""
    return _output(piece.result_json)


async def connect(
    address: str, likely: Dialect, options: ChannelOptions | None = None
) -> tuple[PluginClient, InfoResponse]:
    """A client of the plugin at an address, in whatever dialect it understands, and who it says it is.

    Raises `CallFailed`, or `ValueError` for a text that is no address.
    """
    parsed = parse_address(address)
    for dialect in (likely, likely.other):
        client = PluginClient(parsed, dialect, options)
        try:
            return client, await client.info()
        except CallFailed as failed:
            await client.aclose()
            if dialect is not likely or not failed.is_other_dialect:
                raise
        except BaseException:
            await client.aclose()
            raise
    raise AssertionError("the second dialect returns or raises")
