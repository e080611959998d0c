"""Anthropic's Messages API, and servers compatible with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from providers import anthropic_request as requests
from providers.anthropic_events import MessageReader, error_event
from providers.calls import Call, Limits
from providers.credentials import api_key, base_url
from providers.errors import BadResponse, ProviderError
from providers.interfaces import ChatProvider, Health
from providers.messages import AgentConfig, Message, TurnEvent, TurnRequest
from providers.transport import Transport

_BASE_URL = "https://api.anthropic.com"
_VERSION = "2023-06-01"
_DEFAULT_COMPLETION_TOKENS = 4000
_HEALTH_LIMITS = Limits(connect_timeout_s=3.0, first_event_timeout_s=5.0, max_retries=0)


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Completion(msgspec.Struct):
    content: list[_Block] = []


class _Count(msgspec.Struct):
    input_tokens: int


_completion_decoder = msgspec.json.Decoder(_Completion)
_count_decoder = msgspec.json.Decoder(_Count)


class AnthropicProvider(ChatProvider):
    """`ANTHROPIC_API_KEY` (or the variable that `config.api_key_env` names) is the key, read at each call.

    The address is `config.base_url`, else `ANTHROPIC_BASE_URL`, else Anthropic's own. `config.options` may have
    `extra_body` (object, merged into the request), `extra_headers` (object) and `cache` (false: no prompt caching).
    """

    name = "anthropic"

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport or Transport()

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One streamed message. Raises a `ProviderError` that carries the usage known by then."""
        call = self._call(request.config, "/v1/messages", requests.request_body(request))
        reader = MessageReader()
        try:
            async with self._transport.stream_events(call, Limits.of(request.config), reject=error_event) as events:
                async for batch in events:
                    for data in batch:
                        event = reader.read(data)
                        if event is not None:
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
        """The answer's text; `max_tokens` of zero or less means 4000. Raises a `ProviderError`."""
        config = msgspec.structs.replace(config, system_prompt=system_prompt)
        limit = max_tokens if max_tokens > 0 else _DEFAULT_COMPLETION_TOKENS
        body = requests.completion_body(config, [Message.user(prompt)], limit)
        answer = await self._transport.post_json(self._call(config, "/v1/messages", body), Limits.of(config))
        try:
            blocks = _completion_decoder.decode(answer).content
        except msgspec.DecodeError as error:
            raise BadResponse(f"{self.name}: the answer cannot be read: {error}", provider=self.name) from error
        text = "".join(block.text for block in blocks if block.type == "text")
        if not text:
            raise BadResponse("provider returned empty response", provider=self.name)
        return text

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens of these messages and the system prompt, counted by the vendor. Raises a `ProviderError`."""
        call = self._call(config, "/v1/messages/count_tokens", requests.count_body(config, messages))
        answer = await self._transport.post_json(call, Limits.of(config))
        try:
            return _count_decoder.decode(answer).input_tokens
        except msgspec.DecodeError as error:
            raise BadResponse(f"{self.name}: the count cannot be read: {error}", provider=self.name) from error

    async def health_check(self, config: AgentConfig) -> Health:
        """List one model: proves the address and the key, and costs nothing."""
        try:
            call = self._call(config, "/v1/models?limit=1", b"")
            await self._transport.get_json(self.name, call.url, call.headers, _HEALTH_LIMITS)
        except ProviderError as error:
            return Health(healthy=False, message=str(error))
        return Health(healthy=True, details={"base_url": self._base_url(config)})

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._transport.aclose()

    def _call(self, config: AgentConfig, path: str, body: bytes) -> Call:
        headers: Mapping[str, str] = {
            "x-api-key": api_key(config, "ANTHROPIC_API_KEY", self.name),
            "anthropic-version": _VERSION,
            "content-type": "application/json",
            **config.options.get("extra_headers", {}),
        }
        return Call(provider=self.name, url=self._base_url(config) + path, headers=headers, body=body)

    def _base_url(self, config: AgentConfig) -> str:
        return base_url(config, "ANTHROPIC_BASE_URL", _BASE_URL).removesuffix("/v1")
