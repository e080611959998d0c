"""What all providers have in common that speak to OpenAI, to Azure or to a server compatible with them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

import msgspec

from providers.calls import Limits, shown
from providers.decoding import decoded
from providers.embedding_model import embedding_model
from providers.errors import BadResponse, ProviderError
from providers.health import checked, health_limits
from providers.interfaces import ChatProvider, Health, ModelInfo
from providers.live_config import Configurable
from providers.messages import AgentConfig, Message, TurnEvent, TurnRequest
from providers.model_facts import known_facts, merged
from providers.openai_endpoint import Endpoint
from providers.openai_models import listed_model
from providers.token_estimate import estimated_tokens
from providers.transport import Transport

_EMBEDDING_MODEL = "text-embedding-3-small"
_MOST_TEXTS = 2048
"""As many as OpenAI takes in one request."""


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]


_vectors_decoder = msgspec.json.Decoder(_Vectors)


class WireProtocol(Protocol):
    """One of the protocols in which a model can be talked to."""

    def sends_schema(self, config: AgentConfig) -> bool:
        """As `ChatProvider.sends_schema`, as far as is known. Raises a `ProviderError` where nothing can be sent."""
        ...

    def stream_turn(self, request: TurnRequest) -> AsyncGenerator[TurnEvent, None]:
        """As `ChatProvider.stream_turn`."""
        ...

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """As `Completer.complete`."""
        ...


class OpenAIFamilyProvider(Configurable, ChatProvider):
    """All but the conversation itself, which goes by one of the protocols. Declares the setting `embedding_model`."""

    native_output_schema = True
    endpoint: Endpoint

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport or Transport()

    @abstractmethod
    def protocol(self, config: AgentConfig) -> WireProtocol:
        """The protocol to talk to this agent's model in. Raises `InvalidRequest` if the configuration names none."""

    def sends_schema(self, config: AgentConfig) -> bool:
        """Unless the schema is of something else than an object, or the model is known to take none."""
        try:
            config = self._with_model(config)
            return self.protocol(config).sends_schema(config)
        except ProviderError:
            return self.native_output_schema  # nothing can be sent at all, and the call will say why

    def stream_turn(self, request: TurnRequest) -> AsyncGenerator[TurnEvent, None]:
        """One streamed answer. Raises a `ProviderError`, at once or with the usage known by then."""
        request = msgspec.structs.replace(request, config=self._with_model(request.config))
        return self.protocol(request.config).stream_turn(request)

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means the server's own limit. Raises a `ProviderError`."""
        config = self._with_model(config)
        return await self.protocol(config).complete(config, system_prompt, prompt, max_tokens)

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order, by `options.embedding_model`, the live setting `embedding_model`, or else the
        model that `AGENT_EMBEDDING_MODEL` or `AGENT_EMBED_MODEL` names. Raises a `ProviderError`.
        """
        vectors: list[list[float]] = []
        for start in range(0, len(texts), _MOST_TEXTS):
            vectors += await self._embed(config, texts[start : start + _MOST_TEXTS])
        return vectors

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens of these messages and the system prompt: an estimate, see `providers.token_estimate`."""
        return estimated_tokens(config.system_prompt, messages)

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """What is known of `config.model`, and what a compatible server tells of it. Never raises."""
        known = None
        try:
            config = self._with_model(config)
            known = await known_facts(self.name, config.model)
            if self.endpoint.is_vendor(config):  # its list has nothing but names
                return known or ModelInfo()
            told = listed_model(await self._models(config), config.model)
        except ProviderError:
            return known or ModelInfo()
        return merged(told, known)

    async def health_check(self, config: AgentConfig) -> Health:
        """List the models: proves the address and the key, and costs nothing."""

        async def ask() -> Mapping[str, str]:
            await self._models(config)
            return {"base_url": shown(self.endpoint.address(config))}

        return await checked(ask, self.health_limit_s)

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._transport.aclose()

    async def _models(self, config: AgentConfig) -> bytes:
        call = await self.endpoint.call(config, "/models")
        return await self._transport.get_json(self.name, call.url, call.headers, health_limits(self.health_limit_s))

    async def _embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        model = embedding_model(config, self.value, _EMBEDDING_MODEL)
        body = msgspec.json.encode({"model": model, "input": texts, "encoding_format": "float"})
        call = await self.endpoint.call(config, "/embeddings", body, model=model)
        answer = await self._transport.post_json(call, Limits.of(config))
        vectors = sorted(decoded(_vectors_decoder, answer, self.name).data, key=lambda vector: vector.index)
        if len(vectors) != len(texts):
            said = f"{self.name} embed: {len(vectors)} vectors came back for {len(texts)} texts"
            raise BadResponse(said, provider=self.name)
        return [vector.embedding for vector in vectors]
