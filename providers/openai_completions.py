"""The Chat Completions protocol, at whatever endpoint speaks it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec

from providers import openai_request as requests
from providers.calls import Limits
from providers.decoding import decoded
from providers.dialects import Dialects
from providers.errors import BadResponse
from providers.event_stream import EventStream
from providers.messages import AgentConfig, TurnEvent, TurnRequest
from providers.openai_endpoint import Endpoint
from providers.openai_events import CompletionReader, error_event
from providers.openai_request import COMPATIBLE, OPENAI, Dialect, relaxed
from providers.openai_schema import lasting_schema, sent_schema
from providers.streamed_turn import read_turn
from providers.transport import Transport

_PATH = "/chat/completions"


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []


_completion_decoder = msgspec.json.Decoder(_Completion)

_T = TypeVar("_T")


class ChatCompletions:
    """Streams turns and answers prompts by `POST /chat/completions`."""

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self._endpoint = endpoint
        self._transport = transport
        # A model behind the same name may learn to use tools, so that is asked again each time.
        self._dialects = Dialects(relaxed, lambda dialect: msgspec.structs.replace(lasting_schema(dialect), tools=True))

    def sends_schema(self, config: AgentConfig) -> bool:
        """Whether `config.output_schema` goes out as a schema, as far as is known."""
        return sent_schema(config.output_schema, self._dialects.known(*self._server(config))) is not None

    def stream_turn(self, request: TurnRequest) -> AsyncGenerator[TurnEvent, None]:
        """One streamed completion. Raises a `ProviderError` that carries the usage known by then."""
        return read_turn(self._events(request), CompletionReader(self._endpoint.provider))

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means the server's own limit. Raises a `ProviderError`."""

        async def ask(dialect: Dialect) -> bytes:
            body = requests.completion_body(config, system_prompt, prompt, max_tokens, dialect)
            return await self._transport.post_json(await self._endpoint.call(config, _PATH, body), Limits.of(config))

        provider = self._endpoint.provider
        answer = await self._adapted(config, ask)
        completion = decoded(_completion_decoder, answer, provider)
        if not completion.choices:
            raise BadResponse(f"{provider}: empty choices in response", provider=provider)
        message = completion.choices[0].message
        text = message.content or message.refusal
        if not text:
            raise BadResponse(f"{provider}: the answer is empty", provider=provider)
        return text

    @contextlib.asynccontextmanager
    async def _events(self, request: TurnRequest) -> AsyncIterator[EventStream]:
        config, provider = request.config, self._endpoint.provider
        async with contextlib.AsyncExitStack() as stack:

            async def open_stream(dialect: Dialect) -> EventStream:
                call = await self._endpoint.call(config, _PATH, requests.request_body(request, dialect, provider))
                return await stack.enter_async_context(
                    self._transport.stream_events(
                        call, Limits.of(config), reject=lambda data: error_event(data, provider)
                    )
                )

            yield await self._adapted(config, open_stream)

    def _adapted(self, config: AgentConfig, attempt: Callable[[Dialect], Awaitable[_T]]) -> Awaitable[_T]:
        return self._dialects.ask(*self._server(config), attempt)

    def _server(self, config: AgentConfig) -> tuple[tuple[str, str], Dialect]:
        first = OPENAI if self._endpoint.is_vendor(config) else COMPATIBLE
        return (self._endpoint.address(config), config.model), first
