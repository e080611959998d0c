"""OpenAI's Chat Completions API, and the many servers compatible with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from providers import openai_request as requests
from providers.calls import Call, Limits
from providers.credentials import api_key, base_url
from providers.errors import BadResponse, ProviderError
from providers.event_stream import EventStream
from providers.interfaces import ChatProvider, Health
from providers.messages import AgentConfig, TurnEvent, TurnRequest
from providers.openai_events import CompletionReader, error_event
from providers.openai_request import COMPATIBLE, OPENAI, Dialect, relaxed
from providers.transport import Transport

_BASE_URL = "https://api.openai.com/v1"
_EMBEDDING_MODEL = "text-embedding-3-small"
_HEALTH_LIMITS = Limits(connect_timeout_s=3.0, first_event_timeout_s=5.0, max_retries=0)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]


_completion_decoder = msgspec.json.Decoder(_Completion)
_vectors_decoder = msgspec.json.Decoder(_Vectors)

_T = TypeVar("_T")


class OpenAIChatProvider(ChatProvider):
    """`OPENAI_API_KEY` (or the variable that `config.api_key_env` names) is the key, read at each call.

    The address is `config.base_url`, else `OPENAI_BASE_URL`, else OpenAI's own; with another address than that, a key
    is optional. `config.options` may have `extra_body` (object, merged into the request), `extra_headers` (object) and
    `embedding_model`.
    """

    name = "openai"

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport or Transport()
        self._dialects: dict[tuple[str, str], Dialect] = {}

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One streamed completion. Raises a `ProviderError` that carries the usage known by then."""
        reader = CompletionReader()
        try:
            async with self._events(request) as events:
                async for batch in events:
                    for data in batch:
                        for event in reader.read(data):
                            yield event
                    if reader.complete:
                        await events.settle()
                        break
            end = reader.end()
        except ProviderError as error:
            error.usage = error.usage or reader.usage
            raise
        yield end

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means the server's own limit. Raises a `ProviderError`."""

        def ask(dialect: Dialect) -> Awaitable[bytes]:
            body = requests.completion_body(config, system_prompt, prompt, max_tokens, dialect)
            return self._transport.post_json(self._call(config, "/chat/completions", body), Limits.of(config))

        completion = self._decode(_completion_decoder, await self._adapted(config, ask))
        if not completion.choices:
            raise BadResponse("openai: empty choices in response", provider=self.name)
        return completion.choices[0].message.content or ""

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order, by `options.embedding_model`, or else the model that
        `AGENT_EMBEDDING_MODEL` or `AGENT_EMBED_MODEL` names. Raises a `ProviderError`.
        """
        if not texts:
            return []
        body = msgspec.json.encode({"model": _embedding_model(config), "input": texts, "encoding_format": "float"})
        answer = await self._transport.post_json(self._call(config, "/embeddings", body), Limits.of(config))
        vectors = sorted(self._decode(_vectors_decoder, answer).data, key=lambda vector: vector.index)
        if len(vectors) != len(texts):
            raise BadResponse(
                f"openai embed: {len(vectors)} vectors came back for {len(texts)} texts", provider=self.name
            )
        return [vector.embedding for vector in vectors]

    async def health_check(self, config: AgentConfig) -> Health:
        """List the models: proves the address and the key, and costs nothing."""
        try:
            call = self._call(config, "/models", b"")
            await self._transport.get_json(self.name, call.url, call.headers, _HEALTH_LIMITS)
        except ProviderError as error:
            return Health(healthy=False, message=str(error))
        return Health(healthy=True, details={"base_url": _address(config)})

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._transport.aclose()

    @contextlib.asynccontextmanager
    async def _events(self, request: TurnRequest) -> AsyncIterator[EventStream]:
        config = request.config
        async with contextlib.AsyncExitStack() as stack:

            def open_stream(dialect: Dialect) -> Awaitable[EventStream]:
                call = self._call(config, "/chat/completions", requests.request_body(request, dialect))
                return stack.enter_async_context(
                    self._transport.stream_events(call, Limits.of(config), reject=error_event)
                )

            yield await self._adapted(config, open_stream)

    async def _adapted(self, config: AgentConfig, attempt: Callable[[Dialect], Awaitable[_T]]) -> _T:
        """Ask, and ask again with less of the protocol where the server refuses a part of it."""
        server = (_address(config), config.model)
        dialect = self._dialects.get(server) or (OPENAI if _is_vendor(config) else COMPATIBLE)
        while True:
            try:
                answer = await attempt(dialect)
            except ProviderError as error:
                easier = relaxed(dialect, error)
                if easier is None:
                    raise
                dialect = easier
            else:
                # A model behind the same name may learn to use tools, so that is asked again each time.
                self._dialects[server] = msgspec.structs.replace(dialect, tools=True)
                return answer

    def _call(self, config: AgentConfig, path: str, body: bytes) -> Call:
        key = api_key(config, "OPENAI_API_KEY", self.name, required=_is_vendor(config))
        headers = {"content-type": "application/json", **config.options.get("extra_headers", {})}
        if key:
            headers["authorization"] = f"Bearer {key}"
        return Call(provider=self.name, url=_address(config) + path, headers=headers, body=body)

    def _decode(self, decoder: msgspec.json.Decoder[_T], answer: bytes) -> _T:
        try:
            return decoder.decode(answer)
        except msgspec.DecodeError as error:
            raise BadResponse(f"{self.name}: the answer cannot be read: {error}", provider=self.name) from error


def _address(config: AgentConfig) -> str:
    return base_url(config, "OPENAI_BASE_URL", _BASE_URL)


def _is_vendor(config: AgentConfig) -> bool:
    return urlsplit(_address(config)).hostname == urlsplit(_BASE_URL).hostname


def _embedding_model(config: AgentConfig) -> str:
    env = os.environ
    chosen = config.options.get("embedding_model") or env.get("AGENT_EMBEDDING_MODEL") or env.get("AGENT_EMBED_MODEL")
    return str(chosen or _EMBEDDING_MODEL)
