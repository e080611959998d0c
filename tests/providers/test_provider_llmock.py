"""Faults of an independent mock server, and its own verdict on how our clients behaved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers.anthropic import AnthropicProvider
from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StreamBroken,
)
from providers.gemini import GeminiProvider
from providers.interfaces import ChatProvider
from providers.messages import (
    AgentConfig,
    Message,
    Role,
    StopReason,
    TextDelta,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.openai_chat import OpenAIChatProvider
from providers.openai_responses import OpenAIResponsesProvider
from providers.retry import RetryPolicy
from providers.transport import Transport

pytest.importorskip("llmock")

pytestmark = pytest.mark.timeout(20)

_TOOL = ToolSpec(
    name="get_weather",
    description="The weather of a city.",
    input_schema={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
_MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "openai": "gpt-4o-mini",
    "openai_responses": "gpt-4o-mini",
}


@pytest.fixture(
    params=[AnthropicProvider, GeminiProvider, OpenAIChatProvider, OpenAIResponsesProvider],
    ids=["anthropic", "gemini", "openai", "responses"],
)
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[ChatProvider]:
    """Each vendor's provider, with real but short waits between tries."""
    provider: ChatProvider = request.param(Transport(retry=RetryPolicy(base_s=0.1)))
    yield provider
    await provider.aclose()


@pytest.fixture
def mock(llmock: Any) -> Any:
    """A clean mock server; the environment points both providers at it."""
    return llmock.tool_mode("off")


def _request(provider: ChatProvider, *messages: Message, **config: Any) -> TurnRequest:
    config = {"model": _MODELS[provider.name], **config}
    return TurnRequest(
        config=AgentConfig(**config), messages=messages or (Message.user("What is the weather?"),), tools=(_TOOL,)
    )


async def _turn(provider: ChatProvider, request: TurnRequest) -> tuple[list[TurnEvent], TurnEnd]:
    events = [event async for event in provider.stream_turn(request)]
    assert isinstance(events[-1], TurnEnd)
    return events, events[-1]


async def _failure(provider: ChatProvider, **config: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await _turn(provider, _request(provider, **config))
    return caught.value


async def test_answer(mock: Any, provider: ChatProvider) -> None:
    """Text and usage as the mock made them."""
    mock.reply("Grüße aus Lissabon 🦑")
    events, end = await _turn(provider, _request(provider))
    assert end.message.text == "Grüße aus Lissabon 🦑"
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == end.message.text
    assert end.usage.input_tokens
    assert end.usage.output_tokens
    mock.assert_resilient(strict=True)


async def test_tool_round_trip(mock: Any, provider: ChatProvider) -> None:
    """The mock accepts our next request with the call's outcome in it, and answers."""
    mock.call_tool("get_weather", {"city": "Lisbon"})
    first = _request(provider)
    _, end = await _turn(provider, first)
    (call,) = end.message.tool_calls
    assert (call.name, call.arguments.replace(" ", ""), end.stop_reason) == (
        "get_weather",
        '{"city":"Lisbon"}',
        StopReason.TOOL_USE,
    )
    outcome = Message(role=Role.USER, parts=(ToolOutcome(call_id=call.id, name=call.name, content="21 degrees"),))
    mock.reply("It is 21 degrees.")
    _, last = await _turn(provider, _request(provider, *first.messages, end.message, outcome))
    assert last.message.text == "It is 21 degrees."
    mock.assert_resilient(strict=True)


@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_passing_failures(mock: Any, provider: ChatProvider, status: int) -> None:
    """We wait as long as we are told, and then get the answer; the mock has nothing to complain about."""
    mock.fail(status, times=2, retry_after=0.2)
    _, end = await _turn(provider, _request(provider))
    assert end.message.text
    assert len(mock.requests) == 3
    mock.assert_resilient(strict=True)


async def test_outage(mock: Any, provider: ChatProvider) -> None:
    """A lasting outage ends in the right error after the allowed tries."""
    mock.outage(status=529)
    assert isinstance(await _failure(provider, max_retries=1), Overloaded)
    assert len(mock.requests) == 2


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationFailed), (403, AuthenticationFailed), (429, RateLimited)]
)
async def test_final_failures(mock: Any, provider: ChatProvider, status: int, kind: type[ProviderError]) -> None:
    """One request, one error of the right class."""
    mock.fail(status, times=None)
    error = await _failure(provider, max_retries=0)
    assert (type(error), error.status) == (kind, status)
    assert len(mock.requests) == 1


async def test_context_overflow(mock: Any, provider: ChatProvider) -> None:
    """The vendor's error for a conversation that is too long is recognised and not repeated."""
    mock.context_overflow()
    assert isinstance(await _failure(provider), ContextTooLong)
    mock.assert_resilient(strict=True)


@pytest.mark.parametrize("fault", ["disconnect", "truncate"])
async def test_broken_streams(mock: Any, provider: ChatProvider, fault: str) -> None:
    """A stream that ends early, however politely, is not an answer."""
    mock.reply("one two three four five six seven eight nine ten")
    getattr(mock, fault)(after_chunks=4)
    assert isinstance(await _failure(provider), StreamBroken)
    assert len(mock.requests) == 1


async def test_corrupt_stream(mock: Any, provider: ChatProvider) -> None:
    """A chunk that is no JSON is `BadResponse`."""
    mock.reply("one two three four five six")
    mock.corrupt(after_chunks=4)
    assert isinstance(await _failure(provider), BadResponse)


async def test_stalled_stream(mock: Any, provider: ChatProvider) -> None:
    """A stream that stops is given up after the limit on silence."""
    mock.reply("one two three four five six")
    mock.stall(after_chunks=4, seconds=2.0)
    assert isinstance(await _failure(provider, idle_timeout_s=0.2), ProviderTimeout)
