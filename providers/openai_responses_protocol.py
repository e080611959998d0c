"""The Responses protocol, at whatever endpoint speaks it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from providers import openai_responses_request as requests
from providers.calls import Limits
from providers.decoding import decoded
from providers.dialects import Dialects
from providers.errors import InvalidRequest
from providers.event_stream import EventStream
from providers.messages import AgentConfig, Message, TurnEvent, TurnRequest
from providers.openai_endpoint import Endpoint
from providers.openai_responses_dialect import ResponsesDialect, lasting, relaxed
from providers.openai_responses_events import ResponseReader, answer_text, error_event
from providers.openai_schema import sent_schema
from providers.streamed_turn import read_turn
from providers.token_estimate import estimated_tokens
from providers.transport import Transport

_PATH = "/responses"
_COUNT_PATH = "/responses/input_tokens"


class _Count(msgspec.Struct):
    input_tokens: int


_count_decoder = msgspec.json.Decoder(_Count)

_T = TypeVar("_T")


class Responses:
    """Streams turns and answers prompts by `POST /responses`."""

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._dialects = Dialects(relaxed, lasting)

    def sends_schema(self, config: AgentConfig) -> bool:
        """Whether `config.output_schema` goes out as a schema, as far as is known."""
        known = self._dialects.known((self._endpoint.address(config), config.model), ResponsesDialect())
        return sent_schema(config.output_schema, known) is not None

    def stream_turn(self, request: TurnRequest) -> AsyncGenerator[TurnEvent, None]:
        """One streamed response. Raises a `ProviderError` that carries the usage known by then."""
        reader = ResponseReader(self._endpoint.provider, keep_id=requests.stores_responses(request.config))
        return read_turn(self._events(request), reader)

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means the server's own limit. Raises a `ProviderError`."""

        async def ask(dialect: ResponsesDialect) -> bytes:
            body = requests.completion_body(config, system_prompt, prompt, max_tokens, dialect)
            return await self._transport.post_json(await self._endpoint.call(config, _PATH, body), Limits.of(config))

        provider = self._endpoint.provider
        return answer_text(await self._adapted(config, ask), provider)

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens of these messages and the system prompt, counted by the vendor; an estimate where the server
        knows no such call. Raises a `ProviderError`."""
        provider = self._endpoint.provider
        call = await self._endpoint.call(config, _COUNT_PATH, requests.count_body(config, messages, provider))
        try:
            answer = await self._transport.post_json(call, Limits.of(config))
        except InvalidRequest as error:
            if error.status not in (404, 405, 501):
                raise
            return estimated_tokens(config.system_prompt, messages)
        return decoded(_count_decoder, answer, provider, "the count").input_tokens

    @contextlib.asynccontextmanager
    async def _events(self, request: TurnRequest) -> AsyncIterator[EventStream]:
        config, provider = request.config, self._endpoint.provider
        async with contextlib.AsyncExitStack() as stack:

            async def open_stream(dialect: ResponsesDialect) -> EventStream:
                call = await self._endpoint.call(config, _PATH, requests.request_body(request, dialect, provider))
                return await stack.enter_async_context(
                    self._transport.stream_events(
                        call, Limits.of(config), reject=lambda data: error_event(data, provider)
                    )
                )

            yield await self._adapted(config, open_stream)

    def _adapted(self, config: AgentConfig, attempt: Callable[[ResponsesDialect], Awaitable[_T]]) -> Awaitable[_T]:
        server = (self._endpoint.address(config), config.model)
        return self._dialects.ask(server, ResponsesDialect(), attempt)
