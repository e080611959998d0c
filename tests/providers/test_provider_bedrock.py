"""Bedrock's provider: where it goes, as whom, what it sends, and how it copes with what a model cannot do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.bedrock import BedrockProvider
from providers.bedrock_models import Maker, foundation_model, maker
from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    ProviderError,
    RateLimited,
    StreamBroken,
    Unavailable,
)
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
)
from providers.replay_server import Received, ReplayServer, Reply, json_error
from providers.transport import Transport
from tests.aws_frames import event

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("aws_environment")]

_CLAUDE = "anthropic.claude-sonnet-4-6"
_NOVA = "us.amazon.nova-2-lite-v1:0"
_TOOL = ToolSpec(name="look", description="Looks.", input_schema={"properties": {"at": {}}})
_USAGE = {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7}


async def _no_wait(_: float) -> None:
    return


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BedrockProvider]:
    """A provider with keys and a region, that does not sleep between tries."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    for name in ("AGENT_EMBEDDING_MODEL", "AGENT_EMBED_MODEL"):
        monkeypatch.delenv(name, raising=False)
    provider = BedrockProvider(Transport(sleep=_no_wait))
    yield provider
    await provider.aclose()


def _stream(*events: bytes) -> Reply:
    return Reply(frames=events, content_type="application/vnd.amazon.eventstream")


def _delta(delta: dict[str, Any], index: int = 0) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})


def _stop(reason: str = "end_turn") -> bytes:
    return event("messageStop", {"stopReason": reason})


_METADATA = event("metadata", {"usage": _USAGE, "metrics": {"latencyMs": 1}})
_OK = _stream(event("messageStart", {"role": "assistant"}), _delta({"text": "ok"}), _stop(), _METADATA)


def _whole(*content: dict[str, Any], stop: str = "end_turn") -> Reply:
    message = {"role": "assistant", "content": list(content)}
    body = {"output": {"message": message}, "stopReason": stop, "usage": _USAGE, "metrics": {"latencyMs": 1}}
    return json_error(200, json.dumps(body).encode())


def _refusal(kind: str, message: str, status: int = 400) -> Reply:
    headers = {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    return json_error(status, json.dumps({"message": message}).encode(), headers)


def _turn(*messages: Message, tools: tuple[ToolSpec, ...] = (), **config: Any) -> TurnRequest:
    config = {"model": _CLAUDE, "max_retries": 0, **config}
    return TurnRequest(config=AgentConfig(**config), messages=messages or (Message.user("Hi"),), tools=tools)


async def _talk(provider: BedrockProvider, request: TurnRequest, *replies: Reply) -> tuple[TurnEnd, list[Received]]:
    async with ReplayServer(replies or (_OK,)) as server:
        config = msgspec.structs.replace(request.config, base_url=server.url)
        events = [e async for e in provider.stream_turn(msgspec.structs.replace(request, config=config))]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    return end, server.requests


async def _body(provider: BedrockProvider, request: TurnRequest) -> dict[str, Any]:
    _, (sent,) = await _talk(provider, request)
    body: dict[str, Any] = json.loads(sent.body)
    return body


async def _failure(provider: BedrockProvider, *replies: Reply, **config: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await _talk(provider, _turn(**config), *replies)
    return caught.value


async def test_plain_request(provider: BedrockProvider) -> None:
    """Path, signature and body of the simplest turn."""
    _, (sent,) = await _talk(provider, _turn(system_prompt="Be kind.", max_tokens=77))
    assert (sent.method, sent.target) == ("POST", f"/model/{_CLAUDE}/converse-stream")
    assert sent.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/")
    assert "/eu-west-1/bedrock/aws4_request" in sent.headers["authorization"]
    assert json.loads(sent.body) == {
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "system": [{"text": "Be kind."}],
        "inferenceConfig": {"maxTokens": 77},
    }


async def test_api_key(provider: BedrockProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API key counts more than keys to sign with, except against such keys in the live settings."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "from-environment")
    monkeypatch.setenv("TEAM_KEY", "of-the-team")
    _, (sent,) = await _talk(provider, _turn())
    assert sent.headers["authorization"] == "Bearer from-environment"
    assert "x-amz-date" not in sent.headers
    await provider.config_updated({"access_key_id": "AKIALIVE", "secret_access_key": "s", "region": "us-west-2"})
    _, (sent,) = await _talk(provider, _turn())
    assert "Credential=AKIALIVE/" in sent.headers["authorization"]
    assert "/us-west-2/" in sent.headers["authorization"]
    _, (sent,) = await _talk(provider, _turn(api_key_env="TEAM_KEY"))
    assert sent.headers["authorization"] == "Bearer of-the-team"
    await provider.config_updated({"secret_access_key": ""})
    with pytest.raises(AuthenticationFailed, match="go together"):
        await _talk(provider, _turn())


async def test_no_credentials(provider: BedrockProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing credentials are this provider's error, before anything is sent."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    error = await _failure(provider)
    assert isinstance(error, AuthenticationFailed)
    assert error.provider == "bedrock"


async def test_region(provider: BedrockProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Found in the order that is documented; without any, the error says what to set."""

    async def region(model: str = _CLAUDE, base_url: str = "", **options: str) -> str:
        config = AgentConfig(model=model, base_url=base_url, options=options)
        return (await provider._calls.endpoints(config)).region

    assert await region() == "eu-west-1"
    assert await region(region="us-east-2") == "us-east-2"
    assert await region("arn:aws:bedrock:ap-south-1:1:inference-profile/x.y", region="us-east-2") == "ap-south-1"
    await provider.config_updated({"region": "ca-central-1"})
    assert await region() == "ca-central-1"
    await provider.config_updated({"region": ""})
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "sa-east-1")
    assert await region() == "sa-east-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    (tmp_path / "config").write_text("[default]\nregion = eu-north-1\n")
    assert await region() == "eu-north-1"
    (tmp_path / "config").write_text("")
    assert await region(base_url="https://vpce-1.bedrock-runtime.eu-west-3.vpce.amazonaws.com") == "eu-west-3"
    with pytest.raises(AuthenticationFailed, match="no AWS region: set AWS_REGION"):
        await anext(provider.stream_turn(_turn()))


async def test_addresses(provider: BedrockProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's own in the region, FIPS ones if wanted, or what settings and variables say."""

    async def addresses(base_url: str = "") -> tuple[str, str]:
        found = await provider._calls.endpoints(AgentConfig(model=_CLAUDE, base_url=base_url))
        return found.runtime, found.control

    own = ("https://bedrock-runtime.eu-west-1.amazonaws.com", "https://bedrock.eu-west-1.amazonaws.com")
    assert await addresses() == own
    assert await addresses(own[0] + "/") == own
    assert await addresses("http://proxy:1/") == ("http://proxy:1", "http://proxy:1")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert (await addresses())[0] == "https://bedrock-runtime-fips.eu-west-1.amazonaws.com"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all:2")
    assert await addresses() == ("http://all:2", "http://all:2")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://runtime:3")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://control:4")
    assert await addresses() == ("http://runtime:3", "http://control:4")
    await provider.config_updated({"base_url": "http://live:5", "control_url": "http://live:6"})
    assert await addresses() == ("http://live:5", "http://live:6")


@pytest.mark.parametrize(
    ("model", "base", "made_by"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5-20250929-v1:0", Maker.ANTHROPIC),
        ("global.anthropic.claude-opus-4-6-v1", "anthropic.claude-opus-4-6-v1", Maker.ANTHROPIC),
        (_NOVA, "amazon.nova-2-lite-v1:0", Maker.AMAZON),
        ("openai.gpt-oss-120b-1:0", "openai.gpt-oss-120b-1:0", Maker.OPENAI),
        ("meta.llama3-1-8b-instruct-v1:0", "meta.llama3-1-8b-instruct-v1:0", Maker.OTHER),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0", Maker.AMAZON),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-6",
            "anthropic.claude-sonnet-4-6",
            Maker.ANTHROPIC,
        ),
        ("arn:aws:bedrock:us-east-1:1:provisioned-model/abc", None, Maker.OTHER),
    ],
)
def test_models(model: str, base: str | None, made_by: Maker) -> None:
    """Ids of models, profiles and ARNs tell which model is meant and who made it."""
    assert (foundation_model(model), maker(model)) == (base or model, made_by)


async def test_conversation(provider: BedrockProvider) -> None:
    """Sides take turns, outcomes come first, foreign ids are made to fit, blank and foreign parts are left out."""
    foreign = "call|" + "x" * 80
    assistant = Message(
        role=Role.ASSISTANT,
        parts=(
            ThinkingPart(text="unsigned", provider="bedrock"),
            ThinkingPart(text="foreign", signature="s", provider="anthropic"),
            TextPart(text="  "),
            ToolCall(id=foreign, name="look", arguments="not json"),
        ),
    )
    outcome = ToolOutcome(call_id=foreign, name="look", content="", is_error=True)
    answered = Message(role=Role.USER, parts=(TextPart(text="Here:"), outcome))
    body = await _body(provider, _turn(Message.user("a"), Message.user("b"), assistant, answered, tools=(_TOOL,)))
    first, second, third = body["messages"]
    assert first == {"role": "user", "content": [{"text": "a"}, {"text": "b"}]}
    (called,) = second["content"]
    assert called["toolUse"]["input"] == {"invalid_arguments": "not json"}
    call_id = called["toolUse"]["toolUseId"]
    assert len(call_id) <= 64
    assert "|" not in call_id
    result = {"toolUseId": call_id, "content": [{"text": "(no output)"}], "status": "error"}
    assert third["content"] == [{"toolResult": result}, {"text": "Here:"}]


@pytest.mark.parametrize("choice", list(ToolChoice))
async def test_tools_of_an_old_conversation(provider: BedrockProvider, choice: ToolChoice) -> None:
    """A conversation with calls is refused without a description of tools, so there is one even if none may be used."""
    talk = (
        Message.user("Hi"),
        Message(role=Role.ASSISTANT, parts=(ToolCall(id="t1", name="gone"),)),
        Message(role=Role.USER, parts=(ToolOutcome(call_id="t1", name="gone", content="x"),)),
    )
    body = await _body(provider, _turn(*talk, tool_choice=choice))
    (tool,) = body["toolConfig"]["tools"]
    assert tool["toolSpec"]["name"] == "gone"
    assert "toolChoice" not in body["toolConfig"]
    none = await _body(provider, _turn(tools=(_TOOL,), tool_choice=ToolChoice.NONE))
    assert "toolConfig" not in none


@pytest.mark.parametrize(
    ("model", "thinking", "fields"),
    [
        (_CLAUDE, Thinking(budget_tokens=10), {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        (_CLAUDE, Thinking(effort="low"), {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        (_NOVA, Thinking(budget_tokens=5000), {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}),
        ("openai.gpt-oss-20b-1:0", Thinking(effort="high"), {"reasoning_effort": "high"}),
        ("deepseek.r1-v1:0", Thinking(effort="high"), None),
        (_CLAUDE, Thinking(), None),
    ],
)
async def test_thinking(provider: BedrockProvider, model: str, thinking: Thinking, fields: Any) -> None:
    """Each maker has settings of its own; where there are none, none are sent."""
    body = await _body(provider, _turn(model=model, thinking=thinking))
    assert body.get("additionalModelRequestFields") == fields


async def test_thinking_rules_of_claude(provider: BedrockProvider) -> None:
    """With thinking, Claude takes no temperature and no forced call, and the budget comes on top."""
    config = {"thinking": Thinking(budget_tokens=2000), "temperature": 0.5, "max_tokens": 100, "top_p": 0.5}
    body = await _body(provider, _turn(tools=(_TOOL,), tool_choice=ToolChoice.REQUIRED, **config))
    assert body["inferenceConfig"] == {"maxTokens": 2100}
    assert "toolChoice" not in body["toolConfig"]


async def test_cache_points(provider: BedrockProvider) -> None:
    """After the fixed beginning and after the conversation, for models that cache, when there is enough."""
    point, long = {"cachePoint": {"type": "default"}}, "word " * 1000
    talk = (Message.user(long),)
    body = await _body(provider, _turn(*talk, tools=(_TOOL,), system_prompt=long))
    assert body["system"][-1] == body["messages"][-1]["content"][-1] == point
    big = msgspec.structs.replace(_TOOL, description=long)
    unprompted = await _body(provider, _turn(*talk, tools=(big,)))
    assert unprompted["toolConfig"]["tools"][-1] == point
    nova = await _body(provider, _turn(*talk, tools=(big,), model=_NOVA))
    assert len(nova["toolConfig"]["tools"]) == 1
    assert nova["messages"][-1]["content"][-1] == point
    for config in ({"options": {"cache": False}}, {"model": "meta.llama3-1-8b-instruct-v1:0"}):
        plain = await _body(provider, _turn(*talk, tools=(_TOOL,), system_prompt=long, **config))
        assert "cachePoint" not in json.dumps(plain)
    assert "cachePoint" not in json.dumps(await _body(provider, _turn(tools=(_TOOL,))))


async def test_pictures(provider: BedrockProvider) -> None:
    """As data, as a data address, and from S3; an address of the web says what to send instead."""
    pictures = (
        ImagePart(media_type="image/jpg", data="AAAA"),
        ImagePart(url="data:image/webp;base64,BBBB"),
        ImagePart(url="s3://bucket/a.png"),
    )
    body = await _body(provider, _turn(Message(role=Role.USER, parts=pictures)))
    assert body["messages"][0]["content"] == [
        {"image": {"format": "jpeg", "source": {"bytes": "AAAA"}}},
        {"image": {"format": "webp", "source": {"bytes": "BBBB"}}},
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}},
    ]
    for part, said in (
        (ImagePart(url="https://example.com/a.png"), "base64"),
        (ImagePart(media_type="image/tiff", data="AAAA"), "'image/tiff'"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            await _talk(provider, _turn(Message(role=Role.USER, parts=(part,))))


async def test_options(provider: BedrockProvider) -> None:
    """A guardrail and further fields are passed on."""
    options = {"guardrail": {"guardrailIdentifier": "g", "guardrailVersion": "1"}, "extra_body": {"serviceTier": {}}}
    body = await _body(provider, _turn(options=options))
    assert (body["guardrailConfig"], body["serviceTier"]) == (options["guardrail"], {})


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("ValidationException", 400, InvalidRequest),
        ("AccessDeniedException", 403, AuthenticationFailed),
        ("ExpiredTokenException", 403, AuthenticationFailed),
        ("ResourceNotFoundException", 404, InvalidRequest),
        ("ModelTimeoutException", 408, Unavailable),
        ("ModelErrorException", 424, Unavailable),
        ("ThrottlingException", 429, RateLimited),
        ("ModelNotReadyException", 429, Unavailable),
        ("InternalServerException", 500, Unavailable),
    ],
)
async def test_errors(provider: BedrockProvider, kind: str, status: int, error: type[ProviderError]) -> None:
    """Each of AWS's errors is of the class that says what to do, and keeps its name."""
    caught = await _failure(provider, _refusal(kind, "the reason", status))
    assert type(caught) is error
    assert f"{kind}: the reason" in str(caught)


@pytest.mark.parametrize(
    "message",
    [
        "Input is too long for requested model.",
        "The model returned the following errors: prompt is too long: 205430 tokens > 200000 maximum",
        "The model returned the following errors: input length and `max_tokens` exceed context limit: 198 + 8 > 200",
        "Input Tokens Exceeded: Number of input tokens exceeds maximum length. Please update the input to try again.",
    ],
)
async def test_context_too_long(provider: BedrockProvider, message: str) -> None:
    """AWS and the makers have several words for it."""
    assert type(await _failure(provider, _refusal("ValidationException", message))) is ContextTooLong


async def test_errors_of_the_identity_service(provider: BedrockProvider) -> None:
    """Their bodies spell the message with a capital."""
    body = b'{"Message":"User: arn:aws:iam::1:user/x is not authorized to perform: bedrock:InvokeModel"}'
    error = await _failure(provider, json_error(403, body))
    assert type(error) is AuthenticationFailed
    assert "bedrock:InvokeModel" in str(error)


@pytest.mark.parametrize(
    ("kind", "after", "before"),
    [
        ("throttlingException", StreamBroken, RateLimited),
        ("modelStreamErrorException", StreamBroken, Unavailable),
        ("internalServerException", StreamBroken, Unavailable),
        ("serviceUnavailableException", StreamBroken, Unavailable),
        ("validationException", InvalidRequest, InvalidRequest),
    ],
)
async def test_exceptions_in_the_stream(
    provider: BedrockProvider, kind: str, after: type[ProviderError], before: type[ProviderError]
) -> None:
    """After the answer began, what may pass is a broken stream; before it, it is the error itself."""
    said = "Too many tokens, please wait" if kind == "throttlingException" else "the reason"
    broken = event(kind, {"message": said}, exception=True)
    error = await _failure(provider, _stream(_delta({"text": "a"}), broken))
    assert type(error) is after
    assert f"{kind}: {said}" in str(error)
    assert isinstance(await _failure(provider, _stream(broken)), before)


async def test_exception_first_is_retried(provider: BedrockProvider) -> None:
    """A throttled stream that has said nothing yet is asked for again."""
    broken = event("throttlingException", {"message": "slow down"}, exception=True)
    end, requests = await _talk(provider, _turn(max_retries=1), _stream(broken), _OK)
    assert (end.message.text, len(requests)) == ("ok", 2)


async def test_damaged_stream(provider: BedrockProvider) -> None:
    """A checksum that is wrong is a bad response, not half an answer."""
    damaged = bytearray(_delta({"text": "abc"}))
    damaged[-8] ^= 1
    assert type(await _failure(provider, _stream(_delta({"text": "a"}), bytes(damaged)))) is BadResponse
    odd = event("contentBlockDelta", b'["no object"]')
    assert type(await _failure(provider, _stream(_delta({"text": "a"}), odd))) is BadResponse


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("content_filtered", StopReason.REFUSAL),
        ("model_context_window_exceeded", StopReason.MAX_TOKENS),
        ("something_new", StopReason.END_TURN),
    ],
)
async def test_stop_reasons(provider: BedrockProvider, said: str, reason: StopReason) -> None:
    """Those that no recording has; counts that never come leave the usage unknown."""
    end, _ = await _talk(provider, _turn(), _stream(_delta({"text": "a"}), _stop(said)))
    assert end.stop_reason is reason
    assert end.usage.input_tokens is None


async def test_spoilt_output(provider: BedrockProvider) -> None:
    """A model that wrote what AWS cannot read is worth another try."""
    error = await _failure(provider, _stream(_stop("malformed_tool_use"), _METADATA))
    assert type(error) is BadResponse
    assert error.usage is not None


async def test_model_without_tools_in_streams(provider: BedrockProvider) -> None:
    """The turn is asked for in one piece, with the same result, and the next one at once."""
    refusal = _refusal("ValidationException", "This model doesn't support tool use in streaming mode.")
    reasoning = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}}
    call = {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": 1}}}
    answer = _whole(reasoning, {"text": "Let me look."}, call, stop="tool_use")
    async with ReplayServer([refusal, answer, answer]) as server:
        request = _turn(tools=(_TOOL,), base_url=server.url)
        first = [event async for event in provider.stream_turn(request)][-1]
        second = [event async for event in provider.stream_turn(request)][-1]
    assert first == second
    assert isinstance(first, TurnEnd)
    assert first.message.parts == (
        ThinkingPart(text="hm", signature="c2ln", provider="bedrock"),
        TextPart(text="Let me look."),
        ToolCall(id="t1", name="look", arguments='{"at": 1}'),
    )
    assert (first.stop_reason, first.usage.input_tokens) == (StopReason.TOOL_USE, 5)
    paths = [request.target.rpartition("/")[2] for request in server.requests]
    assert paths == ["converse-stream", "converse", "converse"]


@pytest.mark.parametrize(
    ("kind", "message", "gone"),
    [
        ("ValidationException", "This model doesn't support tool use.", "toolConfig"),
        ("ValidationException", "This model doesn't support the toolConfig.toolChoice.any field.", "toolChoice"),
        ("AccessDeniedException", "unsupported model or your request did not allow prompt caching", "cachePoint"),
        ("ValidationException", "This model doesn't support system messages. Try again without", '"system"'),
    ],
)
async def test_what_models_refuse(provider: BedrockProvider, kind: str, message: str, gone: str) -> None:
    """What a model refuses is left out, and not tried again; a system prompt then opens the conversation."""
    refusal = _refusal(kind, message, 403 if kind == "AccessDeniedException" else 400)
    config = {"tool_choice": ToolChoice.REQUIRED, "system_prompt": "Be kind. " * 600}
    async with ReplayServer([refusal, _OK]) as server:
        request = _turn(tools=(_TOOL,), base_url=server.url, **config)
        for _ in range(2):
            assert [event async for event in provider.stream_turn(request)]
    bodies = [request.body.decode() for request in server.requests]
    assert [gone in body for body in bodies] == [True, False, False]
    assert all("Be kind." in body for body in bodies)


async def test_complete(provider: BedrockProvider) -> None:
    """A single prompt, in one piece, without tools."""
    async with ReplayServer([_whole({"text": "Ye"}, {"text": "s."})]) as server:
        config = AgentConfig(model=_CLAUDE, base_url=server.url, temperature=0.5)
        assert await provider.complete(config, "Be brief.", "Is it?", 20) == "Yes."
    (sent,) = server.requests
    assert sent.target == f"/model/{_CLAUDE}/converse"
    assert json.loads(sent.body) == {
        "messages": [{"role": "user", "content": [{"text": "Is it?"}]}],
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"maxTokens": 20, "temperature": 0.5},
    }


async def test_embed(provider: BedrockProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Titan takes one text a request, Cohere 96; models that are not known are refused before anything is sent."""
    async with ReplayServer([json_error(200, b'{"embedding":[0.5,1],"inputTextTokenCount":2}')]) as server:
        config = AgentConfig(model=_CLAUDE, base_url=server.url, options={"dimensions": 256})
        assert await provider.embed(config, ["a", "b", "c"]) == [[0.5, 1]] * 3
    assert {request.target for request in server.requests} == {"/model/amazon.titan-embed-text-v2%3A0/invoke"}
    assert sorted(json.loads(request.body)["inputText"] for request in server.requests) == ["a", "b", "c"]
    assert json.loads(server.requests[0].body)["dimensions"] == 256
    monkeypatch.setenv("AGENT_EMBEDDING_MODEL", "cohere.embed-v4:0")
    async with ReplayServer([json_error(200, b'{"embeddings":{"float":[[1.0],[2.0]]}}')]) as server:
        config = AgentConfig(model=_CLAUDE, base_url=server.url, options={"input_type": "search_query"})
        assert await provider.embed(config, ["a", "b"]) == [[1.0], [2.0]]
    assert json.loads(server.requests[0].body) == {"texts": ["a", "b"], "input_type": "search_query"}
    many = json.dumps({"embeddings": [[0.0]] * 96}).encode()
    async with ReplayServer([json_error(200, many)]) as server:
        config = msgspec.structs.replace(config, base_url=server.url)
        with pytest.raises(BadResponse, match="96 vectors came back for 4 texts"):
            await provider.embed(config, ["x"] * 100)
    await provider.config_updated({"embedding_model": "meta.llama3-1-8b-instruct-v1:0"})
    with pytest.raises(InvalidRequest, match=r"amazon\.titan-embed-text-v2:0"):
        await provider.embed(config, ["a"])


async def test_count_tokens(provider: BedrockProvider) -> None:
    """AWS counts by the model itself, not by a profile; where it cannot, an estimate serves."""
    cannot = _refusal("ValidationException", "The provided model doesn't support counting tokens.")
    busy = _refusal("InternalServerException", "oops", 500)
    async with ReplayServer([json_error(200, b'{"inputTokens":12}'), cannot, busy]) as server:
        config = AgentConfig(model="eu." + _CLAUDE, base_url=server.url, max_retries=0)
        assert await provider.count_tokens(config, [Message.user("Hi")]) == 12
        assert server.requests[0].target == f"/model/{_CLAUDE}/count-tokens"
        assert 90 < await provider.count_tokens(config, [Message.user("word " * 100)]) < 200
        with pytest.raises(Unavailable):
            await provider.count_tokens(config, [Message.user("Hi")])


async def test_model_info(provider: BedrockProvider) -> None:
    """AWS says whether a model takes pictures; its window is a known fact."""
    described = b'{"modelDetails":{"modelId":"x","inputModalities":["TEXT","IMAGE"]}}'
    async with ReplayServer([json_error(200, described)]) as server:
        config = AgentConfig(model="eu." + _CLAUDE, base_url=server.url)
        assert (await provider.model_info(config)).images is True
    assert server.requests[0].target == f"/foundation-models/{_CLAUDE}"


async def test_health(provider: BedrockProvider) -> None:
    """Models are listed; credentials that AWS knows are healthy even if they may not list them."""
    may_not = b'{"Message":"User: x is not authorized to perform: bedrock:ListFoundationModels on resource: *"}'
    unknown = _refusal("UnrecognizedClientException", "The security token included in the request is invalid.", 403)
    async with ReplayServer([json_error(200, b"{}"), json_error(403, may_not), unknown]) as server:
        config = AgentConfig(model=_CLAUDE, base_url=server.url)
        found = [await provider.health_check(config) for _ in range(3)]
    assert [health.healthy for health in found] == [True, True, False]
    assert found[0].details == {"base_url": config.base_url, "region": "eu-west-1"}
    assert "security token" in found[2].message
    assert server.requests[0].target == "/foundation-models?byOutputModality=TEXT"


async def test_secrets_are_not_shown(provider: BedrockProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused signature repeats what was signed, and with it the session token: it does not get into the error."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "very-secret-token")
    said = "The request signature we calculated does not match: x-amz-security-token:very-secret-token"
    error = await _failure(provider, _refusal("InvalidSignatureException", said, 403))
    assert "InvalidSignatureException" in str(error)
    assert "very-secret-token" not in f"{error!r} {provider!r}"


async def test_signature_that_grew_old(provider: BedrockProvider) -> None:
    """Repeating a request may take longer than its signature is good: a new call signs anew, so it may be tried."""
    said = "Signature expired: 20261121T100000Z is now earlier than 20261121T100500Z (20261121T101000Z - 5 min.)"
    caught = await _failure(provider, _refusal("InvalidSignatureException", said, 403))
    assert type(caught) is Unavailable
    assert caught.retryable
