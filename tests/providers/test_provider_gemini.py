"""Gemini's provider: what it sends, and what it makes of unusual answers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    Refused,
    StreamBroken,
)
from providers.gemini import GeminiProvider
from providers.gemini_events import ContentReader
from providers.gemini_request import NO_SIGNATURE
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    Thinking,
    ThinkingDelta,
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

pytestmark = pytest.mark.timeout(60)

_TOOL = ToolSpec(name="look", description="Looks.", input_schema={"properties": {"at": {"type": "string"}}})
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def _data(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _parts(*parts: Mapping[str, Any], finish: str | None = None, **more: Any) -> bytes:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return _data(candidates=[candidate], **more)


_OK = _parts({"text": "Hi"}, finish="STOP")


async def _no_wait(_: float) -> None:
    return


@pytest.fixture
async def provider() -> AsyncIterator[GeminiProvider]:
    """A provider that does not sleep between tries."""
    provider = GeminiProvider(Transport(sleep=_no_wait))
    yield provider
    await provider.aclose()


def _turn(*messages: Message, tools: tuple[ToolSpec, ...] = (), **config: Any) -> TurnRequest:
    config = {"model": "gemini-3-pro-preview", **config}
    return TurnRequest(config=AgentConfig(**config), messages=messages or (Message.user("Hi"),), tools=tools)


async def _sent(provider: GeminiProvider, request: TurnRequest) -> dict[str, Any]:
    """The body that the request becomes on the wire."""
    async with ReplayServer([Reply(frames=(_OK,))]) as server:
        config = msgspec.structs.replace(request.config, base_url=server.url)
        _ = [event async for event in provider.stream_turn(msgspec.structs.replace(request, config=config))]
    body: dict[str, Any] = json.loads(server.requests[0].body)
    return body


async def _events(provider: GeminiProvider, *frames: bytes, **reply: Any) -> list[Any]:
    async with ReplayServer([Reply(frames=frames, **reply)]) as server:
        return [event async for event in provider.stream_turn(_turn(base_url=server.url, max_retries=0))]


async def _answer(provider: GeminiProvider, *frames: bytes) -> TurnEnd:
    end = (await _events(provider, *frames))[-1]
    assert isinstance(end, TurnEnd)
    return end


async def _failure(provider: GeminiProvider, reply: Reply, **config: Any) -> ProviderError:
    async with ReplayServer([reply]) as server:
        with pytest.raises(ProviderError) as caught:
            _ = [event async for event in provider.stream_turn(_turn(base_url=server.url, **config))]
    return caught.value


async def test_plain_request(provider: GeminiProvider) -> None:
    """Path, headers and the fields that are always there; nothing that was not asked for, and no key in the address."""
    async with ReplayServer([Reply(frames=(_OK,))]) as server:
        request = _turn(base_url=server.url, system_prompt="Be kind.", max_tokens=77)
        _ = [event async for event in provider.stream_turn(request)]
    sent = server.requests[0]
    assert (sent.method, sent.target) == (
        "POST",
        "/v1beta/models/gemini-3-pro-preview:streamGenerateContent?alt=sse",
    )
    assert sent.headers["x-goog-api-key"] == "test-key-gemini"
    assert json.loads(sent.body) == {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "generationConfig": {"maxOutputTokens": 77},
    }


@pytest.mark.parametrize(
    ("gemini", "google", "expected"), [("one", "two", "one"), ("", "two", "two"), (None, " two\n", "two")]
)
async def test_key(
    provider: GeminiProvider, monkeypatch: pytest.MonkeyPatch, gemini: str | None, google: str, expected: str
) -> None:
    """Gemini's variable counts more than Google's; the address may name the API's version."""
    monkeypatch.delenv("GEMINI_API_KEY")
    if gemini is not None:
        monkeypatch.setenv("GEMINI_API_KEY", gemini)
    monkeypatch.setenv("GOOGLE_API_KEY", google)
    async with ReplayServer([Reply(frames=(_OK,))]) as server:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url + "/v1/")
        _ = [event async for event in provider.stream_turn(_turn(model="models/tuned-x"))]
    assert server.requests[0].headers["x-goog-api-key"] == expected
    assert server.requests[0].target == "/v1/models/tuned-x:streamGenerateContent?alt=sse"


_MISSING_KEY = (
    "GEMINI_API_KEY is not set; required for the gemini provider "
    "(or set GEMINI_PROJECT + GEMINI_LOCATION for Vertex AI)"
)


async def test_missing_key(provider: GeminiProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names the usual variable."""
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(AuthenticationFailed, match=f"^{re.escape(_MISSING_KEY)}$"):
        await anext(provider.stream_turn(_turn()))


@pytest.mark.parametrize("model", ["", "../secrets"])
async def test_impossible_model(provider: GeminiProvider, model: str) -> None:
    """A name that would lead elsewhere is refused before anything is sent."""
    with pytest.raises(InvalidRequest, match="no model's name"):
        await anext(provider.stream_turn(_turn(model=model)))


async def test_live_settings(provider: GeminiProvider) -> None:
    """Model and version of agents that name none come from the live settings."""
    async with ReplayServer([Reply(frames=(_OK,))]) as server:
        await provider.config_updated({"base_url": server.url, "model": "gemini-x", "api_version": "v1alpha"})
        _ = [event async for event in provider.stream_turn(_turn(model=""))]
    assert server.requests[0].target == "/v1alpha/models/gemini-x:streamGenerateContent?alt=sse"


async def test_tools(provider: GeminiProvider) -> None:
    """Schemas go as JSON Schema; a tool without parameters has none; the choice is sent if it is one."""
    bare = ToolSpec(name="now")
    body = await _sent(provider, _turn(tools=(_TOOL, bare)))
    schema = {"type": "object", "properties": {"at": {"type": "string"}}}
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "look", "description": "Looks.", "parametersJsonSchema": schema},
                {"name": "now", "description": ""},
            ]
        }
    ]
    assert "toolConfig" not in body
    for choice, mode in ((ToolChoice.REQUIRED, "ANY"), (ToolChoice.NONE, "NONE")):
        body = await _sent(provider, _turn(tools=(_TOOL,), tool_choice=choice))
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": mode}}


async def test_signatures_go_back_on_their_parts(provider: GeminiProvider) -> None:
    """Whatever part a signature came with, it goes back with that part, and no part is joined with another."""
    sent: list[dict[str, Any]] = [
        {"text": "Let me ", "thought": True},
        {"text": "think.", "thought": True, "thoughtSignature": "c2lnLXRob3VnaHQ="},
        {"text": "I look"},
        {"text": " twice.", "thoughtSignature": "c2lnLXRleHQ="},
        {"functionCall": {"name": "look", "args": {"at": "sea"}, "id": "a1"}, "thoughtSignature": "c2lnLWNhbGw="},
        {"functionCall": {"name": "look", "args": {"at": "sky"}, "id": "a2"}},
        {"text": "", "thoughtSignature": "c2lnLWVtcHR5"},
    ]
    end = await _answer(provider, *[_parts(part) for part in sent[:-1]], _parts(sent[-1], finish="STOP"))
    assert end.message.text == "I look twice."
    outcomes = tuple(ToolOutcome(call_id=call.id, name="look", content="blue") for call in end.message.tool_calls)
    messages = (Message.user("Hi"), end.message, Message(role=Role.USER, parts=outcomes))
    body = await _sent(provider, _turn(*messages, tools=(_TOOL,)))
    assert body["contents"][1] == {"role": "model", "parts": sent}
    assert [part["functionResponse"]["id"] for part in body["contents"][2]["parts"]] == ["a1", "a2"]


async def test_signature_that_cannot_be_read(provider: GeminiProvider) -> None:
    """Of another project, say: the turn is asked for again without any reasoning, once, and only for that reason."""
    refusal = json_error(400, _error(400, "INVALID_ARGUMENT", "Thought signature is not valid"))
    parts = (ThinkingPart(signature="c2ln", provider="gemini"), ToolCall(id="a1", name="look"))
    outcome = Message(role=Role.USER, parts=(ToolOutcome(call_id="a1", name="look", content="x"),))
    talk = (Message.user("Hi"), Message(role=Role.ASSISTANT, parts=parts), outcome)
    async with ReplayServer([refusal, Reply(frames=(_OK,))]) as server:
        events = [event async for event in provider.stream_turn(_turn(*talk, base_url=server.url))]
    assert isinstance(events[-1], TurnEnd)
    first, second = [json.loads(request.body)["contents"][1]["parts"] for request in server.requests]
    assert [part["thoughtSignature"] for part in (*first, *second)] == ["c2ln", NO_SIGNATURE]
    for reply, messages in ((refusal, talk[:1]), (json_error(400, _error(400, "INVALID_ARGUMENT", "else")), talk)):
        async with ReplayServer([reply]) as server:
            with pytest.raises(InvalidRequest):
                _ = [event async for event in provider.stream_turn(_turn(*messages, base_url=server.url))]
        assert len(server.requests) == 1


async def test_calls_without_ids(provider: GeminiProvider) -> None:
    """Calls that the API gave no id have one of ours, which it never sees; arguments stay as they were written."""
    calls = [{"functionCall": {"name": "look", "args": {"at": where}}} for where in ("sea", "sky")]
    frame = _parts(*calls, {"functionCall": {"name": "now"}}, finish="STOP")
    end = await _answer(provider, frame)
    assert end.stop_reason is StopReason.TOOL_USE
    ids = [call.id for call in end.message.tool_calls]
    assert len(set(ids)) == 3
    assert [call.arguments for call in end.message.tool_calls] == ['{"at": "sea"}', '{"at": "sky"}', "{}"]
    outcomes = tuple(ToolOutcome(call_id=each, name="look", content="x") for each in ids)
    talk = (Message.user("Hi"), end.message, Message(role=Role.USER, parts=outcomes))
    body = await _sent(provider, _turn(*talk, model="gemini-2.5-flash"))
    assert body["contents"][1]["parts"][0] == {"functionCall": {"name": "look", "args": {"at": "sea"}}}
    assert body["contents"][2]["parts"][0] == {"functionResponse": {"name": "look", "response": {"output": "x"}}}
    async with ReplayServer([Reply(frames=(frame,))]) as server:
        events = [event async for event in provider.stream_turn(_turn(*talk, base_url=server.url))]
    assert isinstance(events[-1], TurnEnd)
    assert not set(ids) & {call.id for call in events[-1].message.tool_calls}


async def test_conversation_of_another_vendor(provider: GeminiProvider) -> None:
    """Its reasoning is left out, and its calls carry Google's word for calls without a signature."""
    parts = (
        ThinkingPart(text="hm", signature="foreign", provider="anthropic"),
        TextPart(text="I look."),
        ToolCall(id="toolu_1", name="look", arguments='{"at": "sea"}'),
        ToolCall(id="toolu_2", name="look", arguments="no json"),
    )
    outcomes = (
        ToolOutcome(call_id="toolu_1", name="look", content="blue"),
        ToolOutcome(call_id="toolu_2", name="look", content="unreadable", is_error=True),
    )
    later = Message(role=Role.USER, parts=(TextPart(text="Well?"), *outcomes))
    body = await _sent(provider, _turn(Message.user("Hi"), Message(role=Role.ASSISTANT, parts=parts), later))
    first = {"functionCall": {"id": "toolu_1", "name": "look", "args": {"at": "sea"}}, "thoughtSignature": NO_SIGNATURE}
    second = {"functionCall": {"id": "toolu_2", "name": "look", "args": {"invalid_arguments": "no json"}}}
    assert body["contents"][1]["parts"] == [{"text": "I look."}, first, second]
    assert [next(iter(part)) for part in body["contents"][2]["parts"]] == [
        "functionResponse",
        "functionResponse",
        "text",
    ]
    assert body["contents"][2]["parts"][1]["functionResponse"]["response"] == {"error": "unreadable"}
    older = await _sent(provider, _turn(Message(role=Role.ASSISTANT, parts=parts), later, model="gemini-2.5-pro"))
    assert NO_SIGNATURE not in json.dumps(older)


async def test_pictures(provider: GeminiProvider) -> None:
    """Data, addresses and data addresses; a tool's pictures are inside its response where the model takes it."""
    pictures = (
        ImagePart(media_type="image/png", data="cG5n"),
        ImagePart(url="gs://bucket/a.webp"),
        ImagePart(url="data:image/gif;base64,Z2lm"),
    )
    inline = {"inlineData": {"mimeType": "image/png", "data": "cG5n"}}
    body = await _sent(provider, _turn(Message(role=Role.USER, parts=pictures)))
    assert body["contents"][0]["parts"] == [
        inline,
        {"fileData": {"mimeType": "image/webp", "fileUri": "gs://bucket/a.webp"}},
        {"inlineData": {"mimeType": "image/gif", "data": "Z2lm"}},
    ]
    call = Message(role=Role.ASSISTANT, parts=(ToolCall(id="a1", name="draw"),))
    outcome = ToolOutcome(call_id="a1", name="draw", content="done", images=pictures[:1])
    told = Message(role=Role.USER, parts=(outcome,))
    response = {"id": "a1", "name": "draw", "response": {"output": "done"}}
    newer = await _sent(provider, _turn(call, told))
    assert newer["contents"][1]["parts"] == [{"functionResponse": response | {"parts": [inline]}}]
    older = await _sent(provider, _turn(call, told, model="gemini-2.5-flash"))
    assert older["contents"][1]["parts"] == [{"functionResponse": response}, inline]


@pytest.mark.parametrize(
    ("model", "thinking", "expected"),
    [
        ("gemini-3-pro-preview", Thinking(effort="high"), {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-2.5-flash", Thinking(effort="low"), {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", Thinking(budget_tokens=0), {"thinkingBudget": 0, "includeThoughts": False}),
        ("gemini-3.1-flash", Thinking(budget_tokens=-1), {"thinkingBudget": -1, "includeThoughts": True}),
        ("gemini-flash-latest", Thinking(effort="medium"), {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-2.5-pro", Thinking(), None),
    ],
)
async def test_thinking(
    provider: GeminiProvider, model: str, thinking: Thinking, expected: dict[str, Any] | None
) -> None:
    """A level for models that know levels, a budget for the others."""
    body = await _sent(provider, _turn(model=model, thinking=thinking))
    assert body["generationConfig"].get("thinkingConfig") == expected


async def test_thinking_budget_is_beside_the_answers(provider: GeminiProvider) -> None:
    """The vendor's limit includes the thoughts, ours does not."""
    for model, thinking, limit in (
        ("gemini-2.5-pro", Thinking(budget_tokens=500), 600),
        ("gemini-2.5-pro", Thinking(effort="low"), 1124),
        ("gemini-2.5-pro", Thinking(budget_tokens=-1), 100),
        ("gemini-3-pro", Thinking(effort="low", budget_tokens=500), 100),
    ):
        body = await _sent(provider, _turn(model=model, max_tokens=100, thinking=thinking))
        assert body["generationConfig"]["maxOutputTokens"] == limit


async def test_sampling_and_extras(provider: GeminiProvider) -> None:
    """Settings are passed on; extras are joined with what is there, and take nothing away."""
    extra = {
        "generationConfig": {"seed": 7},
        "tools": [{"googleSearch": {}}],
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    }
    settings = {"temperature": 0.5, "top_p": 0.9, "stop": ("END",), "max_tokens": 9, "options": {"extra_body": extra}}
    body = await _sent(provider, _turn(tools=(_TOOL,), **settings))
    assert body["generationConfig"] == {
        "maxOutputTokens": 9,
        "temperature": 0.5,
        "topP": 0.9,
        "stopSequences": ["END"],
        "seed": 7,
    }
    assert [next(iter(tool)) for tool in body["tools"]] == ["functionDeclarations", "googleSearch"]
    assert body["safetySettings"] == extra["safetySettings"]


@pytest.mark.parametrize(
    ("model", "tools", "is_sent"),
    [
        ("gemini-3-pro-preview", (_TOOL,), True),
        ("gemini-2.5-flash", (), True),
        ("gemini-2.5-flash", (_TOOL,), False),
    ],
)
async def test_schema(provider: GeminiProvider, model: str, tools: tuple[ToolSpec, ...], is_sent: bool) -> None:
    """A schema goes along unless the model refuses it beside tools; then the prompt has to ask, which is said."""
    body = await _sent(provider, _turn(model=model, tools=tools, output_schema=_SCHEMA))
    generation = body["generationConfig"]
    assert ("responseJsonSchema" in generation) is is_sent
    assert ("responseMimeType" in generation) is is_sent
    names = tuple(tool.name for tool in tools)
    assert provider.sends_schema(AgentConfig(model=model, tools=names)) is is_sent


async def test_thoughts_and_usage(provider: GeminiProvider) -> None:
    """Thoughts are deltas of their own; the output includes them, the input what the vendor's tools brought."""
    usage = {"promptTokenCount": 10, "thoughtsTokenCount": 5}
    last = usage | {"candidatesTokenCount": 3, "toolUsePromptTokenCount": 4, "cachedContentTokenCount": 8}
    events = await _events(
        provider,
        _parts({"text": "Hm.", "thought": True}, usageMetadata=usage),
        _parts({"text": "Yes."}, finish="STOP", usageMetadata=last, modelVersion="gemini-3", responseId="r1"),
    )
    assert events[:2] == [
        ThinkingDelta("Hm."),
        UsageUpdate(TokenUsage(input_tokens=10, output_tokens=5, reasoning_tokens=5)),
    ]
    end = events[-1]
    assert events[2] == TextDelta("Yes.")
    assert end.usage == TokenUsage(input_tokens=14, output_tokens=8, cache_read_tokens=8, reasoning_tokens=5)
    assert (end.model, end.response_id) == ("gemini-3", "r1")


async def test_no_usage_is_unknown(provider: GeminiProvider) -> None:
    """A gateway that reports no usage leaves the counts unknown."""
    assert (await _answer(provider, _OK)).usage == TokenUsage()


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("STOP", StopReason.END_TURN),
        ("MAX_TOKENS", StopReason.MAX_TOKENS),
        ("SAFETY", StopReason.REFUSAL),
        ("RECITATION", StopReason.REFUSAL),
        ("PROHIBITED_CONTENT", StopReason.REFUSAL),
        ("MODEL_ARMOR", StopReason.REFUSAL),
        ("FROM_THE_FUTURE", StopReason.END_TURN),
    ],
)
async def test_stop_reasons(provider: GeminiProvider, finish: str, expected: StopReason) -> None:
    """Each reason means what the vendor says; an unknown one after an answer is its end."""
    assert (await _answer(provider, _parts({"text": "Hi"}, finish=finish))).stop_reason is expected


@pytest.mark.parametrize("finish", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", "FROM_THE_FUTURE"])
async def test_no_proper_answer(provider: GeminiProvider, finish: str) -> None:
    """A model that failed to write an answer may be asked again: the error is retryable, with reason and usage."""
    candidate = {"finishReason": finish, "finishMessage": "print(look(", "index": 0}
    frame = _data(candidates=[candidate], usageMetadata={"promptTokenCount": 7})
    error = await _failure(provider, Reply(frames=(frame,)))
    assert type(error) is BadResponse
    assert error.retryable
    assert f"{finish}: print(look(" in str(error)
    assert error.usage == TokenUsage(input_tokens=7, output_tokens=0)


async def test_blocked_prompt(provider: GeminiProvider) -> None:
    """A prompt that the vendor does not let through is refused, with its reason, and what it cost."""
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "no"}
    frame = _data(promptFeedback=feedback, usageMetadata={"promptTokenCount": 5, "totalTokenCount": 5})
    error = await _failure(provider, Reply(frames=(frame,)))
    assert type(error) is Refused
    assert "PROHIBITED_CONTENT: no" in str(error)
    assert error.usage is not None
    assert error.usage.input_tokens == 5


async def test_whole_list_instead_of_events(provider: GeminiProvider) -> None:
    """A gateway that drops `alt=sse` answers with a list of all chunks; another ends its events with [DONE]."""
    chunks = [_parts({"text": "Hel"}), _parts({"text": "lo"}, finish="STOP")]
    plain = b"[" + b",\r\n".join(chunk.removeprefix(b"data: ").strip() for chunk in chunks) + b"]"
    events = await _events(provider, plain, content_type="application/json")
    assert events[-1].message.text == "Hello"
    assert (await _answer(provider, *chunks, b"data: [DONE]\n\n")).message.text == "Hello"


async def test_only_the_first_candidate_counts(provider: GeminiProvider) -> None:
    """Further candidates, and parts of the vendor's own tools, are left out."""
    other = {"content": {"parts": [{"text": "B"}]}, "finishReason": "STOP", "index": 1}
    first = {"content": {"parts": [{"executableCode": {"code": "1"}}, {"text": "A"}]}, "index": 0}
    end = await _answer(provider, _data(candidates=[other, first]), _parts(finish="STOP"))
    assert end.message.text == "A"


def _error(code: int, status: str, message: str, *details: dict[str, Any]) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "status": status, "details": details}}).encode()


_RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
_BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.parametrize(
    ("code", "status", "message", "kind"),
    [
        (400, "INVALID_ARGUMENT", "Invalid value at 'contents'", InvalidRequest),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", AuthenticationFailed),
        (400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number (8).", ContextTooLong),
        (403, "PERMISSION_DENIED", "denied", AuthenticationFailed),
        (404, "NOT_FOUND", "models/x is not found", InvalidRequest),
        (429, "RESOURCE_EXHAUSTED", "quota", RateLimited),
        (503, "UNAVAILABLE", "The model is overloaded.", Overloaded),
    ],
)
async def test_errors(
    provider: GeminiProvider, code: int, status: str, message: str, kind: type[ProviderError]
) -> None:
    """The vendor's errors by class; a wrong key is none of the request's faults."""
    reply = json_error(code, _error(code, status, message, _BAD_KEY if "key" in message else {}))
    error = await _failure(provider, reply, max_retries=0)
    assert type(error) is kind
    assert message in str(error)


async def test_retry_delay(provider: GeminiProvider) -> None:
    """How long to wait stands in the body, not in a header."""
    body = _error(429, "RESOURCE_EXHAUSTED", "quota", {"@type": "type.googleapis.com/google.rpc.Help"}, _RETRY_INFO)
    error = await _failure(provider, json_error(429, body), max_retries=0)
    assert error.retry_after_s == 34.07


async def test_error_inside_the_stream(provider: GeminiProvider) -> None:
    """As the first event it is the request's error, in the middle a broken stream, with its delay."""
    frame = b"data: " + _error(503, "UNAVAILABLE", "The model is overloaded.", _RETRY_INFO) + b"\n\n"
    assert type(await _failure(provider, Reply(frames=(frame,)), max_retries=0)) is Overloaded
    error = await _failure(provider, Reply(frames=(_parts({"text": "Hi"}), frame)), max_retries=0)
    assert type(error) is StreamBroken
    assert error.retry_after_s == 34.07


async def test_completion(provider: GeminiProvider) -> None:
    """The limit is sent if there is one; a blocked prompt and an empty answer say why."""
    frames = [
        {"candidates": [{"content": {"parts": [{"text": "Hm", "thought": True}, {"text": "Yes"}]}}]},
        {"promptFeedback": {"blockReason": "SAFETY"}},
        {"candidates": [{"finishReason": "MAX_TOKENS"}]},
        {"candidates": [{"finishReason": "RECITATION", "finishMessage": "no"}]},
    ]
    async with ReplayServer([json_error(200, json.dumps(frame).encode()) for frame in frames]) as server:
        config = AgentConfig(model="gemini-2.5-flash", base_url=server.url, temperature=0.0)
        assert await provider.complete(config, "Be brief.", "So?", 5) == "Yes"
        with pytest.raises(Refused, match="SAFETY"):
            await provider.complete(config, "", "So?", 0)
        with pytest.raises(BadResponse, match="MAX_TOKENS"):
            await provider.complete(config, "", "So?", 0)
        with pytest.raises(Refused, match="RECITATION: no"):
            await provider.complete(config, "", "So?", 0)
    assert server.requests[0].target == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert json.loads(server.requests[0].body)["generationConfig"] == {"maxOutputTokens": 5, "temperature": 0.0}
    assert "maxOutputTokens" not in json.loads(server.requests[1].body)["generationConfig"]


async def test_embeddings_in_batches(provider: GeminiProvider) -> None:
    """A hundred texts a request, each with its wishes, in order."""
    replies = [[[float(index)] for index in range(100)], [[100.0]]]
    bodies = [json.dumps({"embeddings": [{"values": each} for each in reply]}).encode() for reply in replies]
    async with ReplayServer([json_error(200, body) for body in bodies]) as server:
        options = {"embedding_model": "text-embedding-004", "dimensions": 1, "embedding_task": "RETRIEVAL_QUERY"}
        config = AgentConfig(model="gemini-3-pro-preview", base_url=server.url, options=options)
        vectors = await provider.embed(config, [f"text {index}" for index in range(101)])
    assert vectors == [[float(index)] for index in range(101)]
    assert server.requests[0].target == "/v1beta/models/text-embedding-004:batchEmbedContents"
    assert json.loads(server.requests[1].body)["requests"] == [
        {
            "model": "models/text-embedding-004",
            "content": {"parts": [{"text": "text 100"}]},
            "outputDimensionality": 1,
            "taskType": "RETRIEVAL_QUERY",
        }
    ]


async def test_count_and_model(provider: GeminiProvider) -> None:
    """The system prompt is counted, too; what the vendor tells of a model, and what all of them take."""
    count = json_error(200, b'{"totalTokens": 31}')
    model = json_error(200, b'{"inputTokenLimit": 1048576, "outputTokenLimit": 65536, "thinking": true}')
    async with ReplayServer([count, model]) as server:
        config = AgentConfig(model="gemini-2.5-flash", base_url=server.url, system_prompt="Be kind.")
        assert await provider.count_tokens(config, [Message.user("Hi")]) == 31
        info = await provider.model_info(config)
    asked = json.loads(server.requests[0].body)["generateContentRequest"]
    assert asked["model"] == "models/gemini-2.5-flash"
    assert asked["systemInstruction"] == {"parts": [{"text": "Be kind."}]}
    assert server.requests[1].target == "/v1beta/models/gemini-2.5-flash"
    assert (info.context_window, info.max_output_tokens) == (1048576, 65536)
    assert (info.thinking, info.tools, info.images) == (True, True, True)


async def test_health_shows_no_password(provider: GeminiProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address may hold one."""
    monkeypatch.setenv("GEMINI_API_KEY", "key-1")
    async with ReplayServer([json_error(200, b"{}")]) as server:
        address = server.url.replace("http://", "http://me:geheim@")
        health = await provider.health_check(AgentConfig(model="m", base_url=address))
    assert health.healthy
    assert "geheim" not in repr(health)


def test_nulls_are_absences() -> None:
    """Some gateways write out what they do not know."""
    reader = ContentReader("gemini", TurnRequest(config=AgentConfig(model="gemini-3-pro"), messages=()))
    parts = '[{"text":"a","thought":null},{"functionCall":{"name":"look","args":null,"id":null}}]'
    chunk = f'{{"candidates":[{{"index":null,"content":{{"parts":{parts}}},"finishReason":"STOP"}}]}}'
    reader.read(chunk.encode())
    message = reader.end().message
    assert message.text == "a"
    assert [(call.name, call.arguments) for call in message.tool_calls] == [("look", "{}")]
