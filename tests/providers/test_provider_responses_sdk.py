"""OpenAI's own SDK reads the recorded responses, calls Azure, and judges our requests: both must agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.azure_openai import AzureOpenAIProvider, AzureResponsesProvider
from providers.interfaces import ChatProvider
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Role,
    StopReason,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnRequest,
)
from providers.openai_responses import OpenAIResponsesProvider
from providers.replay_server import Received, ReplayServer, Reply, json_error
from tests.providers import openai_answers

openai = pytest.importorskip("openai")

pytestmark = pytest.mark.timeout(60)

_RECORDINGS = Path(__file__).parent / "recordings"
_NAMES = sorted(path.stem for path in (_RECORDINGS / "openai_responses").glob("*.sse"))
_TOOL = ToolSpec(name="get_weather", input_schema={"type": "object", "properties": {"city": {"type": "string"}}})
_STATUS = {StopReason.MAX_TOKENS: "incomplete"}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "test-key-azure")


async def _ours(provider: ChatProvider, base_url: str, *messages: Message, **config: Any) -> TurnEnd:
    config = {"model": "gpt-x", "base_url": base_url, **config}
    request = TurnRequest(config=AgentConfig(**config), messages=messages or (Message.user("Hi"),), tools=(_TOOL,))
    try:
        end = [event async for event in provider.stream_turn(request)][-1]
    finally:
        await provider.aclose()
    assert isinstance(end, TurnEnd)
    return end


async def _theirs(base_url: str) -> Any:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="x", max_retries=0) as client:
        stream = await client.responses.create(model="gpt-x", input="Hi", stream=True)
        events = [event async for event in stream]
    return events[-1].response


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("vendor", ["openai_responses", "azure_responses"])
async def test_recordings(vendor: str, name: str) -> None:
    """Text, reasoning, calls, why it ended and usage are those that OpenAI's SDK reads."""
    recording = (_RECORDINGS / vendor / f"{name}.sse").read_bytes()
    async with ReplayServer([Reply(frames=(recording,))]) as server:
        theirs = await _theirs(server.url)
        provider = OpenAIResponsesProvider() if vendor == "openai_responses" else AzureResponsesProvider()
        ours = await _ours(provider, server.url)
    assert ours.message.text == theirs.output_text + _refused(theirs)
    calls = [(item.call_id, item.name, item.arguments) for item in theirs.output if item.type == "function_call"]
    assert [(call.id, call.name, call.arguments) for call in ours.message.tool_calls] == calls
    reasoning = [item.model_dump(exclude_unset=True) for item in theirs.output if item.type == "reasoning"]
    thoughts = [part for part in ours.message.parts if isinstance(part, ThinkingPart)]
    assert [json.loads(part.signature) for part in thoughts] == reasoning
    summaries = ["\n\n".join(part["text"] for part in item["summary"]) for item in reasoning]
    assert [part.text for part in thoughts] == summaries
    assert _STATUS.get(ours.stop_reason, "completed") == theirs.status
    assert (ours.model, ours.response_id) == (theirs.model, theirs.id)
    _same_usage(ours, theirs.usage)


@pytest.mark.parametrize("vendor", ["openai_responses", "azure_responses"])
def test_recorded_events_are_known(vendor: str) -> None:
    """Each recorded event is one of those that the SDK knows, with all that its kind requires."""
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(openai.types.responses.ResponseStreamEvent)
    for path in (_RECORDINGS / vendor).glob("*.sse"):
        for line in path.read_text().splitlines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                usage = event.get("response", {}).get("usage")
                if usage and vendor == "azure_responses":  # Azure leaves out what the SDK takes for granted
                    usage["input_tokens_details"].setdefault("cache_write_tokens", 0)
                assert adapter.validate_python(event).type == event["type"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (_RECORDINGS / "azure_chat").glob("*.sse")))
async def test_azure_chat_recordings(name: str) -> None:
    """Text, calls, finish reason and usage are those that the SDK for Azure reads."""
    recording = (_RECORDINGS / "azure_chat" / f"{name}.sse").read_bytes()
    async with ReplayServer([Reply(frames=(recording,))]) as server:
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=server.url, api_key="x", api_version="2024-10-21", max_retries=0
        ) as client:
            asked = {"model": "gpt-x", "messages": [{"role": "user", "content": "Hi"}]}
            stream = await client.chat.completions.create(**asked, stream=True)
            chunks = [chunk async for chunk in stream]
        ours = await _ours(AzureOpenAIProvider(), server.url)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert ours.message.text == "".join((delta.content or "") + (delta.refusal or "") for delta in deltas)
    pieces = [call for delta in deltas for call in delta.tool_calls or ()]
    names = [call.function.name for call in pieces if call.function.name]
    assert [call.name for call in ours.message.tool_calls] == names
    arguments = "".join(call.function.arguments or "" for call in pieces)
    assert "".join(call.arguments for call in ours.message.tool_calls) == arguments
    usage = next(chunk.usage for chunk in chunks if chunk.usage)
    assert (ours.usage.input_tokens, ours.usage.output_tokens) == (usage.prompt_tokens, usage.completion_tokens)
    assert ours.usage.cache_read_tokens == usage.prompt_tokens_details.cached_tokens
    assert ours.usage.reasoning_tokens == usage.completion_tokens_details.reasoning_tokens


@pytest.mark.parametrize("token", ["", "entra-token"])
async def test_azure_calls(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """The SDK for Azure, with the same variables set, asks at the same addresses and with the same credentials."""
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-04-01-preview")
    if token:
        monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", token)
    vectors = json_error(200, json.dumps(openai_answers.embeddings([[0.5]])).encode())
    replies = {
        "chat": Reply(frames=((_RECORDINGS / "azure_chat" / "text.sse").read_bytes(),)),
        "responses": Reply(frames=((_RECORDINGS / "azure_responses" / "text.sse").read_bytes(),)),
    }
    for api, reply in replies.items():
        async with ReplayServer([reply, reply, vectors]) as server:
            monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url)
            await _azure_sdk(api)
            await _ours(AzureOpenAIProvider(), "", model="my-gpt", options={"api": api})
            await _embed_both()
            theirs, ours, *embedded = map(_addressed, server.requests)
        assert ours == theirs
        assert embedded[0] == embedded[1]


async def _azure_sdk(api: str) -> None:
    async with openai.AsyncAzureOpenAI(max_retries=0) as client:
        if api == "chat":
            messages = [{"role": "user", "content": "Hi"}]
            stream = await client.chat.completions.create(model="my-gpt", messages=messages, stream=True)
        else:
            stream = await client.responses.create(model="my-gpt", input="Hi", stream=True)
        assert [event async for event in stream]


async def _embed_both() -> None:
    async with openai.AsyncAzureOpenAI(max_retries=0) as client:
        await client.embeddings.create(model="my-embeddings", input=["a"], encoding_format="float")
    provider = AzureOpenAIProvider()
    await provider.embed(AgentConfig(model="my-gpt", options={"embedding_model": "my-embeddings"}), ["a"])
    await provider.aclose()


def _addressed(request: Received) -> tuple[str, str, Mapping[str, str]]:
    credentials = {name: request.headers[name] for name in ("api-key", "authorization") if name in request.headers}
    return request.method, request.target, credentials


@cache
def _body_type() -> Any:
    from pydantic import ConfigDict, TypeAdapter, with_config

    params = openai.types.responses.response_create_params.ResponseCreateParamsStreaming
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(params))


async def test_our_requests_are_of_their_type() -> None:
    """Everything that we send fits the types of the SDK: settings, pictures, reasoning, calls and their outcomes."""
    recording = (_RECORDINGS / "openai_responses" / "thinking_tool_call.sse").read_bytes()
    async with ReplayServer([Reply(frames=(recording,))]) as server:
        answer = await _ours(OpenAIResponsesProvider(), server.url)
        picture = ImagePart(media_type="image/png", data="AAAA")
        first, second = answer.message.tool_calls
        outcomes = Message(
            role=Role.USER,
            parts=(
                ToolOutcome(call_id=first.id, name=first.name, content="x", images=(picture,)),
                ToolOutcome(call_id=second.id, name=second.name, content="y"),
            ),
        )
        question = Message(role=Role.USER, parts=(TextPart(text="What?"), picture))
        schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
        settings = {
            "system_prompt": "Be kind.",
            "temperature": 0.5,
            "top_p": 0.5,
            "thinking": Thinking(effort="high"),
            "output_schema": {**schema, "additionalProperties": False},
        }
        await _ours(OpenAIResponsesProvider(), server.url, question, answer.message, outcomes, **settings)
    body = json.loads(server.requests[1].body)
    assert len(body["input"]) == 8
    _body_type().validate_python(body, strict=True)
    with pytest.raises(ValueError, match="store"):
        _body_type().validate_python({**body, "store": "no"}, strict=True)


def _same_usage(ours: TurnEnd, theirs: Any) -> None:
    read, written = theirs.input_tokens_details, theirs.output_tokens_details
    assert msgspec.structs.asdict(ours.usage) == {
        "input_tokens": theirs.input_tokens,
        "output_tokens": theirs.output_tokens,
        "cache_read_tokens": read.cached_tokens,
        "cache_write_tokens": getattr(read, "cache_write_tokens", None),
        "reasoning_tokens": written.reasoning_tokens,
    }


def _refused(response: Any) -> str:
    contents = [part for item in response.output if item.type == "message" for part in item.content]
    return "".join(part.refusal for part in contents if part.type == "refusal")
