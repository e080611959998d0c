"""The provider of OpenAI's Responses API: what it sends, what it carries on, what it makes of every kind of event."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    LimitReached,
    ProviderError,
    RateLimited,
    Refused,
    StreamBroken,
)
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
    TurnEvent,
    TurnRequest,
)
from providers.openai_responses import OpenAIResponsesProvider
from providers.openai_responses_events import ResponseReader
from providers.replay_server import ReplayServer, Reply, json_error
from providers.transport import Transport
from queue_backends import TokenUsage
from tests.providers import openai_answers

pytestmark = pytest.mark.timeout(30)

_TOOL = ToolSpec(name="look", description="Looks.", input_schema={"type": "object"})
_ENCRYPTED = {"id": "rs_1", "type": "reasoning", "encrypted_content": "gAAAA1", "summary": []}


async def _no_wait(_: float) -> None:
    return


@pytest.fixture
async def provider() -> AsyncIterator[OpenAIResponsesProvider]:
    """A provider that does not sleep between tries."""
    provider = OpenAIResponsesProvider(Transport(sleep=_no_wait))
    yield provider
    await provider.aclose()


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _created() -> bytes:
    return _event("response.created", response={"id": "resp_1", "model": "gpt-x", "status": "in_progress"})


def _text(*pieces: str, index: int = 0, item_id: str = "msg_1", **more: Any) -> list[bytes]:
    """The events of a message."""
    content = [{"type": "output_text", "text": "".join(pieces), "annotations": []}]
    item = {"id": item_id, "type": "message", "role": "assistant", "status": "completed", "content": content, **more}
    deltas = [_event("response.output_text.delta", output_index=index, delta=piece) for piece in pieces]
    return [
        _event("response.output_item.added", output_index=index, item={**item, "content": []}),
        *deltas,
        _event("response.output_item.done", output_index=index, item=item),
    ]


def _done(item: dict[str, Any], index: int = 0) -> bytes:
    return _event("response.output_item.done", output_index=index, item=item)


def _called(call_id: str, index: int = 0, **more: Any) -> bytes:
    item = {"id": f"fc_{call_id}", "type": "function_call", "call_id": call_id, "name": "look", "arguments": "{}"}
    return _done({**item, "status": "completed", **more}, index)


def _completed(**more: Any) -> bytes:
    return _event("response.completed", response=openai_answers.response("", id="resp_1", model="gpt-x", **more))


def _ok(*frames: bytes) -> Reply:
    return Reply(frames=(_created(), *(frames or _text("ok")), _completed()))


def _refusal(message: str, status: int = 400, **more: str) -> Reply:
    error = {"message": message, "type": "invalid_request_error", **more}
    return json_error(status, json.dumps({"error": error}).encode())


def _turn(*messages: Message, tools: tuple[ToolSpec, ...] = (), **config: Any) -> TurnRequest:
    config = {"model": "gpt-x", **config}
    return TurnRequest(config=AgentConfig(**config), messages=messages or (Message.user("Hi"),), tools=tools)


async def _exchange(
    provider: OpenAIResponsesProvider, request: TurnRequest, *replies: Reply
) -> tuple[list[TurnEvent], list[dict[str, Any]]]:
    """What came of a turn, and the bodies that went over the wire."""
    async with ReplayServer(replies or (_ok(),)) as server:
        config = msgspec.structs.replace(request.config, base_url=server.url)
        request = msgspec.structs.replace(request, config=config)
        events = [event async for event in provider.stream_turn(request)]
    return events, [json.loads(sent.body) for sent in server.requests]


async def _sent(provider: OpenAIResponsesProvider, request: TurnRequest, *replies: Reply) -> list[dict[str, Any]]:
    return (await _exchange(provider, request, *replies))[1]


async def _end(provider: OpenAIResponsesProvider, *frames: bytes, **config: Any) -> TurnEnd:
    config = {"max_retries": 0, **config}
    events, _ = await _exchange(provider, _turn(**config), Reply(frames=(_created(), *frames)))
    end = events[-1]
    assert isinstance(end, TurnEnd)
    return end


async def _failure(provider: OpenAIResponsesProvider, *frames: bytes) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await _end(provider, *frames)
    return caught.value


async def test_plain_request(provider: OpenAIResponsesProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path, key, and a body that has nothing stored and reasoning sent back to us."""
    async with ReplayServer([_ok()]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/v1/")
        _ = [event async for event in provider.stream_turn(_turn(system_prompt="Be kind.", max_tokens=77))]
    sent = server.requests[0]
    assert (sent.method, sent.target) == ("POST", "/v1/responses")
    assert sent.headers["authorization"] == "Bearer test-key-openai"
    assert json.loads(sent.body) == {
        "model": "gpt-x",
        "instructions": "Be kind.",
        "input": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 77,
    }


async def test_key_is_required_at_openai(provider: OpenAIResponsesProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, nothing is sent there."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(AuthenticationFailed, match="required for the openai_responses provider"):
        await anext(aiter(provider.stream_turn(_turn())))


async def test_settings(provider: OpenAIResponsesProvider) -> None:
    """Sampling, tools, effort with a summary, the answer's schema, and the option for what we do not know."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    (body,) = await _sent(
        provider,
        _turn(
            tools=(_TOOL,),
            temperature=0.0,
            top_p=0.5,
            tool_choice=ToolChoice.REQUIRED,
            thinking=Thinking(effort="high"),
            output_schema=schema,
            max_tokens=5,
            options={"extra_body": {"service_tier": "flex"}, "reasoning_summary": "detailed"},
        ),
    )
    assert (body["temperature"], body["top_p"], body["service_tier"]) == (0.0, 0.5, "flex")
    assert body["reasoning"] == {"effort": "high", "summary": "detailed"}
    assert body["text"] == {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    assert body["tools"] == [
        {
            "type": "function",
            "name": "look",
            "description": "Looks.",
            "parameters": {"type": "object"},
            "strict": False,
        }
    ]
    assert body["tool_choice"] == "required"
    assert body["max_output_tokens"] == 16, "the vendor takes no less"


async def test_tools_of_the_vendor(provider: OpenAIResponsesProvider) -> None:
    """They come beside the agent's own, or alone."""
    extra = {"tools": [{"type": "web_search"}], "include": ["web_search_call.action.sources"]}
    options = {"extra_body": extra}
    (both,) = await _sent(provider, _turn(tools=(_TOOL,), options=options))
    assert [tool["type"] for tool in both["tools"]] == ["function", "web_search"]
    assert both["include"] == ["reasoning.encrypted_content", "web_search_call.action.sources"]
    (alone,) = await _sent(provider, _turn(model="gpt-4.1", options=options))
    assert (alone["tools"], alone["include"]) == (extra["tools"], extra["include"])


async def test_conversation(provider: OpenAIResponsesProvider) -> None:
    """Texts, pictures, calls and outcomes keep their order; another vendor's reasoning stays away."""
    picture = ImagePart(media_type="image/png", data="AAAA")
    question = Message(role=Role.USER, parts=(TextPart(text="What?"), ImagePart(url="https://example.com/a.png")))
    assistant = Message(
        role=Role.ASSISTANT,
        parts=(
            ThinkingPart(text="foreign", signature='{"encrypted_content": "x"}', provider="anthropic"),
            TextPart(text="Let me look."),
            ToolCall(id="t1", name="look", arguments='{"at":1}'),
            ToolCall(id="t2", name="look", arguments=""),
        ),
    )
    outcomes = Message(
        role=Role.USER,
        parts=(
            ToolOutcome(call_id="t1", name="look", content="nothing", images=(picture,)),
            ToolOutcome(call_id="t2", name="look", content="no such place", is_error=True),
        ),
    )
    (body,) = await _sent(provider, _turn(question, assistant, outcomes))
    said = {"type": "output_text", "text": "Let me look.", "annotations": []}
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
    assert body["input"] == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What?"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
            ],
        },
        {"type": "message", "role": "assistant", "content": [said]},
        {"type": "function_call", "call_id": "t1", "name": "look", "arguments": '{"at":1}'},
        {"type": "function_call", "call_id": "t2", "name": "look", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "t1",
            "output": [{"type": "input_text", "text": "nothing"}, image],
        },
        {"type": "function_call_output", "call_id": "t2", "output": "no such place"},
    ]


async def test_answer_goes_back_as_it_came(provider: OpenAIResponsesProvider) -> None:
    """Reasoning unchanged and in its place, messages with id and phase, calls with id, a search of the vendor's own
    whole."""
    search = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search"}}
    second = {**_ENCRYPTED, "id": "rs_2", "encrypted_content": "gAAAA2", "status": "completed"}
    frames = (
        _done(_ENCRYPTED, 0),
        _done(search, 1),
        *_text("Let me look.", index=2, phase="commentary"),
        _called("a", 3),
        _done(second, 4),
        _called("b", 5, arguments='{"x": 1}'),
        _completed(),
    )
    end = await _end(provider, *frames)
    outcomes = tuple(ToolOutcome(call_id=call.id, name=call.name, content="x") for call in end.message.tool_calls)
    reply = Message(role=Role.USER, parts=outcomes)
    (body,) = await _sent(provider, _turn(Message.user("Hi"), end.message, reply))
    said = {"type": "output_text", "text": "Let me look.", "annotations": []}
    assert body["input"][1:-2] == [
        _ENCRYPTED,
        search,
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [said],
            "phase": "commentary",
        },
        {"type": "function_call", "id": "fc_a", "call_id": "a", "name": "look", "arguments": "{}"},
        second,
        {"type": "function_call", "id": "fc_b", "call_id": "b", "name": "look", "arguments": '{"x": 1}'},
    ]


async def test_phase_without_reasoning_is_kept(provider: OpenAIResponsesProvider) -> None:
    """A model that says which phase a message belongs to is told so again."""
    end = await _end(provider, *_text("Done.", phase="final_answer"), _completed())
    (body,) = await _sent(provider, _turn(Message.user("Hi"), end.message, Message.user("And?")))
    assert body["input"][1]["phase"] == "final_answer"


async def test_reasoning_that_nobody_can_read_stays_away(provider: OpenAIResponsesProvider) -> None:
    """A name alone is of no use where nothing is stored; reasoning in the clear is, to the server that sent it."""
    named = ThinkingPart(text="a", signature='{"id": "rs_1", "type": "reasoning"}', provider=provider.name)
    clear = {"type": "reasoning", "id": "rs_2", "content": [{"type": "reasoning_text", "text": "b"}]}
    plain = ThinkingPart(text="b", signature=json.dumps(clear), provider=provider.name)
    broken = ThinkingPart(text="c", signature="{", redacted="{", provider=provider.name)
    message = Message(role=Role.ASSISTANT, parts=(named, plain, broken, TextPart(text="ok")))
    (body,) = await _sent(provider, _turn(Message.user("Hi"), message, Message.user("And?")))
    assert [item.get("type") for item in body["input"]] == [None, "reasoning", "message", None]
    assert body["input"][1] == clear


@pytest.mark.parametrize(
    "refusal",
    [
        _refusal("The encrypted content gAAA... could not be verified.", code="invalid_encrypted_content"),
        _refusal("Item 'rs_1' of type 'reasoning' was provided without its required following item."),
        _refusal("Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.", 404),
    ],
)
async def test_reasoning_of_another_key(provider: OpenAIResponsesProvider, refusal: Reply) -> None:
    """Where the vendor cannot use the reasoning that it sent, the turn goes on without, and later ones try again."""
    end = await _end(provider, _done(_ENCRYPTED), *_text("Hm.", index=1), _completed())
    request = _turn(Message.user("Hi"), end.message, Message.user("And?"))
    async with ReplayServer([refusal, _ok(), _ok()]) as server:
        config = msgspec.structs.replace(request.config, base_url=server.url)
        for _ in range(2):
            _ = [event async for event in provider.stream_turn(msgspec.structs.replace(request, config=config))]
    first, second, third = ([item.get("type") for item in json.loads(sent.body)["input"]] for sent in server.requests)
    assert first == third == [None, "reasoning", "message", None]
    assert second == [None, "message", None]


async def test_stored_responses(provider: OpenAIResponsesProvider) -> None:
    """With `store`, a turn goes on from the one before and sends only what is new; once it is forgotten, all of it."""
    options = {"store": True}
    end = await _end(provider, _done(_ENCRYPTED), _called("a", 1), _completed(), options=options)
    outcome = Message(role=Role.USER, parts=(ToolOutcome(call_id="a", name="look", content="x"),))
    request = _turn(Message.user("Hi"), end.message, outcome, options=options, system_prompt="Be kind.")
    expired = _refusal("Previous response with id 'resp_1' not found.", 400, code="previous_response_not_found")
    first, second = await _sent(provider, request, expired, _ok())
    assert (first["previous_response_id"], first["store"], first["instructions"]) == ("resp_1", True, "Be kind.")
    assert first["input"] == [{"type": "function_call_output", "call_id": "a", "output": "x"}]
    assert "previous_response_id" not in second
    types = [item.get("type") for item in second["input"]]
    assert types == [None, "reasoning", "function_call", "function_call_output"]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("Encrypted content is not supported with this model.", "include"),
        ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature"),
        ("registry.ollama.ai/library/gemma:2b does not support tools", "tools"),
    ],
)
async def test_refused_parts_are_left_out(provider: OpenAIResponsesProvider, said: str, field: str) -> None:
    """What a model does not take is left out, and the turn is asked for again."""
    first, second = await _sent(provider, _turn(tools=(_TOOL,), temperature=0.5), _refusal(said), _ok())
    assert (field in first, field in second) == (True, False)


async def test_refused_summary(provider: OpenAIResponsesProvider) -> None:
    """An organization that may not see summaries still gets its effort."""
    said = "Your organization must be verified to generate reasoning summaries."
    _, second = await _sent(provider, _turn(thinking=Thinking(effort="low")), _refusal(said), _ok())
    assert second["reasoning"] == {"effort": "low"}


async def test_refusals_are_remembered(provider: OpenAIResponsesProvider) -> None:
    """A model is asked once whether it takes a part of the protocol, not at each turn."""
    async with ReplayServer([_refusal("Encrypted content is not supported with this model."), _ok()]) as server:
        for _ in range(2):
            _ = [event async for event in provider.stream_turn(_turn(base_url=server.url))]
    assert ["include" in json.loads(sent.body) for sent in server.requests] == [True, False, False]


async def test_models_without_reasoning_are_not_asked(provider: OpenAIResponsesProvider) -> None:
    """The vendor's older families would refuse, so they cost no second request."""
    (body,) = await _sent(provider, _turn(model="gpt-4.1-mini"))
    assert "include" not in body


@pytest.mark.parametrize("said", ["max_output_tokens is too large", "The requested model 'gpt-x' does not exist."])
async def test_other_refusals_are_final(provider: OpenAIResponsesProvider, said: str) -> None:
    """A refusal about something else is not answered by a second request."""
    async with ReplayServer([_refusal(said)]) as server:
        with pytest.raises(InvalidRequest, match=said):
            await anext(aiter(provider.stream_turn(_turn(base_url=server.url))))
    assert len(server.requests) == 1


async def test_summary_parts(provider: OpenAIResponsesProvider) -> None:
    """Parts of a summary are paragraphs, streamed and kept alike; raw reasoning of open models is read, too."""
    item = {**_ENCRYPTED, "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]}
    frames = (
        _event("response.output_item.added", output_index=0, item=_ENCRYPTED),
        _event("response.reasoning_summary_part.added", output_index=0, summary_index=0),
        _event("response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a"),
        _event("response.reasoning_summary_part.added", output_index=0, summary_index=1),
        _event("response.reasoning_summary_text.delta", output_index=0, summary_index=1, delta="b"),
        _done(item),
        _event("response.reasoning_text.delta", output_index=1, delta="raw"),
        _done({"id": "rs_2", "type": "reasoning", "content": [{"type": "reasoning_text", "text": "raw"}]}, 1),
        *_text("ok", index=2),
        _completed(),
    )
    events, _ = await _exchange(provider, _turn(), Reply(frames=(_created(), *frames)))
    assert [event.text for event in events if isinstance(event, ThinkingDelta)] == ["a", "\n\n", "b", "raw"]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    thoughts = [part for part in end.message.parts if isinstance(part, ThinkingPart)]
    assert [part.text for part in thoughts] == ["a\n\nb", "raw"]
    assert json.loads(thoughts[0].signature) == item


async def test_items_without_deltas(provider: OpenAIResponsesProvider) -> None:
    """Text and reasoning that come only when their item is done are streamed then, so that nobody misses them."""
    thought = {**_ENCRYPTED, "summary": [{"type": "summary_text", "text": "hm"}]}
    content = [{"type": "output_text", "text": "whole", "annotations": []}]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": content}
    frames = (_created(), _done(thought, 0), _done(message, 1), _completed())
    events, _ = await _exchange(provider, _turn(), Reply(frames=frames))
    assert ThinkingDelta("hm") in events
    assert TextDelta("whole") in events


async def test_answer_in_one_piece(provider: OpenAIResponsesProvider) -> None:
    """A server that does not stream answers with a document; it counts."""
    document = json.dumps(openai_answers.response("whole")).encode()
    events, _ = await _exchange(provider, _turn(), json_error(200, document))
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert (end.message.text, end.usage.input_tokens, end.stop_reason) == ("whole", 30, StopReason.END_TURN)
    assert TextDelta("whole") in events


async def test_events_that_name_items_instead_of_places(provider: OpenAIResponsesProvider) -> None:
    """Servers without `output_index` (llama.cpp) name the item; several stay apart, and in order."""
    call = {"type": "function_call", "call_id": "fc_9", "name": "look", "arguments": ""}
    message = {"id": "msg_9", "type": "message", "role": "assistant", "content": []}
    frames = (
        _event("response.output_item.added", item=message),
        _event("response.output_text.delta", item_id="msg_9", delta="So: "),
        _event("response.output_item.done", item=message),
        _event("response.output_item.added", item=call),
        _event("response.function_call_arguments.delta", item_id="fc_9", delta='{"x":'),
        _event("response.function_call_arguments.delta", item_id="fc_9", delta="1}"),
        _event("response.output_item.done", item={**call, "arguments": '{"x":1}'}),
        _completed(),
    )
    end = await _end(provider, *frames)
    assert end.message.parts == (TextPart(text="So: "), ToolCall(id="fc_9", name="look", arguments='{"x":1}'))


async def test_nothing_where_something_is_due(provider: OpenAIResponsesProvider) -> None:
    """Servers that write null for what they leave out are understood."""
    nothing = {"id": None, "model": None, "output": None, "usage": None, "error": None, "incomplete_details": None}
    frames = (
        _event("response.in_progress", response=nothing),
        _event("response.output_text.delta", output_index=None, item_id=None, delta="ok"),
        _event("response.function_call_arguments.done", arguments=None),
        _event("response.completed", response=nothing),
    )
    end = await _end(provider, *frames)
    assert (end.message.text, end.model, end.usage) == ("ok", "", TokenUsage())


async def test_response_that_repeats_its_items(provider: OpenAIResponsesProvider) -> None:
    """The list of items at the end says nothing new, whatever places it gives them."""
    repeated = openai_answers.response("ok")["output"]
    end = await _end(provider, *_text("ok", index=3), _completed(output=repeated))
    assert end.message.parts == (TextPart(text="ok"),)


async def test_unannounced_items(provider: OpenAIResponsesProvider) -> None:
    """Deltas are enough to know what an item is."""
    delta = _event("response.output_text.delta", output_index=0, delta="ok")
    assert (await _end(provider, delta, _completed())).message.text == "ok"


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, StopReason.MAX_TOKENS),
        ({"reason": "content_filter"}, StopReason.REFUSAL),
        ({"reason": "max_messages"}, StopReason.END_TURN),
        (None, StopReason.END_TURN),
    ],
)
async def test_incomplete_responses(
    provider: OpenAIResponsesProvider, details: dict[str, str] | None, reason: StopReason
) -> None:
    """Why an answer is incomplete is the stop reason."""
    response = openai_answers.response("", status="incomplete", incomplete_details=details)
    end = await _end(provider, *_text("Once"), _event("response.incomplete", response=response))
    assert (end.stop_reason, end.message.text) == (reason, "Once")


async def test_half_a_call_is_not_made(provider: OpenAIResponsesProvider) -> None:
    """A call that the token limit cut is left out, and the limit is the stop reason."""
    response = openai_answers.response("", status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    cut = _called("a", arguments='{"at": "he', status="incomplete")
    end = await _end(provider, cut, _event("response.incomplete", response=response))
    assert (end.message.tool_calls, end.stop_reason) == ((), StopReason.MAX_TOKENS)


async def test_refusal(provider: OpenAIResponsesProvider) -> None:
    """The words of a refusal are the answer's text."""
    content = [{"type": "refusal", "refusal": "I will not."}]
    frames = (
        _event("response.refusal.delta", output_index=0, delta="I will "),
        _event("response.refusal.delta", output_index=0, delta="not."),
        _done({"id": "msg_1", "type": "message", "role": "assistant", "content": content}),
        _completed(),
    )
    end = await _end(provider, *frames)
    assert (end.message.text, end.stop_reason) == ("I will not.", StopReason.REFUSAL)
    late = await _end(provider, frames[2], _completed())
    assert (late.message.text, late.stop_reason) == ("I will not.", StopReason.REFUSAL)


async def test_usage(provider: OpenAIResponsesProvider) -> None:
    """Cached, written and reasoned tokens are parts of the counts; what is not reported is unknown."""
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 30},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 12},
    }
    assert (await _end(provider, *_text("a"), _completed(usage=usage))).usage == TokenUsage(
        input_tokens=100, output_tokens=20, cache_read_tokens=64, cache_write_tokens=30, reasoning_tokens=12
    )
    assert (await _end(provider, *_text("a"), _completed(usage=None))).usage == TokenUsage()


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"code": "server_error", "message": "oops"}, StreamBroken),
        ({"error": {"type": "server_error", "code": None, "message": "oops"}}, StreamBroken),
        ({"error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "slow down"}}, StreamBroken),
        ({"code": "context_length_exceeded", "message": "Your input exceeds the context window"}, ContextTooLong),
        ({"code": "invalid_prompt", "message": "flagged"}, InvalidRequest),
        ({"code": "insufficient_quota", "message": "no credit"}, AuthenticationFailed),
        ({"code": "image_too_large", "message": "too large"}, InvalidRequest),
        ({"code": "image_content_policy_violation", "message": "no"}, Refused),
        ({"code": "misalignment_policy_violation", "message": "no"}, Refused),
    ],
)
async def test_error_events(
    provider: OpenAIResponsesProvider, event: dict[str, Any], kind: type[ProviderError]
) -> None:
    """An error in the middle is what its code says; one that passes is a broken stream. Both forms are read."""
    error = await _failure(provider, *_text("a")[:2], _event("error", sequence_number=3, param=None, **event))
    assert type(error) is kind
    inner = event.get("error", event)
    assert inner["message"] in str(error)


async def test_failed_response(provider: OpenAIResponsesProvider) -> None:
    """A response that failed says why, and keeps its usage; what may pass is started over, with its cause known."""
    failed = {"code": "rate_limit_exceeded", "message": "Rate limit reached"}
    response = openai_answers.response("", status="failed", error=failed)
    error = await _failure(provider, *_text("a"), _event("response.failed", response=response))
    assert type(error) is StreamBroken
    assert type(error.__cause__) is RateLimited
    assert error.usage is not None
    assert error.usage.input_tokens == 30


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ("Please try again in 1.25s. Visit us.", 1.25),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 120ms.", 0.12),
        ("Please try again in a while.", None),
    ],
)
async def test_wait_named_in_a_stream(provider: OpenAIResponsesProvider, said: str, wait_s: float | None) -> None:
    """A limit that is hit inside a stream says in words how long to wait."""
    failed = {"code": "rate_limit_exceeded", "message": f"Rate limit reached for gpt-x. {said}"}
    response = openai_answers.response("", status="failed", error=failed)
    error = await _failure(provider, _event("response.failed", response=response))
    assert type(error) is StreamBroken
    assert error.retry_after_s == wait_s


async def test_error_as_the_first_event(provider: OpenAIResponsesProvider) -> None:
    """It is a failed request, which is tried again."""
    busy = Reply(frames=(_event("error", code="server_error", message="busy"),))
    events, bodies = await _exchange(provider, _turn(max_retries=1), busy, _ok())
    assert isinstance(events[-1], TurnEnd)
    assert len(bodies) == 2


async def test_stream_without_an_end(provider: OpenAIResponsesProvider) -> None:
    """All items may be there: without the response's end it is no answer."""
    assert type(await _failure(provider, *_text("a"))) is StreamBroken


@pytest.mark.parametrize(
    "frame",
    [
        b"data: {\n\n",
        b'data: {"type": 1}\n\n',
        b'data: {"type":"response.output_item.done","output_index":9,"item":[]}\n\n',
        b'data: {"type":"response.completed","response":{"output":1}}\n\n',
        b'data: {"type":"response.created"}\n\n',
        b'data: {"type":"response.output_item.done","item":7}\n\n',
    ],
)
async def test_impossible_events(provider: OpenAIResponsesProvider, frame: bytes) -> None:
    """What no server may send is `BadResponse`, never a crash."""
    assert type(await _failure(provider, *_text("a"), frame)) is BadResponse


async def test_endless_arguments(provider: OpenAIResponsesProvider) -> None:
    """A call whose arguments do not end is stopped: nobody sees them before."""
    piece = "x" * (1024 * 1024)
    deltas = [_event("response.function_call_arguments.delta", output_index=0, delta=piece) for _ in range(9)]
    assert type(await _failure(provider, *deltas)) is LimitReached
    long = _called("a", arguments=json.dumps("x" * 5_000_000))
    assert len((await _end(provider, *deltas[:4], long, _completed())).message.tool_calls) == 1, "each is counted once"


async def test_complete(provider: OpenAIResponsesProvider) -> None:
    """One prompt, one answer, nothing stored; what failed is an error of its class."""
    failed = openai_answers.response("", status="failed", error={"code": "rate_limit_exceeded", "message": "slow"})
    replies = [json_error(200, json.dumps(body).encode()) for body in (openai_answers.response("Yes."), failed)]
    async with ReplayServer(replies) as server:
        config = AgentConfig(model="gpt-x", base_url=server.url, thinking=Thinking(effort="high"))
        assert await provider.complete(config, "Be brief.", "Is it?", 99) == "Yes."
        assert json.loads(server.requests[0].body) == {
            "model": "gpt-x",
            "input": "Is it?",
            "instructions": "Be brief.",
            "max_output_tokens": 99,
            "store": False,
        }
        with pytest.raises(RateLimited, match="slow"):
            await provider.complete(config, "", "Is it?", 0)


async def test_count_without_a_counter(provider: OpenAIResponsesProvider) -> None:
    """Where the server cannot count, the count is an estimate; where it refuses for another reason, an error."""
    async with ReplayServer([_refusal("no such path", 404), _refusal("bad input", 400)]) as server:
        config = AgentConfig(model="gpt-x", base_url=server.url, system_prompt="Be kind.")
        counted = await provider.count_tokens(config, [Message.user("word " * 100)])
        assert 100 < counted < 200
        assert server.requests[0].target == "/responses/input_tokens"
        with pytest.raises(InvalidRequest, match="bad input"):
            await provider.count_tokens(config, [Message.user("Hi")])


async def test_default_model(provider: OpenAIResponsesProvider) -> None:
    """An agent that names no model gets that of the live settings."""
    await provider.config_updated({"model": "gpt-live", "organization": "org-1"})
    async with ReplayServer([_ok()]) as server:
        _ = [event async for event in provider.stream_turn(_turn(model="", base_url=server.url))]
    assert json.loads(server.requests[0].body)["model"] == "gpt-live"
    assert server.requests[0].headers["openai-organization"] == "org-1"


def test_a_call_that_was_never_done() -> None:
    """The response ended at its limit, and nothing says that this call is whole: it is not run."""
    item = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "status": "in_progress"}
    reader = ResponseReader("openai_responses")
    for event in (
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"at":'},
        {
            "type": "response.incomplete",
            "response": {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        },
    ):
        reader.read(json.dumps(event).encode())
    end = reader.end()
    assert end.stop_reason is StopReason.MAX_TOKENS
    assert end.message.tool_calls == ()
