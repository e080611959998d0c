"""One provider, as calls of MIRASTACK's PluginService see it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from providers.errors import InvalidRequest, ProviderError, StreamBroken
from providers.interfaces import ChatProvider, ConfigParam, Embedder, HealthCheck, LiveConfig, LLMProvider
from providers.messages import (
    AgentConfig,
    Message,
    StopReason,
    TextDelta,
    ThinkingDelta,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.remote.dialect import Dialect, packed, unpacked_json
from providers.remote.faults import described
from providers.remote.json_server import Caller, Refused
from providers.remote.payload import FEATURE, FULL, Ask, Flat, output_of, read_ask, read_params
from providers.remote.plugin_messages import (
    ChatStreamRequest,
    ChatStreamResponse,
    ConfigItem,
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
from providers.remote.provider_schema import OUTPUTS, PARAMS
from providers.remote.whole_run import run_whole
from providers.remote.wire import OPERATE, PROVIDER, READ, BadMessage, decode, encode

HEALTH_LIMIT_S = 5.0
_MOST_PAUSES = 8

log = logging.getLogger("shoal.remote")


class Identity(Struct, frozen=True, kw_only=True):
    """Who a served provider says it is."""

    name: str
    version: str
    description: str
    instance_id: str


class ServedProvider:
    """Answers the calls of engines. Each method takes a message and who sent it, and returns a message."""

    def __init__(self, provider: LLMProvider, identity: Identity, config: AgentConfig) -> None:
        self._provider = provider
        self._identity = identity
        self._config = config

    def methods(self) -> dict[str, Any]:
        """The unary calls by name."""
        methods = {
            "Info": self.info,
            "GetSchema": self.schema,
            "Execute": self.execute,
            "HealthCheck": self.health_check,
            "ConfigUpdated": self.config_updated,
        }
        if isinstance(self._provider, Embedder):
            methods["Embed"] = self.embed
        return methods

    async def info(self, body: bytes, caller: Caller) -> bytes:
        """Name, version and settings."""
        identity = self._identity
        info = InfoResponse(
            name=identity.name,
            version=identity.version,
            description=identity.description,
            type=PROVIDER,
            permission=READ,
            devops_stages=[OPERATE],
            config_schema=[_item(param) for param in self._params()],
            metadata={FEATURE: "1"},
            instance_id=identity.instance_id,
        )
        return encode(info)

    async def schema(self, body: bytes, caller: Caller) -> bytes:
        """The parameters and outputs of Execute."""
        dialect = caller.dialect()
        return encode(
            GetSchemaResponse(
                params_json_schema=packed(msgspec.json.encode(PARAMS), dialect),
                result_json_schema=packed(msgspec.json.encode(OUTPUTS), dialect),
            )
        )

    async def execute(self, body: bytes, caller: Caller) -> bytes:
        """One turn, answered in one piece. What goes wrong is an answer, too."""
        request = _request(ExecuteRequest, body)
        started = time.monotonic()
        dialect = caller.dialect(request.params_json)
        output, error = await self._answered(request.params_json, request.tenant_id)
        return encode(
            ExecuteResponse(
                success=not error,
                result_json=packed(msgspec.json.encode(output), dialect) if output or not error else "",
                error=error,
                duration_ms=round((time.monotonic() - started) * 1000),
            )
        )

    async def _answered(self, params_json: str, tenant: str) -> tuple[Flat, str]:
        """The outputs, and the error if there is one."""
        params: Flat = {}
        try:
            params = read_params(unpacked_json(params_json))
            ask = self._ask(params)
            async with aclosing(self._turn(ask, tenant)) as events:
                async for event in events:
                    if type(event) is TurnEnd:
                        return output_of(_named(event, ask), full=ask.full), ""
        except Exception as error:  # noqa: BLE001 - a provider is anybody's code, and its caller is to hear of it
            return self._failure(error, params)
        return self._failure(_no_end(), params)

    def _failure(self, error: Exception, params: Mapping[str, str]) -> tuple[Flat, str]:
        if not isinstance(error, ProviderError):
            log.error("the provider raised %s", type(error).__name__, exc_info=error)
            return {}, f"{type(error).__name__}: {error}"
        log.warning("a call failed: %s", error)
        return (described(error) if FULL in params else {}), str(error) or type(error).__name__

    def _ask(self, params: Mapping[str, str]) -> Ask:
        """What is asked; a model that is configured live counts more than the one we were started with."""
        value: Any = getattr(self._provider, "value", None)
        live = value("model") if value and any(param.key == "model" for param in self._params()) else ""
        return read_ask(params, replace(self._config, model=live) if live else self._config)

    async def chat_stream(self, body: bytes, caller: Caller) -> AsyncIterator[bytes]:
        """One turn, piece by piece; then the final piece, which is the error if there is one."""
        request = _request(ChatStreamRequest, body)
        dialect = caller.dialect(request.params_json)
        params: Flat = {}
        try:
            params = read_params(unpacked_json(request.params_json))
            ask = self._ask(params)
            async with aclosing(self._turn(ask, request.tenant_id)) as events:
                async for event in events:
                    if piece := _piece(event, ask, dialect):
                        yield encode(piece)
                    if type(event) is TurnEnd:
                        return
            failure: Exception = _no_end()
        except Exception as error:  # noqa: BLE001 - as in `_answered`
            failure = error
        told, text = self._failure(failure, params)
        result = packed(msgspec.json.encode(told), dialect) if told else ""
        yield encode(ChatStreamResponse(error=text, is_final=True, result_json=result))

    def _turn(self, ask: Ask, tenant: str) -> AsyncGenerator[TurnEvent, None]:
        provider = self._provider
        if isinstance(provider, ChatProvider):
            return _chat_turn(provider, ask, tenant)
        return run_whole(provider, ask, tenant)

    async def embed(self, body: bytes, caller: Caller) -> bytes:
        """One vector per text."""
        request = _request(EmbedRequest, body)
        provider = cast("Embedder", self._provider)
        config = self._ask({"prompt": "-", "model": request.model}).config
        try:
            vectors = await provider.embed(config, request.inputs)
        except Exception as error:  # noqa: BLE001 - as in `_answered`
            return encode(EmbedResponse(model=config.model, error=self._failure(error, {})[1]))
        dimensions = len(vectors[0]) if vectors else 0
        return encode(EmbedResponse(vectors=vectors, model=config.model, dimensions=dimensions))

    async def health_check(self, body: bytes, caller: Caller) -> bytes:
        """The provider's own check, within five seconds."""
        if not isinstance(self._provider, HealthCheck):
            return encode(HealthCheckResponse(healthy=True, message="it has no health check of its own"))
        try:
            async with asyncio.timeout(HEALTH_LIMIT_S):
                found = await self._provider.health_check(self._ask({"prompt": "-"}).config)
        except TimeoutError:
            return encode(HealthCheckResponse(message=f"the check took longer than {HEALTH_LIMIT_S:g} s"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the provider is not well
            return encode(HealthCheckResponse(message=self._failure(error, {})[1]))
        return encode(HealthCheckResponse(healthy=found.healthy, message=found.message, details=found.details))

    async def config_updated(self, body: bytes, caller: Caller) -> bytes:
        """Take new settings."""
        request = _request(ConfigUpdatedRequest, body)
        try:
            await self.take(request.config)
        except Exception as error:  # noqa: BLE001 - the engine is to hear that its settings were not taken
            return encode(ConfigUpdatedResponse(error=self._failure(error, {})[1]))
        return encode(ConfigUpdatedResponse(acknowledged=True))

    async def take(self, values: Mapping[str, str]) -> None:
        """Use those of the values that the provider has declared. Raises what it raises."""
        known = {param.key for param in self._params()}
        chosen = {key: value for key, value in values.items() if key in known}
        if chosen and isinstance(self._provider, LiveConfig):
            await self._provider.config_updated(chosen)
            log.info("settings taken: %s", ", ".join(sorted(chosen)))

    def _params(self) -> Sequence[ConfigParam]:
        return self._provider.describe() if isinstance(self._provider, LiveConfig) else ()

    async def aclose(self) -> None:
        """Close the provider, if it has something to close."""
        close: Any = getattr(self._provider, "aclose", None)
        if close is not None and inspect.isawaitable(closing := close()):
            await closing


async def _chat_turn(provider: ChatProvider, ask: Ask, tenant: str) -> AsyncGenerator[TurnEvent, None]:
    """A turn. One that the vendor paused is gone on with here, unless the caller knows what that is."""
    messages = ask.messages
    for _ in range(_MOST_PAUSES):
        request = TurnRequest(config=ask.config, messages=messages, tools=ask.tools, tenant=tenant)
        paused: Message | None = None
        async with aclosing(cast("AsyncGenerator[TurnEvent, None]", provider.stream_turn(request))) as events:
            async for event in events:
                if isinstance(event, TurnEnd) and event.stop_reason is StopReason.PAUSE and not ask.full:
                    paused = event.message
                else:
                    yield event
        if paused is None:
            return
        messages = (*messages, paused)
    raise InvalidRequest(f"the model paused {_MOST_PAUSES} times without an answer")


def _piece(event: TurnEvent, ask: Ask, dialect: Dialect) -> ChatStreamResponse | None:
    if isinstance(event, TextDelta):
        return ChatStreamResponse(token=event.text)
    if isinstance(event, ThinkingDelta):
        return ChatStreamResponse(thinking=event.text) if ask.full else None
    if not isinstance(event, TurnEnd):
        return None
    result = ""
    if ask.full:
        output = output_of(_named(event, ask), full=True)
        result = packed(msgspec.json.encode(output), dialect)
    return ChatStreamResponse(is_final=True, result_json=result)


def _no_end() -> ProviderError:
    return StreamBroken("the stream ended before the answer did")


def _named(end: TurnEnd, ask: Ask) -> TurnEnd:
    return end if end.model else replace(end, model=ask.config.model)


def _item(param: ConfigParam) -> ConfigItem:
    return ConfigItem(
        key=param.key,
        type=param.type,
        required=param.required,
        default=param.default,
        description=param.description,
        is_secret=param.secret,
    )


def _request(kind: Any, body: bytes) -> Any:
    try:
        return decode(kind, body)
    except BadMessage as error:
        raise Refused("INVALID_ARGUMENT", f"the request cannot be read: {error}") from error
