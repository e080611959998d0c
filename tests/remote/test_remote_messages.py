"""The wire: what byte fields look like in each dialect, what is left out, and how a conversation becomes texts."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from providers import (
    AgentConfig,
    AuthenticationFailed,
    ContextTooLong,
    InvalidRequest,
    Message,
    ProviderError,
    RateLimited,
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
    Unavailable,
)
from providers.messages import ImagePart
from providers.remote.addresses import Address, parse_address, parse_listen
from providers.remote.dialect import Dialect, dialect_of, dialect_of_text, packed, unpacked_json
from providers.remote.environment import PluginEnvironment
from providers.remote.faults import CallFailed, described, error_of, error_of_call
from providers.remote.payload import end_of, output_of, params_of, read_ask, read_output, read_params
from providers.remote.plugin_messages import ChatStreamResponse, ExecuteRequest, ExecuteResponse, InfoResponse
from providers.remote.tenants import may_meet, tenant_id
from providers.remote.wire import BadMessage, decode, encode
from queue_backends import TokenUsage

CONVERSATION = (
    Message.user("What time is it?"),
    Message(
        role=Role.ASSISTANT,
        parts=(
            ThinkingPart(text="I need a clock", signature="sig", provider="anthropic"),
            TextPart(text="Let me see."),
            ToolCall(id="call_1", name="get_time", arguments='{"tz":"UTC"}'),
            ToolCall(id="call_2", name="get_date"),
        ),
    ),
    Message(
        role=Role.USER,
        parts=(
            ToolOutcome(call_id="call_1", name="get_time", content="12:00"),
            ToolOutcome(call_id="call_2", name="get_date", content="no calendar", is_error=True),
        ),
    ),
)
TOOL = ToolSpec(name="get_time", description="..", input_schema={"type": "object"})


def a_request(**config: Any) -> TurnRequest:
    """A turn in the middle of a tool loop."""
    settings = AgentConfig(model="m1", system_prompt="Be brief.", **config)
    return TurnRequest(config=settings, messages=CONVERSATION, tools=(TOOL,))


def test_execute_answer_is_byte_for_byte_that_of_the_go_sdk() -> None:
    """The facts' own example."""
    output = b'{"content":"Hi","finish_reason":"stop","model":"m1"}'
    answer = ExecuteResponse(success=True, result_json=packed(output, Dialect.GO), duration_ms=41)
    assert encode(answer) == (
        b'{"success":true,"result_json":"eyJjb250ZW50IjoiSGkiLCJmaW5pc2hfcmVhc29uIjoic3RvcCIsIm1vZGVsIjoibTEifQ==",'
        b'"error":"","duration_ms":41}'
    )


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("value", [b'{"prompt":"hi"}', b"{}", b"[]", b'[{"a":1}]', b'"text"'])
def test_json_fields_are_understood_whoever_wrote_them(value: bytes, dialect: Dialect) -> None:
    """Both dialects are told apart by the text alone."""
    text = packed(value, dialect)
    assert dialect_of_text(text) is dialect
    assert unpacked_json(text) == value


@pytest.mark.parametrize("text", ["true", "null", "1234", "12345678"])
def test_short_raw_texts_are_no_base64(text: str) -> None:
    """They decode as base64, but to no JSON."""
    assert unpacked_json(text) == text.encode()


def test_dialect_shows_in_fields_then_in_metadata() -> None:
    """What a peer sends counts more than what it is called; who says nothing is taken for Go."""
    assert dialect_of({"user-agent": "grpc-python/1.85.0"}) is Dialect.PYTHON
    assert dialect_of({"user-agent": "grpc-python-asyncio/1.85.1 grpc-c/54.0.0"}) is Dialect.PYTHON
    assert dialect_of({"user-agent": "grpc-go/1.81.0"}) is Dialect.GO
    assert dialect_of({}) is Dialect.GO
    assert dialect_of({"user-agent": "grpc-python/1.85.0", "x-plugin-name": "p"}) is Dialect.GO
    assert dialect_of({"user-agent": "grpc-go/1.81.0"}, "", '{"a": 1}') is Dialect.PYTHON


def test_nulls_and_unknown_fields_are_nothing() -> None:
    """Go writes null for empty lists and maps, at any depth."""
    told = {"name": "p", "actions": None, "metadata": None, "new": 1, "config_schema": [{"key": "k", "default": None}]}
    info = decode(InfoResponse, json.dumps(told).encode())
    assert info.name == "p"
    assert info.actions == []
    assert info.config_schema[0].default == ""


def test_optional_fields_are_left_out() -> None:
    """As Go's `omitempty` does; the others are always there."""
    assert encode(ChatStreamResponse(token="a")) == b'{"token":"a"}'
    assert encode(ChatStreamResponse(is_final=True)) == b'{"is_final":true}'
    assert set(json.loads(encode(ExecuteRequest(execution_mode=3)))) == {
        "execution_id",
        "step_id",
        "params_json",
        "execution_mode",
        "context",
        "tenant_id",
    }


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"[1]",
        b'"x"',
        b'{"name":[]}',
        b"\xff",
        b'{"name":null,"version":nonsense}',
        b'{"name":null,"version":"\xff"}',
        b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Garbage gets an error, never a half-read message."""
    with pytest.raises(BadMessage):
        decode(InfoResponse, data)


def test_tenants() -> None:
    """The documented example, an id that stays itself, and who may meet whom."""
    acme = tenant_id("acme")
    assert acme == tenant_id(" ACME ") == tenant_id(acme) == "824a1531-d24a-549c-8003-23b0f2d206cd"
    assert tenant_id("") == ""
    assert may_meet(acme, "")
    assert may_meet("", acme)
    assert not may_meet(acme, tenant_id("other"))


def test_parameters_are_texts_in_the_documented_form() -> None:
    """Every value is a string; tools and messages are JSON arrays in OpenAI's chat form; nothing of ours is in it."""
    params = params_of(a_request(temperature=0.2, max_tokens=1024, tool_choice=ToolChoice.REQUIRED), full=False)
    assert set(params) == {"messages", "tools", "tool_choice", "max_tokens", "temperature", "model"}
    assert (params["max_tokens"], params["temperature"], params["tool_choice"]) == ("1024", "0.2", "required")
    assert json.loads(params["tools"]) == [
        {
            "type": "function",
            "function": {"name": "get_time", "description": "..", "parameters": {"type": "object"}},
        }
    ]
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": '{"tz":"UTC"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "get_date", "arguments": "{}"}},
    ]
    assert json.loads(params["messages"]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
        {"role": "tool", "tool_call_id": "call_2", "content": "no calendar"},
    ]


def test_between_two_shoal_processes_nothing_is_lost() -> None:
    """Reasoning with its signature, failed tools, and settings without a place in the protocol come through."""
    request = a_request(top_p=0.5, stop=("END",), thinking=Thinking(effort="high"), output_schema={"type": "object"})
    request = msgspec.structs.replace(request, config=msgspec.structs.replace(request.config, options={"a": 1}))
    ask = read_ask(params_of(request, full=True), AgentConfig(model="default", options={"a": 0, "b": 2}))
    assert ask.config.options == {"a": 1, "b": 2}
    assert ask.messages == CONVERSATION
    assert ask.full
    for name in ("model", "system_prompt", "max_tokens", "top_p", "stop", "thinking", "output_schema"):
        assert getattr(ask.config, name) == getattr(request.config, name)


def test_a_plain_conversation_keeps_its_meaning() -> None:
    """To other makers' providers goes what the chat form has a place for."""
    ask = read_ask(params_of(a_request(), full=False), AgentConfig(model="default"))
    assert not ask.full
    assert ask.messages[1].tool_calls == CONVERSATION[1].tool_calls
    assert [part.name for part in ask.messages[2].parts if isinstance(part, ToolOutcome)] == ["get_time", "get_date"]
    assert not any(isinstance(part, ThinkingPart) for message in ask.messages for part in message.parts)


def test_images_go_both_ways() -> None:
    """As `image_url` parts: inline ones as data URLs."""
    inline, linked = ImagePart(media_type="image/png", data="QUJD"), ImagePart(url="https://example.test/a.png")
    shown = Message(role=Role.USER, parts=(TextPart(text="Look"), inline, linked))
    request = TurnRequest(config=AgentConfig(model="m"), messages=(shown,))
    assert read_ask(params_of(request, full=False), AgentConfig(model="")).messages == (shown,)


def test_prompt_mode_and_messages_mode() -> None:
    """A prompt is one user message; messages win where both are given; one of them is needed."""
    defaults = AgentConfig(model="d", max_tokens=7)
    assert read_ask({"prompt": "Say hi"}, defaults).messages == (Message.user("Say hi"),)
    both = {"prompt": "no", "messages": '[{"role":"user","content":"yes"}]', "max_tokens": "12", "temperature": "0.5"}
    ask = read_ask(both, defaults)
    assert ask.messages == (Message.user("yes"),)
    assert (ask.config.model, ask.config.max_tokens, ask.config.temperature) == ("d", 12, 0.5)
    with pytest.raises(InvalidRequest, match="prompt"):
        read_ask({"tools": "[]"}, defaults)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"messages": "{}"}, "invalid messages JSON"),
        ({"messages": '[{"role":"judge","content":"x"}]'}, "'judge'"),
        ({"prompt": "x", "tools": '[{"type":"function"}]'}, "invalid tools JSON"),
        ({"prompt": "x", "tool_choice": "maybe"}, "tool_choice"),
        ({"prompt": "x", "max_tokens": "many"}, "max_tokens"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, str], problem: str) -> None:
    """The error says which one, for the caller's author."""
    with pytest.raises(InvalidRequest, match=problem):
        read_ask(params, AgentConfig(model=""))


def test_params_that_are_no_json_get_the_go_sdks_words() -> None:
    """Engines show that text."""
    with pytest.raises(InvalidRequest, match=r"^invalid params JSON: "):
        read_params(b"hello")
    assert read_params(b'{"max_tokens":12,"tools":[],"x":null}') == {"max_tokens": "12", "tools": "[]"}


def test_outputs_say_how_it_ended_and_what_it_used() -> None:
    """All texts; unknown counts are absent, not zero."""
    message = Message(role=Role.ASSISTANT, parts=(TextPart(text="Hm"), ToolCall(id="c", name="t", arguments="{}")))
    usage = TokenUsage(input_tokens=12, output_tokens=3)
    end = TurnEnd(message=message, stop_reason=StopReason.TOOL_USE, usage=usage, model="m1")
    output = output_of(end, full=False)
    assert output == {
        "content": "Hm",
        "model": "m1",
        "finish_reason": "tool_calls",
        "tool_calls": '[{"id":"c","type":"function","function":{"name":"t","arguments":"{}"}}]',
        "input_tokens": "12",
        "output_tokens": "3",
    }
    assert end_of(output) == end


@pytest.mark.parametrize(
    ("reason", "told"), [(StopReason.END_TURN, "stop"), (StopReason.MAX_TOKENS, "length"), (StopReason.REFUSAL, "stop")]
)
def test_finish_reasons_are_the_documented_ones(reason: StopReason, told: str) -> None:
    """Another Shoal process hears the exact one besides."""
    end = TurnEnd(message=Message.assistant("x"), stop_reason=reason, usage=TokenUsage(), model="m")
    assert output_of(end, full=False)["finish_reason"] == told
    assert end_of(output_of(end, full=True)) == end


def test_results_may_be_any_values() -> None:
    """Other makers' outputs need not be texts."""
    output = read_output(b'{"content":"x","input_tokens":5,"tool_calls":[{"function":{"name":"t","arguments":{}}}]}')
    end = end_of(output)
    assert end.usage.input_tokens == 5
    assert end.message.tool_calls == (ToolCall(id="call_0", name="t", arguments="{}"),)
    assert end.stop_reason is StopReason.TOOL_USE


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AI backend returned HTTP 429", RateLimited),
        ("provider not configured: endpoint is empty", AuthenticationFailed),
        ("invalid params JSON: x", InvalidRequest),
        ("maximum context length is 8192 tokens", ContextTooLong),
        ("something broke", Unavailable),
    ],
)
def test_texts_of_other_makers_become_classes(text: str, kind: type[ProviderError]) -> None:
    """What the text suggests; what says nothing may be tried again."""
    assert type(error_of(text, {}, "p")) is kind
    assert type(error_of_call(CallFailed("UNKNOWN", f"Exception calling application: {text}"), "p")) is kind


def test_errors_between_two_shoal_processes_stay_what_they_are() -> None:
    """Class, status, wait and usage."""
    usage = TokenUsage(input_tokens=9)
    error = RateLimited("slow down", status=429, retry_after_s=2.5, usage=usage)
    again = error_of(str(error), described(error), "p")
    assert type(again) is RateLimited
    assert (again.status, again.retry_after_s, again.usage) == (429, 2.5, usage)


def test_numbers_that_nobody_can_mean_are_unknown() -> None:
    """A peer's counts and waits cannot break or stop whoever reads them."""
    wild = {"input_tokens": "9" * 5000, "output_tokens": "\u0662", "error_status": "9" * 30, "retry_after_s": "inf"}
    assert end_of({"content": "x", **wild}).usage == TokenUsage()
    for wait in ("inf", "nan", "-1", "1e300", "x"):
        error = error_of("x", {**wild, "retry_after_s": wait}, "p")
        assert (error.status, error.retry_after_s, error.usage) == (None, None, None)


def test_addresses() -> None:
    """Host and port, IPv6 in brackets, TLS by its scheme; anything else is named."""
    assert parse_address("host:50051") == Address("host", 50051)
    assert str(parse_address("grpcs://host:1")) == "grpcs://host:1"
    assert parse_address("[::1]:80").target == "[::1]:80"
    assert parse_address("engine", default_port=9090).port == 9090
    assert parse_listen(":9090") == ("0.0.0.0", 9090)
    wrong_ones = ("", "host", "host:", ":80", "host:0", "host:99999", "host:\uff11\uff12", "a b:80")
    for wrong in (*wrong_ones, "unix:///run/x:1", "ipv4:10.0.0.1,10.0.0.2:80", "host/path:80", "[unix:/x]:80"):
        with pytest.raises(ValueError, match="address"):
            parse_address(wrong)


def test_environment_of_a_plugin() -> None:
    """Loopback for an engine here, every interface for one elsewhere; wrong values name their variable."""
    here = PluginEnvironment.read({"MIRASTACK_ENGINE_ADDR": "127.0.0.1:9090", "MIRASTACK_PLUGIN_TENANT_SLUG": "acme"})
    assert here.listen == ("127.0.0.1", 0)
    assert here.advertised_at(5) == "127.0.0.1:5"
    assert here.tenant_id == "824a1531-d24a-549c-8003-23b0f2d206cd"
    there = PluginEnvironment.read(
        {
            "MIRASTACK_ENGINE_ADDR": "engine",
            "MIRASTACK_PLUGIN_HEARTBEAT_INTERVAL": "0.2",
            "SHOAL_PLUGIN_TOKEN": "s3cret",
        }
    )
    assert there.listen == ("::", 0)
    assert there.engine == Address("engine", 9090)
    assert there.heartbeat_s == 1.0
    assert "s3cret" not in repr(there) + repr(there.server_options()) + repr(there.channel_options("x"))
    for name, value in (
        ("MIRASTACK_PLUGIN_ADDR", "x"),
        ("MIRASTACK_PLUGIN_HEARTBEAT_INTERVAL", "soon"),
        ("MIRASTACK_PLUGIN_HEARTBEAT_INTERVAL", "inf"),
        ("MIRASTACK_PLUGIN_MAX_MESSAGE_BYTES", "nan"),
        ("MIRASTACK_PLUGIN_MAX_MESSAGE_BYTES", "-1"),
    ):
        with pytest.raises(InvalidRequest, match=name):
            PluginEnvironment.read({name: value})
