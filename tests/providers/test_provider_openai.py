"""OpenAI's provider: what it sends, and what it makes of the many servers that speak nearly the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from providers.calls import Call, Limits
from providers.errors import AuthenticationFailed, BadResponse, InvalidRequest, Overloaded, StreamBroken
from providers.interfaces import Completer, Embedder, HealthCheck, ModelInfo
from providers.messages import (
    AgentConfig,
    ImagePart,
    LimitsSeen,
    Message,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolCall,
    ToolChoice,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    UsageUpdate,
)
from providers.openai_chat import OpenAIChatProvider
from providers.openai_request import OPENAI, relaxed
from providers.replay_server import ReplayServer, Reply, json_error
from providers.transport import Transport
from queue_backends import TokenUsage

_DONE = b"data: [DONE]\n\n"
pytestmark = pytest.mark.timeout(20)

_TOOL = ToolSpec(name="look", description="Looks.", input_schema={"type": "object"})


async def _no_wait(_: float) -> None:
    return


@pytest.fixture
async def provider() -> AsyncIterator[OpenAIChatProvider]:
    """A provider that does not sleep between tries."""
    provider = OpenAIChatProvider(Transport(sleep=_no_wait))
    yield provider
    await provider.aclose()


def _chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "c1", "model": "m", "choices": choices, **more}).encode() + b"\n\n"


_OK = Reply(frames=(_chunk({"content": "ok"}, "stop"), _DONE))


def _turn(*messages: Message, tools: tuple[ToolSpec, ...] = (), **config: Any) -> TurnRequest:
    config = {"model": "gpt-x", **config}
    return TurnRequest(config=AgentConfig(**config), messages=messages or (Message.user("Hi"),), tools=tools)


async def _events(provider: OpenAIChatProvider, *frames: bytes) -> list[TurnEvent]:
    async with ReplayServer([Reply(frames=frames)]) as server:
        return [event async for event in provider.stream_turn(_turn(base_url=server.url, max_retries=0))]


async def _end(provider: OpenAIChatProvider, *frames: bytes) -> TurnEnd:
    end = (await _events(provider, *frames))[-1]
    assert isinstance(end, TurnEnd)
    return end


async def _sent(
    provider: OpenAIChatProvider, request: TurnRequest, replies: tuple[Reply, ...] = (_OK,)
) -> list[dict[str, Any]]:
    """The bodies that went over the wire."""
    async with ReplayServer(replies) as server:
        config = msgspec.structs.replace(request.config, base_url=server.url)
        _ = [event async for event in provider.stream_turn(msgspec.structs.replace(request, config=config))]
    return [json.loads(sent.body) for sent in server.requests]


def _refusal(message: str, status: int = 400) -> Reply:
    return json_error(status, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode())


async def test_plain_request(provider: OpenAIChatProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path, headers, and usage always asked for; an unknown server gets both names of the limit."""
    async with ReplayServer([_OK]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/v1/")
        _ = [event async for event in provider.stream_turn(_turn(system_prompt="Be kind.", max_tokens=77))]
    sent = server.requests[0]
    assert (sent.method, sent.target) == ("POST", "/v1/chat/completions")
    assert sent.headers["authorization"] == "Bearer test-key-openai"
    assert json.loads(sent.body) == {
        "model": "gpt-x",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 77,
        "max_tokens": 77,
    }


async def test_key(provider: OpenAIChatProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Required for the vendor and where one is named; a local server needs none."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(AuthenticationFailed) as caught:
        await anext(provider.stream_turn(_turn()))
    assert str(caught.value) == "OPENAI_API_KEY is not set; required for the openai provider"
    async with ReplayServer([_OK]) as server:
        _ = [event async for event in provider.stream_turn(_turn(base_url=server.url))]
        assert "authorization" not in server.requests[0].headers
        with pytest.raises(AuthenticationFailed, match="TEAM_KEY is not set"):
            await anext(provider.stream_turn(_turn(base_url=server.url, api_key_env="TEAM_KEY")))


async def test_conversation(provider: OpenAIChatProvider) -> None:
    """Calls and outcomes keep their order; a tool's pictures follow as the user's."""
    assistant = Message(
        role=Role.ASSISTANT,
        parts=(
            ThinkingPart(text="first", provider="openai"),
            ThinkingPart(text="foreign", signature="s", provider="anthropic"),
            TextPart(text="Let me look."),
            ToolCall(id="t1", name="look", arguments='{"at":1}'),
            ToolCall(id="t2", name="look", arguments=""),
        ),
    )
    picture = ImagePart(media_type="image/png", data="AAAA")
    outcomes = Message(
        role=Role.USER,
        parts=(
            ToolOutcome(call_id="t1", name="look", content="nothing", images=(picture,)),
            ToolOutcome(call_id="t2", name="look", content="no such place", is_error=True),
        ),
    )
    question = Message(role=Role.USER, parts=(TextPart(text="What?"), ImagePart(url="https://example.com/a.png")))
    (body,) = await _sent(provider, _turn(question, assistant, outcomes, tools=(_TOOL,)))
    data_url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
                {"id": "t2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ],
            "reasoning_content": "first",
        },
        {"role": "tool", "tool_call_id": "t1", "content": "nothing"},
        {"role": "tool", "tool_call_id": "t2", "content": "no such place"},
        {"role": "user", "content": [data_url]},
    ]
    assert body["tools"] == [
        {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
    ]


async def test_old_reasoning_stays_at_home(provider: OpenAIChatProvider) -> None:
    """Reasoning goes back within a tool loop, and not after the user has asked something new."""
    thought = ThinkingPart(text="old", provider="openai")
    called = Message(role=Role.ASSISTANT, parts=(thought, ToolCall(id="t", name="look")))
    answered = Message(role=Role.USER, parts=(ToolOutcome(call_id="t", name="look", content="x"),))
    only_thought = Message(role=Role.ASSISTANT, parts=(thought,))
    conversation = (Message.user("a"), called, answered, only_thought, Message.user("b"))
    (body,) = await _sent(provider, _turn(*conversation))
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "user"]
    assert "old" not in json.dumps(body)


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        (Thinking(effort="high"), "high"),
        (Thinking(budget_tokens=20_000), "high"),
        (Thinking(budget_tokens=4_096), "medium"),
        (Thinking(budget_tokens=100), "low"),
        (Thinking(), None),
        (None, None),
    ],
)
async def test_reasoning_effort(provider: OpenAIChatProvider, thinking: Thinking | None, effort: str | None) -> None:
    """An effort is passed on; a budget becomes one."""
    (body,) = await _sent(provider, _turn(thinking=thinking))
    assert body.get("reasoning_effort") == effort


async def test_settings(provider: OpenAIChatProvider) -> None:
    """Sampling, tool choice, output schema and the options for what we do not know."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    request = _turn(
        tools=(_TOOL,),
        temperature=0.0,
        top_p=0.5,
        stop=("END",),
        tool_choice=ToolChoice.REQUIRED,
        output_schema=schema,
        options={"extra_body": {"seed": 7}},
    )
    (body,) = await _sent(provider, request)
    assert (body["temperature"], body["top_p"], body["stop"], body["seed"]) == (0.0, 0.5, ["END"], 7)
    assert body["tool_choice"] == "required"
    wanted = {"name": "answer", "schema": schema, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": wanted}


@pytest.mark.parametrize(
    "schema", [{"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}, {"type": "object"}]
)
async def test_open_schemas_are_not_strict(provider: OpenAIChatProvider, schema: dict[str, Any]) -> None:
    """The vendor's strict mode refuses schemas with optional or additional properties."""
    (body,) = await _sent(provider, _turn(output_schema=schema))
    assert body["response_format"]["json_schema"]["strict"] is False


async def test_server_without_usage_option(provider: OpenAIChatProvider) -> None:
    """A server that refuses `stream_options` is asked again without, and remembered."""
    replies = (_refusal("Unrecognized request argument supplied: stream_options"), _OK)
    async with ReplayServer(replies) as server:
        for _ in range(2):
            request = _turn(base_url=server.url)
            end = [event async for event in provider.stream_turn(request)][-1]
            assert isinstance(end, TurnEnd)
            assert end.usage == TokenUsage()
    assert ["stream_options" in json.loads(sent.body) for sent in server.requests] == [True, False, False]


async def test_server_with_the_old_limit_only(provider: OpenAIChatProvider) -> None:
    """A server that refuses the newer name of the limit gets the older one."""
    first, second = await _sent(provider, _turn(), (_refusal("extra_forbidden: max_completion_tokens", 422), _OK))
    assert ("max_tokens" in first, "max_completion_tokens" in first) == (True, True)
    assert ("max_tokens" in second, "max_completion_tokens" in second) == (True, False)


async def test_server_with_the_new_limit_only(provider: OpenAIChatProvider) -> None:
    """And the other way round."""
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    _, second = await _sent(provider, _turn(), (_refusal(said), _OK))
    assert ("max_tokens" in second, "max_completion_tokens" in second) == (False, True)


@pytest.mark.parametrize(
    "said",
    [
        "Unsupported parameter: 'temperature' is not supported with this model.",
        "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is.",
    ],
)
async def test_model_without_sampling(provider: OpenAIChatProvider, said: str) -> None:
    """Reasoning models take neither temperature nor top_p: they are left out once the server says so."""
    first, second = await _sent(provider, _turn(temperature=0.5, top_p=0.5), (_refusal(said), _OK))
    assert ("temperature" in first, "top_p" in first) == (True, True)
    assert ("temperature" in second, "top_p" in second) == (False, False)


async def test_model_without_tools(provider: OpenAIChatProvider) -> None:
    """The tools are left out once the server says that the model has none; asked anew each turn."""
    refusal = _refusal("registry.ollama.ai/library/gemma:2b does not support tools")
    async with ReplayServer([refusal, _OK, refusal, _OK]) as server:
        for _ in range(2):
            _ = [event async for event in provider.stream_turn(_turn(tools=(_TOOL,), base_url=server.url))]
    bodies = [json.loads(sent.body) for sent in server.requests]
    assert ["tools" in body for body in bodies] == [True, False, True, False]
    assert ["tool_choice" in body for body in bodies] == [True, False, True, False]


@pytest.mark.parametrize("said", ["max_tokens is too large: 9000000", "messages: field required", "model not found"])
async def test_other_refusals_are_final(provider: OpenAIChatProvider, said: str) -> None:
    """A refusal about something else is not answered by a second request."""
    async with ReplayServer([_refusal(said)]) as server:
        with pytest.raises(InvalidRequest, match=said):
            await anext(provider.stream_turn(_turn(base_url=server.url)))
    assert len(server.requests) == 1


def test_dialects_get_simpler() -> None:
    """Every step takes something away, so that asking again comes to an end."""
    dialect, steps = OPENAI, 0
    said = "unsupported: stream_options, max_completion_tokens; does not support tools"
    while (easier := relaxed(dialect, InvalidRequest(said, status=400))) is not None:
        dialect, steps = easier, steps + 1
    assert steps == 3
    assert relaxed(OPENAI, Overloaded(said)) is None


async def test_reasoning_fields(provider: OpenAIChatProvider) -> None:
    """`reasoning` and `reasoning_content` are both read; an object in their place is no error."""
    end = await _end(
        provider,
        _chunk({"reasoning_content": "a"}),
        _chunk({"reasoning": "b", "reasoning_details": [{}]}),
        _chunk({"reasoning": {"x": 1}}),
        _chunk({"content": "c"}, "stop"),
        _DONE,
    )
    assert end.message.parts == (ThinkingPart(text="ab", provider="openai"), TextPart(text="c"))


async def test_finish_reason_stop_with_calls(provider: OpenAIChatProvider) -> None:
    """Local servers say `stop` although there are calls; whole calls, without index or id, are taken too."""
    calls = [{"function": {"name": "a", "arguments": {"x": 1}}}, {"function": {"name": "b"}}]
    end = await _end(provider, _chunk({"tool_calls": calls}, "stop"), _DONE)
    first, second = end.message.tool_calls
    assert (first.name, first.arguments, second.name, second.arguments) == ("a", '{"x":1}', "b", "{}")
    assert end.stop_reason is StopReason.TOOL_USE
    assert first.id
    assert first.id != second.id


async def test_calls_that_share_an_index(provider: OpenAIChatProvider) -> None:
    """Another id at the same index is another call; a repeated name is not."""

    def delta(id_: str, arguments: str) -> bytes:
        return _chunk({"tool_calls": [{"index": 0, "id": id_, "function": {"name": "look", "arguments": arguments}}]})

    end = await _end(provider, delta("a", '{"x"'), delta("a", ":1}"), delta("b", "{}"), _chunk({}, "tool_calls"), _DONE)
    assert end.message.tool_calls == (
        ToolCall(id="a", name="look", arguments='{"x":1}'),
        ToolCall(id="b", name="look", arguments="{}"),
    )


async def test_pieces_without_an_index(provider: OpenAIChatProvider) -> None:
    """Pieces that say nothing about where they belong continue the last call."""
    pieces = [
        {"id": "a", "function": {"name": "look", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": "a", "function": {"arguments": " "}},
    ]
    end = await _end(provider, *(_chunk({"tool_calls": [piece]}) for piece in pieces), _chunk({}, "tool_calls"))
    assert end.message.tool_calls == (ToolCall(id="a", name="look", arguments="{} "),)


async def test_a_call_cut_by_the_token_limit(provider: OpenAIChatProvider) -> None:
    """Half a call must not be run: the turn says that the limit was hit."""
    piece = {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at": "he'}}
    end = await _end(provider, _chunk({"tool_calls": [piece]}), _chunk({}, "length"), _DONE)
    assert end.stop_reason is StopReason.MAX_TOKENS


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", StopReason.END_TURN),
        ("length", StopReason.MAX_TOKENS),
        ("content_filter", StopReason.REFUSAL),
        ("tool_calls", StopReason.END_TURN),
        ("eos", StopReason.END_TURN),
    ],
)
async def test_finish_reasons(provider: OpenAIChatProvider, finish: str, reason: StopReason) -> None:
    """Every finish reason has its place; an unknown one ends the turn."""
    assert (await _end(provider, _chunk({"content": "x"}, finish))).stop_reason is reason


async def test_refusal(provider: OpenAIChatProvider) -> None:
    """The words of a refusal are the answer's text."""
    events = await _events(provider, _chunk({"refusal": "I will "}), _chunk({"refusal": "not."}, "stop"), _DONE)
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert (end.message.text, end.stop_reason) == ("I will not.", StopReason.REFUSAL)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "I will not."


async def test_content_in_pieces_of_objects(provider: OpenAIChatProvider) -> None:
    """Content may be a list of typed pieces, of which the text counts."""
    content = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert (await _end(provider, _chunk({"content": content}, "stop"))).message.text == "ab"


async def test_usage_with_every_chunk(provider: OpenAIChatProvider) -> None:
    """Counts are cumulative: the last ones stand. Unknown stays unknown."""
    events = await _events(
        provider,
        _chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": 1}),
        _chunk({"content": "b"}, "stop", usage={"prompt_tokens": 5, "completion_tokens": 2}),
        _chunk(usage={"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}),
        _DONE,
    )
    updates = [event.usage.output_tokens for event in events if isinstance(event, UsageUpdate)]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert updates == [1, 2, 2]
    assert end.usage == TokenUsage(input_tokens=5, output_tokens=2, cache_read_tokens=4)


async def test_no_usage_is_not_zero(provider: OpenAIChatProvider) -> None:
    """A server that reports nothing leaves every count unknown."""
    events = await _events(provider, _chunk({"content": "a"}, "stop", usage=None), _DONE)
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert end.usage == TokenUsage()
    assert not any(isinstance(event, UsageUpdate) for event in events)


async def test_ends_of_a_stream(provider: OpenAIChatProvider) -> None:
    """A finish reason or the end marker will do; without both the stream is broken."""
    assert (await _end(provider, _chunk({"content": "a"}, "stop"))).message.text == "a"
    assert (await _end(provider, _chunk({"content": "a"}), _DONE)).message.text == "a"
    with pytest.raises(StreamBroken):
        await _end(provider, _chunk({"content": "a"}, usage={"prompt_tokens": 1, "completion_tokens": 1}))


async def test_nothing_but_an_end(provider: OpenAIChatProvider) -> None:
    """An answer without any choice is none."""
    with pytest.raises(BadResponse, match="openai: empty choices in response"):
        await _end(provider, _chunk(), _DONE)


async def test_answer_in_one_piece(provider: OpenAIChatProvider) -> None:
    """A server that ignores `stream` answers with a document; it counts."""
    document = {
        "id": "c9",
        "model": "m",
        "choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    async with ReplayServer([json_error(200, json.dumps(document).encode())]) as server:
        events = [event async for event in provider.stream_turn(_turn(base_url=server.url))]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert (end.message.text, end.usage.input_tokens) == ("whole", 3)
    assert TextDelta("whole") in events


@pytest.mark.parametrize(
    "error", [{"message": "Overloaded", "code": 503}, {"message": "slots full", "type": "server_error"}]
)
async def test_error_chunk_in_the_middle(provider: OpenAIChatProvider, error: dict[str, Any]) -> None:
    """An error after the first words breaks the stream and keeps the usage."""
    failed = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    begun = _chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": 1})
    with pytest.raises(StreamBroken, match=str(error["message"])) as caught:
        await _end(provider, begun, failed)
    assert caught.value.usage == TokenUsage(input_tokens=5, output_tokens=1)


async def test_error_chunk_first(provider: OpenAIChatProvider) -> None:
    """As the first event it is a failed request, which is tried again."""
    busy = Reply(frames=(b'data: {"error":{"message":"Overloaded","code":503}}\n\n',))
    async with ReplayServer([busy, _OK]) as server:
        events = [event async for event in provider.stream_turn(_turn(base_url=server.url, max_retries=1))]
    assert isinstance(events[-1], TurnEnd)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "frame", [b"data: {\n\n", b'data: {"choices": 1}\n\n', b'data: {"choices":[{"delta":{"content":1}}]}\n\n']
)
async def test_impossible_chunks(provider: OpenAIChatProvider, frame: bytes) -> None:
    """What no server may send is `BadResponse`, never a crash."""
    with pytest.raises(BadResponse):
        await _end(provider, _chunk({"content": "a"}), frame)


async def test_complete(provider: OpenAIChatProvider) -> None:
    """A single answer."""
    assert isinstance(provider, Completer)
    answer = b'{"choices":[{"message":{"content":"Yes."}}]}'
    async with ReplayServer([json_error(200, answer), json_error(200, b'{"choices":[]}')]) as server:
        config = AgentConfig(model="m", base_url=server.url)
        assert await provider.complete(config, "Be brief.", "Is it?", 9) == "Yes."
        body = json.loads(server.requests[0].body)
        assert (body["max_tokens"], body["messages"][0]["role"]) == (9, "system")
        with pytest.raises(BadResponse, match="openai: empty choices in response"):
            await provider.complete(config, "", "Is it?", 9)


async def test_embed(provider: OpenAIChatProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors come back in the order of the texts; the model is a setting."""
    assert isinstance(provider, Embedder)
    monkeypatch.setenv("AGENT_EMBED_MODEL", "embed-small")
    answer = b'{"data":[{"index":1,"embedding":[0.5]},{"index":0,"embedding":[0.25]}]}'
    async with ReplayServer([json_error(200, answer), json_error(200, b'{"data":[]}')]) as server:
        config = AgentConfig(model="m", base_url=server.url)
        assert await provider.embed(config, []) == []
        assert await provider.embed(config, ["a", "b"]) == [[0.25], [0.5]]
        body = json.loads(server.requests[0].body)
        assert (body["model"], body["input"]) == ("embed-small", ["a", "b"])
        with pytest.raises(BadResponse, match="0 vectors came back for 1 texts"):
            await provider.embed(config, ["a"])


async def test_embed_many(provider: OpenAIChatProvider) -> None:
    """More texts than the vendor takes at once are asked for in several requests, and stay in order."""

    def vectors(first: int, count: int) -> Reply:
        data = [{"index": index, "embedding": [float(first + index)]} for index in range(count)]
        return json_error(200, json.dumps({"data": data}).encode())

    async with ReplayServer([vectors(0, 2048), vectors(2048, 3)]) as server:
        found = await provider.embed(AgentConfig(model="m", base_url=server.url), ["x"] * 2051)
    assert found == [[float(index)] for index in range(2051)]
    assert [len(json.loads(sent.body)["input"]) for sent in server.requests] == [2048, 3]


async def test_count_tokens(provider: OpenAIChatProvider) -> None:
    """An estimate without a call: prompt, texts, calls, outcomes and pictures all count."""
    config = AgentConfig(model="m", base_url="http://127.0.0.1:1")
    long = "word " * 400
    call = ToolCall(id="t", name="look", arguments=json.dumps({"at": long}))
    picture = ImagePart(media_type="image/png", data="AA")
    parts = (TextPart(text=long), call, ToolOutcome(call_id="t", name="look", content=long), picture)
    for part in parts:
        assert 400 < await provider.count_tokens(config, [Message(role=Role.USER, parts=(part,))]) < 2500
    prompted = msgspec.structs.replace(config, system_prompt=long)
    assert 400 < await provider.count_tokens(prompted, []) < 800


@pytest.mark.parametrize(
    ("entry", "info"),
    [
        ({"id": "m", "max_model_len": 8192}, ModelInfo(context_window=8192)),
        ({"id": "other", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}}, ModelInfo(context_window=2048)),
        (
            {"id": "m", "context_window": 131072, "max_completion_tokens": 16384},
            ModelInfo(context_window=131072, max_output_tokens=16384),
        ),
        (
            {"id": "m", "max_context_length": 32768, "capabilities": {"function_calling": True, "vision": False}},
            ModelInfo(context_window=32768, tools=True, images=False),
        ),
        (
            {
                "id": "m",
                "context_length": 200000,
                "top_provider": {"max_completion_tokens": 64000},
                "architecture": {"input_modalities": ["text", "image"]},
                "supported_parameters": ["tools", "max_tokens"],
            },
            ModelInfo(context_window=200000, max_output_tokens=64000, tools=True, images=True, thinking=False),
        ),
        ({"id": "m", "context_length": "many", "meta": None, "capabilities": ["x"]}, ModelInfo()),
    ],
)
async def test_models_of_compatible_servers(
    provider: OpenAIChatProvider, entry: dict[str, Any], info: ModelInfo
) -> None:
    """What a server tells of its model is known, whatever it calls it."""
    async with ReplayServer([json_error(200, json.dumps({"data": [entry]}).encode())]) as server:
        assert await provider.model_info(AgentConfig(model="m", base_url=server.url)) == info


async def test_model_among_many(provider: OpenAIChatProvider) -> None:
    """Another model's facts are not taken for the agent's; a list that cannot be read tells nothing."""
    listed = b'{"data": [{"id": "a", "context_length": 1}, {"id": "b", "context_length": 2}]}'
    async with ReplayServer([json_error(200, listed), json_error(200, b'{"data": [7]}')]) as server:
        for _ in range(2):
            assert await provider.model_info(AgentConfig(model="m", base_url=server.url)) == ModelInfo()


async def test_models_of_the_vendor() -> None:
    """At OpenAI itself nobody is asked: its list has names only."""

    class Deaf(Transport):
        async def post_json(self, call: Call, limits: Limits) -> bytes:
            raise AssertionError(f"{call} was asked")

    info = await OpenAIChatProvider(Deaf()).model_info(AgentConfig(model="gpt-4.1-mini"))
    assert info.context_window is not None
    assert info.context_window > 100_000


async def test_account_headers(provider: OpenAIChatProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live settings name organization and project anywhere; the environment's are OpenAI's business alone."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-env")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-env")
    call = await provider.endpoint.call(AgentConfig(model="m"), "/models")
    assert call.headers["openai-organization"] == "org-env"
    elsewhere = AgentConfig(model="m", base_url="http://127.0.0.1:1")
    assert "openai-project" not in (await provider.endpoint.call(elsewhere, "/models")).headers
    await provider.config_updated({"project": "proj-live"})
    assert (await provider.endpoint.call(elsewhere, "/models")).headers["openai-project"] == "proj-live"


async def test_limits_in_headers(provider: OpenAIChatProvider) -> None:
    """What the vendor tells of its rate limits comes first."""
    headers = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
    async with ReplayServer([msgspec.structs.replace(_OK, headers=headers)]) as server:
        events = [event async for event in provider.stream_turn(_turn(base_url=server.url))]
    assert isinstance(events[0], LimitsSeen)
    assert not any(isinstance(event, LimitsSeen) for event in events[1:])


async def test_health_check(provider: OpenAIChatProvider) -> None:
    """Asks for the models; a failure is an answer, with the reason."""
    assert isinstance(provider, HealthCheck)
    async with ReplayServer([json_error(200, b'{"data":[]}'), json_error(503, b'{"error":"loading"}')]) as server:
        config = AgentConfig(model="m", base_url=server.url + "/v1")
        assert (await provider.health_check(config)).healthy
        assert server.requests[0].target == "/v1/models"
        failing = await provider.health_check(config)
        assert (failing.healthy, "503 loading" in failing.message) == (False, True)


async def test_further_answers_are_left_out(provider: OpenAIChatProvider) -> None:
    """With `n` in `extra_body` several answers come at once: ours is the first that begins, and only that."""

    def piece(index: int, text: str, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        return b"data: " + json.dumps({"id": "c1", "choices": [choice]}).encode() + b"\n\n"

    frames = (piece(0, "one"), piece(1, "two"), piece(1, "!", "length"), piece(0, ".", "stop"), _DONE)
    *_, end = await _events(provider, *frames)
    assert isinstance(end, TurnEnd)
    assert (end.message.text, end.stop_reason) == ("one.", StopReason.END_TURN)


async def test_pieces_of_a_call_with_ids_of_their_own(provider: OpenAIChatProvider) -> None:
    """Some servers make a new id for each piece; only a new name makes a new call."""
    pieces = [
        {"index": 0, "id": "a1", "function": {"name": "look", "arguments": '{"at"'}},
        {"index": 0, "id": "a2", "function": {"arguments": ":1}"}},
        {"index": 0, "id": "b1", "function": {"name": "look", "arguments": "{}"}},
    ]
    chunks = [_chunk({"tool_calls": [piece]}) for piece in pieces]
    *_, end = await _events(provider, *chunks, _chunk({}, "tool_calls"), _DONE)
    assert isinstance(end, TurnEnd)
    assert [(call.id, call.arguments) for call in end.message.tool_calls] == [("a1", '{"at":1}'), ("b1", "{}")]


async def test_a_call_that_a_filter_cut(provider: OpenAIChatProvider) -> None:
    """Half a call is no call: the turn is a refusal."""
    piece = {"index": 0, "id": "a1", "function": {"name": "look", "arguments": '{"at"'}}
    *_, end = await _events(provider, _chunk({"tool_calls": [piece]}), _chunk({}, "content_filter"), _DONE)
    assert isinstance(end, TurnEnd)
    assert end.stop_reason is StopReason.REFUSAL


@pytest.mark.parametrize(
    ("address", "vendor"),
    [
        ("https://eu.api.openai.com/v1", True),
        ("https://api.openai.com/v1", True),
        ("https://myapi.openai.com.evil.example/v1", False),
        ("https://fakeapi.openai.com/v1", False),
    ],
)
def test_regions_are_the_vendor_too(provider: OpenAIChatProvider, address: str, vendor: bool) -> None:
    """Data may have to stay in a region; other hosts are not sent what is the vendor's."""
    assert provider.endpoint.is_vendor(AgentConfig(model="m", base_url=address)) is vendor


async def test_a_live_key_is_named_and_trimmed(provider: OpenAIChatProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break at its end, from a file, does no harm; one inside does, and the error says which key it is."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    async with ReplayServer([_OK]) as server:
        await provider.config_updated({"api_key": "sk-live\n"})
        assert [event async for event in provider.stream_turn(_turn(base_url=server.url))]
        assert server.requests[0].headers["authorization"] == "Bearer sk-live"
    await provider.config_updated({"api_key": "sk-live\nbroken"})
    with pytest.raises(AuthenticationFailed, match="the setting api_key has characters"):
        assert [event async for event in provider.stream_turn(_turn(base_url="http://127.0.0.1:1"))]


async def test_an_address_without_its_path(provider: OpenAIChatProvider) -> None:
    """Who forgot `/v1` is told where nothing was, without the password in it."""
    page = Reply(status=404, frames=(b"<html><h1>404 Not Found</h1></html>",), content_type="text/html")
    async with ReplayServer([page]) as server:
        address = server.url.replace("http://", "http://me:geheim@")
        with pytest.raises(
            InvalidRequest, match=r"nothing like it is at .*/chat/completions: check the base URL"
        ) as told:
            assert [event async for event in provider.stream_turn(_turn(base_url=address))]
    assert "geheim" not in str(told.value)


@pytest.mark.parametrize(("completion", "total"), [(103, 135), (9, 135)])
async def test_reasoning_is_counted_once(provider: OpenAIChatProvider, completion: int, total: int) -> None:
    """Most servers count it within the completion, xAI beside it: the total tells. Output includes it either way."""
    usage = {
        "prompt_tokens": 32,
        "completion_tokens": completion,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": 94},
    }
    *_, end = await _events(provider, _chunk({"content": "ok"}, "stop"), _chunk(usage=usage), _DONE)
    assert isinstance(end, TurnEnd)
    assert (end.usage.output_tokens, end.usage.reasoning_tokens) == (103, 94)
