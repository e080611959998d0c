"""AWS's own library asks the same server the same, and must send and read what we do."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from providers.bedrock import BedrockProvider
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Role,
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

botocore_session = pytest.importorskip("botocore.session")
botocore_auth = pytest.importorskip("botocore.auth")
botocore_awsrequest = pytest.importorskip("botocore.awsrequest")
botocore_config = pytest.importorskip("botocore.config")
botocore_credentials = pytest.importorskip("botocore.credentials")

_RECORDINGS = Path(__file__).parent / "recordings" / "bedrock"
_NAMES = sorted(path.stem for path in _RECORDINGS.glob("*.eventstream"))
_ARN = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3d4e5f6"
_MODELS = ["anthropic.claude-sonnet-4-5-20250929-v1:0", "eu.anthropic.claude-sonnet-4-6", _ARN]
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_KEY, _SECRET, _TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "a-session-token"


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch, aws_environment: None) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", _KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", _TOKEN)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


def _reply(name: str) -> Reply:
    frames = ((_RECORDINGS / f"{name}.eventstream").read_bytes(),)
    return Reply(frames=frames, content_type="application/vnd.amazon.eventstream")


async def _ours(url: str, request: TurnRequest) -> TurnEnd:
    provider = BedrockProvider()
    try:
        events = [event async for event in provider.stream_turn(request)]
    finally:
        await provider.aclose()
    assert isinstance(events[-1], TurnEnd)
    return events[-1]


def _turn(url: str, *messages: Message, model: str = _MODELS[0], **more: Any) -> TurnRequest:
    tools = more.pop("tools", ())
    config = AgentConfig(model=model, base_url=url, **more)
    return TurnRequest(config=config, messages=messages or (Message.user("Hi"),), tools=tools)


@functools.cache
def _session() -> Any:
    """Shared, because it reads AWS's descriptions of its services only once; it has the keys of the environment."""
    return botocore_session.get_session()


def _client(url: str) -> Any:
    config = botocore_config.Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=20)
    return _session().create_client("bedrock-runtime", region_name="eu-west-1", endpoint_url=url, config=config)


async def _theirs(url: str, ask: Callable[[Any], Any]) -> Any:
    """What AWS's library makes of it, in a thread: it knows no asyncio."""

    def run() -> Any:
        client = _client(url)
        try:
            return ask(client)
        finally:
            client.close()

    return await asyncio.to_thread(run)


def _converse(**asked: Any) -> Callable[[Any], list[dict[str, Any]]]:
    return lambda client: list(client.converse_stream(**asked)["stream"])


@pytest.mark.parametrize("name", _NAMES)
async def test_recordings(name: str) -> None:
    """Text, reasoning with signature and secret parts, calls, stop reason and usage are those of AWS's library."""
    async with ReplayServer([_reply(name)]) as server:
        hello = [{"role": "user", "content": [{"text": "Hi"}]}]
        theirs = await _theirs(server.url, _converse(modelId=_MODELS[0], messages=hello))
        ours = await _ours(server.url, _turn(server.url))
    blocks = _blocks(theirs)
    assert [_as_block(part) for part in ours.message.parts] == blocks
    stopped = next(event["messageStop"]["stopReason"] for event in theirs if "messageStop" in event)
    assert ours.stop_reason.value == {"guardrail_intervened": "refusal"}.get(stopped, stopped)
    usage = next(event["metadata"]["usage"] for event in theirs if "metadata" in event)
    cached = usage.get("cacheReadInputTokens", 0) + usage.get("cacheWriteInputTokens", 0)
    assert ours.usage.input_tokens == usage["inputTokens"] + cached
    assert ours.usage.total_tokens == usage["totalTokens"]
    assert ours.usage.cache_read_tokens == usage.get("cacheReadInputTokens")
    assert ours.usage.cache_write_tokens == usage.get("cacheWriteInputTokens")


def _blocks(events: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        if start := event.get("contentBlockStart"):
            found[start["contentBlockIndex"]] = {**start["start"]["toolUse"], "input": ""}
        if piece := event.get("contentBlockDelta"):
            block = found.setdefault(piece["contentBlockIndex"], {})
            delta = piece["delta"]
            for key, value in (
                delta.get("reasoningContent") or delta.get("toolUse") or {"says": delta.get("text")}
            ).items():
                block[key] = block.get(key, type(value)()) + value
    return [_block(block) for _, block in sorted(found.items())]


def _block(block: dict[str, Any]) -> tuple[str, ...]:
    if "name" in block:
        return block["toolUseId"], block["name"], block["input"] or "{}"
    if "redactedContent" in block:
        return ("redacted", base64.b64encode(block["redactedContent"]).decode())
    return (block["text"], block["signature"]) if "signature" in block else (block["says"],)


def _as_block(part: Any) -> tuple[str, ...]:
    match part:
        case ToolCall():
            return part.id, part.name, part.arguments
        case ThinkingPart():
            return ("redacted", part.redacted) if part.redacted else (part.text, part.signature)
    return (part.text,)


_TALK = (
    Message(role=Role.USER, parts=(TextPart(text="What?"), ImagePart(media_type="image/png", data=_PIXEL))),
    Message(
        role=Role.ASSISTANT,
        parts=(
            ThinkingPart(text="hm", signature="c2ln", provider="bedrock"),
            ThinkingPart(redacted="c2VjcmV0", provider="bedrock"),
            ToolCall(id="tooluse_1", name="look", arguments='{"at": 1.5}'),
            ToolCall(id="tooluse_2", name="look", arguments="{}"),
        ),
    ),
    Message(
        role=Role.USER,
        parts=(
            ToolOutcome(
                call_id="tooluse_1",
                name="look",
                content="a tree",
                images=(ImagePart(media_type="image/jpg", data=_PIXEL),),
            ),
            ToolOutcome(call_id="tooluse_2", name="look", content="no such place", is_error=True),
        ),
    ),
)
_TOOL = ToolSpec(name="look", description="Looks.", input_schema={"properties": {"at": {"type": "number"}}})


def _for_their_library(body: dict[str, Any]) -> dict[str, Any]:
    """The same request as their library wants it: there, blobs are bytes."""

    def bytes_of(value: Any) -> Any:
        if isinstance(value, list):
            return [bytes_of(item) for item in value]
        if not isinstance(value, dict):
            return value
        blobs = ("bytes", "redactedContent")
        return {key: base64.b64decode(item) if key in blobs else bytes_of(item) for key, item in value.items()}

    found: dict[str, Any] = bytes_of(body)
    return found


@pytest.mark.parametrize("model", _MODELS)
async def test_requests(model: str) -> None:
    """A request with all that there is passes the library's own checks; it then sends the same path and body."""
    more = {"temperature": 0.5, "top_p": 0.75, "stop": ("END",), "tool_choice": ToolChoice.REQUIRED}
    settings: dict[str, Any] = {"system_prompt": "Be kind. " * 600, "tools": (_TOOL,), **more}
    async with ReplayServer([_reply("text")]) as server:
        await _ours(server.url, _turn(server.url, *_TALK, model=model, **settings))
        asked = _for_their_library(json.loads(server.requests[0].body))
        await _theirs(server.url, _converse(modelId=model, **asked))
        ours, theirs = server.requests
    assert (ours.method, ours.target) == (theirs.method, theirs.target)
    assert json.loads(ours.body) == json.loads(theirs.body)
    assert len(json.loads(ours.body)["system"]) == (1 if model == _ARN else 2)


async def test_thinking_request() -> None:
    """So does a request with a thinking budget, which goes to the model as it is."""
    async with ReplayServer([_reply("thinking")]) as server:
        await _ours(server.url, _turn(server.url, thinking=Thinking(budget_tokens=2000), max_tokens=100))
        asked = _for_their_library(json.loads(server.requests[0].body))
        await _theirs(server.url, _converse(modelId=_MODELS[0], **asked))
        ours, theirs = (json.loads(request.body) for request in server.requests)
    assert ours == theirs
    assert ours["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert ours["inferenceConfig"] == {"maxTokens": 2100}


@pytest.mark.parametrize("model", _MODELS)
async def test_signature_on_the_wire(model: str) -> None:
    """What the server received, path and all, has the signature that AWS's library gives to it."""
    async with ReplayServer([_reply("text")]) as server:
        await _ours(server.url, _turn(server.url, model=model))
        (received,) = server.requests
        assert received.headers["authorization"] == _signature_of(received, server.url)


def _signature_of(received: Received, url: str) -> str:
    signed = received.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: received.headers[name] for name in signed if name not in ("x-amz-date", "x-amz-security-token")}
    request = botocore_awsrequest.AWSRequest(
        method=received.method, url=url + received.target, headers=headers, data=received.body
    )
    moment = datetime.strptime(received.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")  # noqa: DTZ007 - its zone is UTC
    keys = botocore_credentials.Credentials(_KEY, _SECRET, _TOKEN)
    with mock.patch.object(botocore_auth, "get_current_datetime", return_value=moment):
        botocore_auth.SigV4Auth(keys, "bedrock", "eu-west-1").add_auth(request)
    signature: str = request.headers["Authorization"]
    return signature


async def test_other_calls() -> None:
    """Plain answers, counts and vectors are asked for as the library does, and mean the same."""
    whole = {
        "output": {"message": {"role": "assistant", "content": [{"text": "Yes."}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
        "metrics": {"latencyMs": 10},
    }
    provider, model = BedrockProvider(), _MODELS[0]
    async with ReplayServer([json_error(200, json.dumps(whole).encode())]) as server:
        config = AgentConfig(model=model, base_url=server.url)
        assert await provider.complete(config, "Be brief.", "Is it?", 20) == "Yes."
        asked = json.loads(server.requests[0].body)
        theirs = await _theirs(server.url, lambda client: client.converse(modelId=model, **asked))
        assert theirs["output"]["message"]["content"][0]["text"] == "Yes."
        assert server.requests[0].target == server.requests[1].target
    async with ReplayServer([json_error(200, b'{"inputTokens":77}')]) as server:
        config = AgentConfig(model=model, base_url=server.url, system_prompt="Be brief.")
        assert await provider.count_tokens(config, _TALK) == 77
        asked = _for_their_library(json.loads(server.requests[0].body))
        theirs = await _theirs(server.url, lambda client: client.count_tokens(modelId=model, **asked))
        assert theirs["inputTokens"] == 77
        assert json.loads(server.requests[0].body) == json.loads(server.requests[1].body)
        assert server.requests[0].target == server.requests[1].target
    await provider.aclose()
