"""Anthropic's provider: what it sends, and what it makes of unusual answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from providers.anthropic import AnthropicProvider
from providers.anthropic_events import MessageReader
from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    ProviderError,
    StreamBroken,
)
from providers.interfaces import Completer, HealthCheck, TokenCounter
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Role,
    StopReason,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolCall,
    ToolChoice,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnRequest,
    UsageUpdate,
)
from providers.replay_server import ReplayServer, Reply, json_error
from providers.transport import Transport
from queue_backends import TokenUsage

_START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"claude-x",'
    b'"usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}}}\n\n'
)
_STOP = b'data: {"type":"message_stop"}\n\n'
pytestmark = pytest.mark.timeout(20)

_TOOL = ToolSpec(name="look", description="Looks.", input_schema={"properties": {"at": {"type": "string"}}})


async def _no_wait(_: float) -> None:
    return


@pytest.fixture
async def provider() -> AsyncIterator[AnthropicProvider]:
    """A provider that does not sleep between tries."""
    provider = AnthropicProvider(Transport(sleep=_no_wait))
    yield provider
    await provider.aclose()


def _turn(*messages: Message, tools: tuple[ToolSpec, ...] = (), **config: Any) -> TurnRequest:
    config = {"model": "claude-x", **config}
    return TurnRequest(config=AgentConfig(**config), messages=messages or (Message.user("Hi"),), tools=tools)


async def _sent(provider: AnthropicProvider, request: TurnRequest) -> dict[str, Any]:
    """The body that the request becomes on the wire."""
    async with ReplayServer([Reply(frames=(_START, _STOP))]) as server:
        config = msgspec.structs.replace(request.config, base_url=server.url)
        _ = [event async for event in provider.stream_turn(msgspec.structs.replace(request, config=config))]
    body: dict[str, Any] = json.loads(server.requests[0].body)
    return body


async def _answer(provider: AnthropicProvider, *frames: bytes) -> TurnEnd:
    async with ReplayServer([Reply(frames=frames)]) as server:
        events = [event async for event in provider.stream_turn(_turn(base_url=server.url, max_retries=1))]
    assert isinstance(events[-1], TurnEnd)
    return events[-1]


def _data(**event: Any) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def test_plain_request(provider: AnthropicProvider) -> None:
    """Path, headers and the fields that are always there; nothing that was not asked for."""
    async with ReplayServer([Reply(frames=(_START, _STOP))]) as server:
        request = _turn(base_url=server.url, system_prompt="Be kind.", max_tokens=77)
        _ = [event async for event in provider.stream_turn(request)]
    sent = server.requests[0]
    assert (sent.method, sent.target) == ("POST", "/v1/messages")
    assert sent.headers["x-api-key"] == "test-key-anthropic"
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert json.loads(sent.body) == {
        "model": "claude-x",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "system": [{"type": "text", "text": "Be kind."}],
        "stream": True,
        "max_tokens": 77,
    }


async def test_address_and_key_from_the_environment(
    provider: AnthropicProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are read at each call; `api_key_env` names another variable; a base URL may end in `/v1`."""
    async with ReplayServer([Reply(frames=(_START, _STOP))]) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url + "/v1/")
        monkeypatch.setenv("TEAM_KEY", " rotated \n")
        _ = [event async for event in provider.stream_turn(_turn(api_key_env="TEAM_KEY"))]
    assert server.requests[0].headers["x-api-key"] == "rotated"
    assert server.requests[0].target == "/v1/messages"


@pytest.mark.parametrize("value", [None, "", "  "])
async def test_missing_key(provider: AnthropicProvider, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """The text names the variable, as ark's does."""
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    if value is not None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", value)
    with pytest.raises(AuthenticationFailed) as caught:
        await anext(provider.stream_turn(_turn()))
    assert str(caught.value) == "ANTHROPIC_API_KEY is not set; required for the anthropic provider"


async def test_impossible_key(provider: AnthropicProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with a line break is refused before it reaches a header, and is not shown."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "first-half\nsecond-half")
    with pytest.raises(AuthenticationFailed) as caught:
        await anext(provider.stream_turn(_turn()))
    assert "half" not in str(caught.value)


async def test_tools(provider: AnthropicProvider) -> None:
    """The whole schema is sent, with the choice."""
    body = await _sent(provider, _turn(tools=(_TOOL,), tool_choice=ToolChoice.REQUIRED))
    schema = {"type": "object", "properties": {"at": {"type": "string"}}}
    assert body["tools"] == [{"name": "look", "description": "Looks.", "input_schema": schema}]
    assert body["tool_choice"] == {"type": "any"}


async def test_conversation(provider: AnthropicProvider) -> None:
    """Calls, outcomes, pictures and signed thinking go back in the vendor's form, outcomes first."""
    assistant = Message(
        role=Role.ASSISTANT,
        parts=(
            ThinkingPart(text="hm", signature="sig", provider="anthropic"),
            ThinkingPart(redacted="blob", provider="anthropic"),
            ThinkingPart(text="foreign", signature="theirs", provider="another"),
            ThinkingPart(text="unsigned", provider="anthropic"),
            TextPart(text="Let me look."),
            TextPart(text="  "),
            ToolCall(id="t1", name="look", arguments='{"at": 1.50}'),
            ToolCall(id="t2", name="look", arguments=""),
            ToolCall(id="t3", name="look", arguments='{"at": '),
        ),
    )
    picture = ImagePart(media_type="image/png", data="AAAA")
    user = Message(
        role=Role.USER,
        parts=(
            TextPart(text="and this:"),
            ImagePart(url="https://example.com/a.png"),
            ToolOutcome(call_id="t1", name="look", content="nothing", images=(picture,)),
            ToolOutcome(call_id="t2", name="look", content="no such place", is_error=True),
            ToolOutcome(call_id="t3", name="look"),
        ),
    )
    body = await _sent(provider, _turn(Message.user("Hi"), assistant, user, tools=(_TOOL,)))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "blob"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1.5}},
        {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
        {"type": "tool_use", "id": "t3", "name": "look", "input": {"invalid_arguments": '{"at": '}},
    ]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "nothing"}, image]},
        {"type": "tool_result", "tool_use_id": "t2", "content": "no such place", "is_error": True},
        {"type": "tool_result", "tool_use_id": "t3"},
        {"type": "text", "text": "and this:"},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    ]


async def test_thinking_budget(provider: AnthropicProvider) -> None:
    """The token limit is raised above the budget, and what cannot go with thinking is left out."""
    request = _turn(
        tools=(_TOOL,),
        thinking=Thinking(budget_tokens=2000),
        max_tokens=1000,
        temperature=0.2,
        tool_choice=ToolChoice.REQUIRED,
    )
    body = await _sent(provider, request)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert body["max_tokens"] == 3000
    assert body["tool_choice"] == {"type": "auto"}
    assert "temperature" not in body


async def test_thinking_effort(provider: AnthropicProvider) -> None:
    """An effort without a budget lets the model decide how much to think."""
    body = await _sent(provider, _turn(thinking=Thinking(effort="low")))
    assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "low"})


async def test_sampling_and_extras(provider: AnthropicProvider) -> None:
    """Settings are passed on, and `options` adds what we do not know."""
    options = {"extra_body": {"top_k": 5}}
    body = await _sent(provider, _turn(temperature=0.0, top_p=0.5, stop=("END",), options=options))
    assert (body["temperature"], body["top_p"], body["stop_sequences"], body["top_k"]) == (0.0, 0.5, ["END"], 5)


@pytest.mark.parametrize(
    ("chars", "with_tools", "options", "marks"),
    [(5000, True, {}, 2), (100, True, {}, 0), (5000, False, {}, 0), (5000, True, {"cache": False}, 0)],
)
async def test_prompt_caching(
    provider: AnthropicProvider, chars: int, with_tools: bool, options: dict[str, Any], marks: int
) -> None:
    """A long beginning that a tool loop will send again is marked: after the system prompt, and at the end."""
    tools = (_TOOL,) if with_tools else ()
    body = await _sent(provider, _turn(system_prompt="x" * chars, tools=tools, options=options))
    assert json.dumps(body).count('"cache_control": {"type": "ephemeral"}') == marks
    if marks:
        assert "cache_control" in body["system"][-1]
        assert "cache_control" in body["messages"][-1]["content"][-1]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", StopReason.END_TURN),
        ("max_tokens", StopReason.MAX_TOKENS),
        ("model_context_window_exceeded", StopReason.MAX_TOKENS),
        ("stop_sequence", StopReason.STOP_SEQUENCE),
        ("refusal", StopReason.REFUSAL),
        ("pause_turn", StopReason.PAUSE),
        ("tool_use", StopReason.TOOL_USE),
        ("something_new", StopReason.END_TURN),
    ],
)
async def test_stop_reasons(provider: AnthropicProvider, word: str, reason: StopReason) -> None:
    """Every stop reason of the API has its place; a new one ends the turn."""
    delta = _data(type="message_delta", delta={"stop_reason": word}, usage={"output_tokens": 7})
    assert (await _answer(provider, _START, delta, _STOP)).stop_reason is reason


def test_usage_is_replaced_not_added() -> None:
    """The counts of `message_delta` are cumulative, and the input includes what the cache gave."""
    reader = MessageReader()
    assert reader.usage is None
    first = reader.read(_START.partition(b"data: ")[2].strip())
    assert first == (UsageUpdate(TokenUsage(input_tokens=15, output_tokens=1, cache_read_tokens=5)),)
    last = reader.read(b'{"type":"message_delta","delta":{},"usage":{"output_tokens":30}}')
    assert last == (UsageUpdate(TokenUsage(input_tokens=15, output_tokens=30, cache_read_tokens=5)),)


async def test_tool_without_arguments(provider: AnthropicProvider) -> None:
    """A call without arguments has `{}`, whether or not an empty delta came."""
    block = {"type": "tool_use", "id": "t", "name": "now", "input": {}}
    end = await _answer(provider, _START, _data(type="content_block_start", index=0, content_block=block), _STOP)
    assert end.message.tool_calls == (ToolCall(id="t", name="now", arguments="{}"),)
    assert end.stop_reason is StopReason.TOOL_USE


async def test_blocks_that_come_whole(provider: AnthropicProvider) -> None:
    """A compatible server may put everything into the first event of a block."""
    text = {"type": "text", "text": "all"}
    tool = {"type": "tool_use", "id": "t", "name": "look", "input": {"at": "me"}}
    server_tool = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    frames = [
        _data(type="content_block_start", index=index, content_block=block)
        for index, block in enumerate((text, server_tool, tool))
    ]
    end = await _answer(provider, _START, *frames, _STOP)
    assert end.message.text == "all"
    assert [json.loads(call.arguments) for call in end.message.tool_calls] == [{"at": "me"}]


async def test_error_event_first(provider: AnthropicProvider) -> None:
    """An overload that comes as the first event is a failed request: it is tried again."""
    busy = Reply(frames=(_data(type="error", error={"type": "overloaded_error", "message": "Overloaded"}),))
    async with ReplayServer([busy, busy, Reply(frames=(_START, _STOP))]) as server:
        events = [event async for event in provider.stream_turn(_turn(base_url=server.url, max_retries=2))]
        assert isinstance(events[-1], TurnEnd)
        server.replies = [busy]
        with pytest.raises(Overloaded, match="overloaded_error: Overloaded"):
            await anext(provider.stream_turn(_turn(base_url=server.url, max_retries=0)))


async def test_error_event_in_the_middle(provider: AnthropicProvider) -> None:
    """One that comes later breaks the stream; its cause and the usage are kept."""
    busy = _data(type="error", error={"type": "overloaded_error", "message": "Overloaded"})
    with pytest.raises(StreamBroken, match="Overloaded") as caught:
        await _answer(provider, _START, busy)
    assert isinstance(caught.value.__cause__, Overloaded)
    assert caught.value.usage == TokenUsage(input_tokens=15, output_tokens=1, cache_read_tokens=5)


@pytest.mark.parametrize(
    "frame",
    [
        b"data: not json\n\n",
        b'data: {"type": 7}\n\n',
        b'data: {"type":"content_block_delta","index":3,"delta":{"type":"text_delta","text":"x"}}\n\n',
        b'data: {"type":"content_block_start","content_block":{"type":"text","text":"\xff"}}\n\n',
    ],
)
async def test_impossible_events(provider: AnthropicProvider, frame: bytes) -> None:
    """What no server may send is `BadResponse`, never a crash."""
    with pytest.raises(BadResponse):
        await _answer(provider, _START, frame)


async def test_context_too_long(provider: AnthropicProvider) -> None:
    """The vendor's own words are recognised."""
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 > 8"}}'
    async with ReplayServer([json_error(400, body)]) as server:
        with pytest.raises(ContextTooLong):
            await anext(provider.stream_turn(_turn(base_url=server.url)))


async def test_complete(provider: AnthropicProvider) -> None:
    """A single answer, with a default limit; an empty one is an error."""
    assert isinstance(provider, Completer)
    answer = {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes."}]}
    async with ReplayServer(
        [json_error(200, json.dumps(answer).encode()), json_error(200, b'{"content":[]}')]
    ) as server:
        config = AgentConfig(model="claude-x", base_url=server.url, system_prompt="ignored")
        assert await provider.complete(config, "Be brief.", "Is it?", 0) == "Yes."
        body = json.loads(server.requests[0].body)
        assert (body["max_tokens"], body["system"][0]["text"]) == (4000, "Be brief.")
        assert "stream" not in body
        with pytest.raises(BadResponse, match="provider returned empty response"):
            await provider.complete(config, "Be brief.", "Is it?", 5)


async def test_count_tokens(provider: AnthropicProvider) -> None:
    """The vendor counts."""
    assert isinstance(provider, TokenCounter)
    async with ReplayServer([json_error(200, b'{"input_tokens": 14}'), json_error(200, b"{}")]) as server:
        config = AgentConfig(model="claude-x", base_url=server.url, system_prompt="s")
        assert await provider.count_tokens(config, [Message.user("Hi")]) == 14
        assert server.requests[0].target == "/v1/messages/count_tokens"
        with pytest.raises(BadResponse):
            await provider.count_tokens(config, [Message.user("Hi")])


async def test_health_check(provider: AnthropicProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks for the models; a failure is an answer, with the reason."""
    assert isinstance(provider, HealthCheck)
    async with ReplayServer(
        [json_error(200, b'{"data":[]}'), json_error(401, b'{"error":{"message":"no"}}')]
    ) as server:
        config = AgentConfig(model="claude-x", base_url=server.url)
        assert (await provider.health_check(config)).healthy
        assert server.requests[0].target == "/v1/models?limit=1"
        failing = await provider.health_check(config)
        assert (failing.healthy, "401 no" in failing.message) == (False, True)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert "ANTHROPIC_API_KEY is not set" in (await provider.health_check(config)).message


async def test_every_error_names_the_provider(provider: AnthropicProvider) -> None:
    """Whoever reads the log knows which vendor failed."""
    async with ReplayServer([json_error(404, b'{"error":{"type":"not_found_error","message":"model: x"}}')]) as server:
        with pytest.raises(InvalidRequest) as caught:
            await anext(provider.stream_turn(_turn(base_url=server.url)))
    error: ProviderError = caught.value
    assert (error.provider, error.status) == ("anthropic", 404)
    assert str(error) == "anthropic API error: 404 not_found_error: model: x"


async def test_health_shows_no_password(provider: AnthropicProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address may hold one."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-1")
    async with ReplayServer([json_error(200, b"{}")]) as server:
        address = server.url.replace("http://", "http://me:geheim@")
        health = await provider.health_check(AgentConfig(model="m", base_url=address))
        assert health.details["base_url"] == server.url
    assert "geheim" not in repr(health)
