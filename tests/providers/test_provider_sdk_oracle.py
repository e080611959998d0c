"""The vendors' own SDKs read the same bytes, and must come to the same message as our providers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from providers.anthropic import AnthropicProvider
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig, Message, ThinkingPart, ToolSpec, TurnEnd, TurnRequest
from providers.openai_chat import OpenAIChatProvider
from providers.replay_server import ReplayServer, Reply

_RECORDINGS = Path(__file__).parent / "recordings"
_NAMES = ["text", "unicode", "tool_call", "parallel_tools", "thinking"]
_TOOL = ToolSpec(name="get_weather", input_schema={"type": "object", "properties": {"city": {"type": "string"}}})


async def _ours(provider: ChatProvider, base_url: str, model: str) -> TurnEnd:
    request = TurnRequest(
        config=AgentConfig(model=model, base_url=base_url), messages=(Message.user("Hi"),), tools=(_TOOL,)
    )
    try:
        events = [event async for event in provider.stream_turn(request)]
    finally:
        await provider.aclose()
    assert isinstance(events[-1], TurnEnd)
    return events[-1]


async def _anthropic_sdk(base_url: str) -> Any:
    anthropic = pytest.importorskip("anthropic")
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key="x", max_retries=0) as client:
        asked = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        async with client.messages.stream(**asked) as stream:
            return await stream.get_final_message()


async def _openai_sdk(base_url: str) -> Any:
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(base_url=base_url, api_key="x", max_retries=0) as client:
        asked = {"model": "gpt-x", "messages": [{"role": "user", "content": "Hi"}]}
        async with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
            return await stream.get_final_completion()


@pytest.mark.parametrize("name", _NAMES)
async def test_anthropic_recordings(name: str) -> None:
    """Text, thinking with its signature, tool calls, stop reason and usage are those of Anthropic's SDK."""
    recording = (_RECORDINGS / "anthropic" / f"{name}.sse").read_bytes()
    async with ReplayServer([Reply(frames=(recording,))]) as server:
        theirs = await _anthropic_sdk(server.url)
        ours = await _ours(AnthropicProvider(), server.url, "claude-x")
    _same_as_anthropic(ours, theirs)


@pytest.mark.parametrize("name", [*_NAMES, "cached", "refusal", "structured", "thinking_tool_call"])
async def test_openai_recordings(name: str) -> None:
    """Text, tool calls and usage are those of OpenAI's SDK."""
    recording = (_RECORDINGS / "openai" / f"{name}.sse").read_bytes()
    async with ReplayServer([Reply(frames=(recording,))]) as server:
        theirs = await _openai_sdk(server.url)
        ours = await _ours(OpenAIChatProvider(), server.url, "gpt-x")
    _same_as_openai(ours, theirs)


def _same_as_anthropic(ours: TurnEnd, theirs: Any) -> None:
    text = "".join(block.text for block in theirs.content if block.type == "text")
    thinking = [(block.thinking, block.signature) for block in theirs.content if block.type == "thinking"]
    calls = [(block.id, block.name, block.input) for block in theirs.content if block.type == "tool_use"]
    assert ours.message.text == text
    assert [(part.text, part.signature) for part in _thoughts(ours) if not part.redacted] == thinking
    assert [(call.id, call.name, json.loads(call.arguments)) for call in ours.message.tool_calls] == calls
    assert ours.stop_reason.value == theirs.stop_reason
    assert (ours.model, ours.response_id) == (theirs.model, theirs.id)
    usage = theirs.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert ours.usage.input_tokens == usage.input_tokens + cached
    assert ours.usage.output_tokens == usage.output_tokens
    assert ours.usage.cache_read_tokens == usage.cache_read_input_tokens
    assert ours.usage.cache_write_tokens == usage.cache_creation_input_tokens


def _same_as_openai(ours: TurnEnd, theirs: Any) -> None:
    message = theirs.choices[0].message
    calls = [(call.id, call.function.name, call.function.arguments or "{}") for call in message.tool_calls or ()]
    assert ours.message.text == (message.content or message.refusal or "")
    assert [(call.id, call.name, call.arguments) for call in ours.message.tool_calls] == calls
    assert (ours.model, ours.response_id) == (theirs.model, theirs.id)
    assert ours.usage.input_tokens == theirs.usage.prompt_tokens
    assert ours.usage.output_tokens == theirs.usage.completion_tokens
    assert ours.usage.cache_read_tokens == theirs.usage.prompt_tokens_details.cached_tokens
    assert ours.usage.cache_write_tokens == theirs.usage.prompt_tokens_details.cache_write_tokens
    assert ours.usage.reasoning_tokens == theirs.usage.completion_tokens_details.reasoning_tokens


def _thoughts(end: TurnEnd) -> list[ThinkingPart]:
    return [part for part in end.message.parts if isinstance(part, ThinkingPart)]
