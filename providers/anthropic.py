"""Anthropic's Messages API, and servers compatible with it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar
from urllib.parse import quote

import msgspec

from providers import anthropic_request as requests
from providers.anthropic_events import MessageReader, error_event
from providers.anthropic_model import model_told
from providers.calls import Call, Limits, shown
from providers.capabilities import Capability
from providers.credentials import api_key, base_url
from providers.decoding import decoded
from providers.errors import BadResponse, ProviderError
from providers.event_stream import EventStream
from providers.health import checked, health_limits
from providers.interfaces import ChatProvider, ConfigParam, Health, ModelInfo
from providers.live_config import Configurable
from providers.messages import AgentConfig, Message, TurnEvent, TurnRequest
from providers.model_facts import known_facts, merged
from providers.streamed_turn import read_turn
from providers.transport import Transport

_BASE_URL = "https://api.anthropic.com"
_VERSION = "2023-06-01"
_DEFAULT_COMPLETION_TOKENS = 4000


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Completion(msgspec.Struct):
    content: list[_Block] = []


class _Count(msgspec.Struct):
    input_tokens: int


_completion_decoder = msgspec.json.Decoder(_Completion)
_count_decoder = msgspec.json.Decoder(_Count)


class AnthropicProvider(Configurable, ChatProvider):
    """`ANTHROPIC_API_KEY` (or the variable that `config.api_key_env` names) is the key, read at each call.

    The address is `config.base_url`, else the live setting, else `ANTHROPIC_BASE_URL`, else Anthropic's own.
    `config.options` may have `extra_body` (object, merged into the request), `extra_headers` (object), `cache` (false:
    no prompt caching) and `native_schema` (false: the prompt asks for the output schema).
    """

    name = "anthropic"
    native_output_schema = True
    gaps: ClassVar[Mapping[Capability, str]] = {Capability.EMBEDDINGS: "the vendor has no embeddings"}
    params: ClassVar[tuple[ConfigParam, ...]] = (
        ConfigParam(key="api_key", description="key; else ANTHROPIC_API_KEY", secret=True),
        ConfigParam(key="base_url", description=f"address; else ANTHROPIC_BASE_URL, or {_BASE_URL}"),
        ConfigParam(key="model", description="model of agents that name none"),
        ConfigParam(key="betas", description="features to switch on, separated by commas (header anthropic-beta)"),
    )

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport or Transport()

    def sends_schema(self, config: AgentConfig) -> bool:
        """Unless the model is from before structured outputs, or the schema allows more than they can say."""
        return requests.sent_schema(self._with_model(config)) is not None

    def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One streamed message. Raises a `ProviderError` that carries the usage known by then."""
        return read_turn(self._events(request), MessageReader())

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means 4000. Raises a `ProviderError`."""
        config = msgspec.structs.replace(self._with_model(config), system_prompt=system_prompt)
        limit = max_tokens if max_tokens > 0 else _DEFAULT_COMPLETION_TOKENS
        body = requests.completion_body(config, [Message.user(prompt)], limit)
        answer = await self._transport.post_json(self._call(config, "/v1/messages", body), Limits.of(config))
        blocks = decoded(_completion_decoder, answer, self.name).content
        text = "".join(block.text for block in blocks if block.type == "text")
        if not text:
            raise BadResponse("provider returned empty response", provider=self.name)
        return text

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens of these messages and the system prompt, counted by the vendor. Raises a `ProviderError`."""
        config = self._with_model(config)
        call = self._call(config, "/v1/messages/count_tokens", requests.count_body(config, messages))
        answer = await self._transport.post_json(call, Limits.of(config))
        return decoded(_count_decoder, answer, self.name, "the count").input_tokens

    async def health_check(self, config: AgentConfig) -> Health:
        """List one model: proves the address and the key, and costs nothing."""

        async def list_one() -> Mapping[str, str]:
            await self._get(config, "/v1/models?limit=1")
            return {"base_url": shown(self._base_url(config))}

        return await checked(list_one, self.health_limit_s)

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """What the vendor tells of `config.model`, and what is known of it anyway. Never raises."""
        told, model = ModelInfo(), config.model
        with contextlib.suppress(ProviderError):
            model = self._with_model(config).model
            told = model_told(await self._get(config, f"/v1/models/{quote(model, safe='')}"))
        return merged(told, await known_facts(self.name, model))

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._transport.aclose()

    @contextlib.asynccontextmanager
    async def _events(self, request: TurnRequest) -> AsyncIterator[EventStream]:
        config = self._with_model(request.config)
        body = requests.request_body(msgspec.structs.replace(request, config=config))
        call = self._call(config, "/v1/messages", body)
        opening = self._transport.stream_events(
            call, Limits.of(config), reject=lambda data: error_event(data, self.name)
        )
        async with opening as events:
            yield events

    async def _get(self, config: AgentConfig, path: str) -> bytes:
        call = self._call(config, path, b"")
        return await self._transport.get_json(self.name, call.url, call.headers, health_limits(self.health_limit_s))

    def _call(self, config: AgentConfig, path: str, body: bytes) -> Call:
        headers: Mapping[str, str] = {
            "x-api-key": api_key(config, "ANTHROPIC_API_KEY", self.name, live=self.value("api_key")),
            "anthropic-version": _VERSION,
            "content-type": "application/json",
            **({"anthropic-beta": betas} if (betas := self.value("betas")) else {}),
            **config.options.get("extra_headers", {}),
        }
        return Call(provider=self.name, url=self._base_url(config) + path, headers=headers, body=body)

    def _base_url(self, config: AgentConfig) -> str:
        return base_url(config, "ANTHROPIC_BASE_URL", _BASE_URL, live=self.value("base_url")).removesuffix("/v1")
