"""Google's Gemini API (Google AI Studio). For Google Cloud, see `providers.vertex`."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from providers import gemini_answers as answers
from providers import gemini_models as models
from providers import gemini_request as requests
from providers.calls import Call, Limits, shown
from providers.capabilities import Capability
from providers.credentials import api_key, base_url
from providers.embedding_model import embedding_model
from providers.errors import InvalidRequest, ProviderError
from providers.event_stream import EventStream
from providers.gemini_events import ContentReader, error_chunk
from providers.google_turn import opened
from providers.health import checked, health_limits
from providers.interfaces import ChatProvider, ConfigParam, Health, ModelInfo
from providers.live_config import Configurable
from providers.messages import AgentConfig, Message, TurnEvent, TurnRequest
from providers.model_facts import known_facts, merged
from providers.streamed_turn import read_turn
from providers.transport import Transport
from queue_backends.messages import JsonObject

_BASE_URL = "https://generativelanguage.googleapis.com"
_VERSION = "v1beta"
_VERSIONED = re.compile(r"/v\d+(?:(?:alpha|beta)\d*)?$")
_EMBEDDING_MODEL = "gemini-embedding-001"
_TEXTS_PER_CALL = 100
_WITHOUT_KEY = "set GEMINI_PROJECT + GEMINI_LOCATION for Vertex AI"


class GeminiProvider(Configurable, ChatProvider):
    """`GEMINI_API_KEY`, else `GOOGLE_API_KEY` (or the variable that `config.api_key_env` names) is the key.

    The address is `config.base_url`, else the setting `base_url`, else `GOOGLE_GEMINI_BASE_URL`, else Google's own; it
    may end in an API version. `config.options` may have `extra_body` (object, merged into the request),
    `extra_headers` (object), `embedding_model`, `dimensions` and `embedding_task`.
    """

    name = "gemini"
    native_output_schema = True
    gaps: ClassVar[Mapping[Capability, str]] = {
        Capability.STOP_REASON: "the API says `STOP` for both",
        Capability.CACHE_WRITE_TOKENS: "the API does not report it",
    }
    params = (
        ConfigParam(key="api_key", description="Key; else GEMINI_API_KEY or GOOGLE_API_KEY", secret=True),
        ConfigParam(key="base_url", description=f"Address; else GOOGLE_GEMINI_BASE_URL or {_BASE_URL}"),
        ConfigParam(key="api_version", description="Version of the API", default=_VERSION),
        ConfigParam(key="model", description="Model of agents that name none"),
        ConfigParam(key="embedding_model", description=f"Model for embeddings; else {_EMBEDDING_MODEL}"),
    )

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport or Transport()

    def sends_schema(self, config: AgentConfig) -> bool:
        """Models before Gemini 3 take no schema beside tools: for them the prompt asks, and the schema goes along where
        it can."""
        return not config.tools or models.takes_schema_with_tools(self._with_model(config).model)

    def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One streamed answer. Raises a `ProviderError` that carries the usage known by then."""
        return read_turn(opened(request, self._events), ContentReader(self.name, request))

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means the model's own limit. Raises a `ProviderError`."""
        config = msgspec.structs.replace(self._with_model(config), system_prompt=system_prompt)
        body = requests.completion_body(config, [Message.user(prompt)], max_tokens, self.name)
        answer = await self._post(config, self._model_call(config, "generateContent", body))
        return answers.completion_text(self.name, answer)

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order, by `options.embedding_model`, else the setting `embedding_model`, else the
        model that `AGENT_EMBEDDING_MODEL` or `AGENT_EMBED_MODEL` names. Raises a `ProviderError`.
        """
        model = embedding_model(config, self.value, _EMBEDDING_MODEL)
        config = msgspec.structs.replace(config, model=model)
        found: list[list[float]] = []
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            batch = texts[start : start + _TEXTS_PER_CALL]
            body = msgspec.json.encode({"requests": [_embedding(config, text) for text in batch]})
            answer = await self._post(config, self._model_call(config, "batchEmbedContents", body))
            found += answers.vectors(self.name, answer, len(batch))
        return found

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens of these messages and the system prompt, counted by the vendor. Raises a `ProviderError`."""
        config = self._with_model(config)
        counted = {"model": model_path(config.model), **requests.conversation_body(config, messages, self.name)}
        body = msgspec.json.encode({"generateContentRequest": counted})
        answer = await self._post(config, self._model_call(config, "countTokens", body))
        return answers.token_count(self.name, answer)

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """What the vendor tells of the model, and what is known of it anyway. Never raises."""
        told, model = ModelInfo(), config.model
        with contextlib.suppress(ProviderError):
            model = self._with_model(config).model
            told = answers.model_facts(self.name, await self._get(config, model_path(model)))
        return merged(models.with_abilities(model, told), await known_facts(self.name, model))

    async def health_check(self, config: AgentConfig) -> Health:
        """List one model: proves the address and the key, and costs nothing."""

        async def list_one() -> Mapping[str, str]:
            await self._get(config, "models?pageSize=1")
            return {"base_url": shown(self._address(config))}

        return await checked(list_one, self.health_limit_s)

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._transport.aclose()

    def _events(self, request: TurnRequest) -> contextlib.AbstractAsyncContextManager[EventStream]:
        config = self._with_model(request.config)
        body = requests.request_body(msgspec.structs.replace(request, config=config), self.name)
        call = self._model_call(config, "streamGenerateContent?alt=sse", body)
        return self._transport.stream_events(call, Limits.of(config), reject=lambda data: error_chunk(data, self.name))

    async def _post(self, config: AgentConfig, call: Call) -> bytes:
        return await self._transport.post_json(call, Limits.of(config))

    async def _get(self, config: AgentConfig, path: str) -> bytes:
        call = self._call(config, path)
        return await self._transport.get_json(self.name, call.url, call.headers, health_limits(self.health_limit_s))

    def _model_call(self, config: AgentConfig, method: str, body: bytes) -> Call:
        return self._call(config, f"{model_path(config.model)}:{method}", body)

    def _call(self, config: AgentConfig, path: str, body: bytes = b"") -> Call:
        # In a header, because addresses end up in logs.
        headers: Mapping[str, str] = {
            "x-goog-api-key": api_key(
                config, _key_variable(), self.name, live=self.value("api_key"), instead=_WITHOUT_KEY
            ),
            "content-type": "application/json",
            **config.options.get("extra_headers", {}),
        }
        return Call(provider=self.name, url=f"{self._address(config)}/{path}", headers=headers, body=body)

    def _address(self, config: AgentConfig) -> str:
        address = base_url(config, "GOOGLE_GEMINI_BASE_URL", _BASE_URL, live=self.value("base_url"))
        return address if _VERSIONED.search(address) else f"{address}/{self.value('api_version')}"


def model_path(model: str) -> str:
    """A model's place below the API's version: `models/…`, unless the name begins with a collection of its own.

    Raises `InvalidRequest` for a name that is none.
    """
    if not model or ".." in model:
        raise InvalidRequest(f"{model!r} is no model's name: set the agent's `model`, such as gemini-2.5-flash")
    return quote(model if "/" in model else f"models/{model}", safe="/")


def _embedding(config: AgentConfig, text: str) -> JsonObject:
    asked: JsonObject = {"model": model_path(config.model), "content": {"parts": [{"text": text}]}}
    wishes: Mapping[str, Any] = config.options
    if "dimensions" in wishes:
        asked["outputDimensionality"] = wishes["dimensions"]
    if "embedding_task" in wishes:
        asked["taskType"] = wishes["embedding_task"]
    return asked


def _key_variable() -> str:
    usual, other = "GEMINI_API_KEY", "GOOGLE_API_KEY"
    return other if os.environ.get(other, "").strip() and not os.environ.get(usual, "").strip() else usual
