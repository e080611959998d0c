"""Ollama's own Python client reads the same bytes, reads our requests, and must agree."""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Role,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnRequest,
)
from providers.ollama import OllamaProvider
from providers.ollama_address import address
from providers.replay_server import ReplayServer, Reply

ollama = pytest.importorskip("ollama")

_RECORDINGS = Path(__file__).parent / "recordings" / "ollama"
_NAMES = sorted(path.stem for path in _RECORDINGS.glob("*.ndjson"))
_TOOL = ToolSpec(name="get_weather", input_schema={"type": "object", "properties": {"city": {"type": "string"}}})


def _reply(name: str) -> Reply:
    frames = ((_RECORDINGS / f"{name}.ndjson").read_bytes(),)
    return Reply(frames=frames, content_type="application/x-ndjson")


async def _ours(url: str, *messages: Message, **config: Any) -> TurnEnd:
    provider = OllamaProvider()
    agent = AgentConfig(model="m", base_url=url, **config)
    request = TurnRequest(config=agent, messages=messages or (Message.user("Hi"),), tools=(_TOOL,))
    try:
        events = [event async for event in provider.stream_turn(request)]
    finally:
        await provider.aclose()
    assert isinstance(events[-1], TurnEnd)
    return events[-1]


@pytest.mark.parametrize("name", _NAMES)
async def test_recordings(name: str) -> None:
    """Text, thinking, tool calls, reason and usage are those of Ollama's client."""
    async with ReplayServer([_reply(name)]) as server:
        asynchronous = ollama.AsyncClient(host=server.url)
        parts = [part async for part in await asynchronous.chat("m", [{"role": "user", "content": "Hi"}], stream=True)]
        await asynchronous._client.aclose()
        ours = await _ours(server.url)
    calls = [call.function for part in parts for call in part.message.tool_calls or ()]
    assert ours.message.text == "".join(part.message.content or "" for part in parts)
    thought = "".join(part.text for part in ours.message.parts if isinstance(part, ThinkingPart))
    assert thought == "".join(part.message.thinking or "" for part in parts)
    assert [(call.name, json.loads(call.arguments)) for call in ours.message.tool_calls] == [
        (call.name, call.arguments) for call in calls
    ]
    last = parts[-1]
    assert (ours.model, ours.usage.input_tokens, ours.usage.output_tokens) == (
        last.model,
        last.prompt_eval_count,
        last.eval_count,
    )
    wanted = {"stop": "tool_use" if calls else "end_turn", "length": "max_tokens"}
    assert ours.stop_reason.value == wanted[last.done_reason]


async def test_request() -> None:
    """A request with all that there is fits the client's own types of it, with nothing lost."""
    picture = ImagePart(media_type="image/png", data="iVBORw0KGgo=")
    call = ToolCall(id="call_1", name="get_weather", arguments='{"city": "Lisbon"}')
    talk = (
        Message(role=Role.USER, parts=(TextPart(text="Where?"), picture)),
        Message(role=Role.ASSISTANT, parts=(ThinkingPart(text="hm", provider="ollama"), call)),
        Message(role=Role.USER, parts=(ToolOutcome(call_id="call_1", name="get_weather", content="sunny"),)),
    )
    options = {"num_ctx": 4096, "keep_alive": "5m"}
    async with ReplayServer([_reply("text")]) as server:
        await _ours(server.url, *talk, temperature=0.5, thinking=Thinking(effort="high"), options=options)
    body = json.loads(server.requests[0].body)
    theirs = ollama._types.ChatRequest(**body).model_dump(exclude_none=True)
    assert [message["role"] for message in theirs["messages"]] == ["user", "assistant", "tool"]
    assert theirs["messages"][0]["images"] == ["iVBORw0KGgo="]
    assert theirs["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "Lisbon"}
    assert theirs["messages"][2]["tool_name"] == "get_weather"
    assert theirs["options"] == {"num_ctx": 4096, "num_predict": 8000, "temperature": 0.5}
    assert (theirs["think"], theirs["keep_alive"], theirs["stream"]) == ("high", "5m", True)
    assert theirs["tools"][0]["function"]["parameters"]["properties"]["city"]["type"] == "string"


def test_addresses() -> None:
    """Every form of an address means what the client takes it for."""
    theirs = importlib.import_module("ollama._client")._parse_host
    hosts = ("1.2.3.4", "box", "ollama.internal", "[fe80::1]", "")
    rests = ("", ":1", ":56789", "/", ":56789/", "/path", ":56789/path/")
    for form in itertools.product(("", "http://", "https://"), hosts, rests):
        if form[0] and not form[1]:
            continue  # a scheme without a host is no address; the client takes the scheme for a host
        assert address("".join(form)) == theirs("".join(form)), form
