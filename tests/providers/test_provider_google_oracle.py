"""Google's own SDK reads the same bytes and sends the same conversation, and must come to the same as our providers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers.gemini import GeminiProvider
from providers.interfaces import ChatProvider
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
from providers.replay_server import ReplayServer, Reply
from providers.vertex import VertexProvider

genai = pytest.importorskip("google.genai")
types = pytest.importorskip("google.genai.types")

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession"),  # the SDK's own business
]

_RECORDINGS = Path(__file__).parent / "recordings"
_NAMES = sorted(path.stem for path in (_RECORDINGS / "gemini").glob("*.sse"))
_MODEL = "gemini-3-pro-preview"
_SIGNATURE = "c2lnbmF0dXJl"
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(params=["gemini", "vertex"])
async def vendor(request: pytest.FixtureRequest) -> AsyncIterator[ChatProvider]:
    """Both of Google's services."""
    provider: ChatProvider = GeminiProvider() if request.param == "gemini" else VertexProvider()
    yield provider
    await provider.aclose()


def _sdk(vendor: ChatProvider, base_url: str) -> Any:
    if vendor.name == "gemini":
        return genai.Client(api_key="x", http_options={"base_url": base_url, "api_version": "v1beta"})
    credentials = pytest.importorskip("google.oauth2.credentials").Credentials("ya29.test")
    options = {"base_url": base_url, "api_version": "v1"}
    return genai.Client(
        vertexai=True, project="p-1", location="us-east1", credentials=credentials, http_options=options
    )


async def _theirs(vendor: ChatProvider, base_url: str, contents: Any, config: Any = None) -> list[Any]:
    async with _sdk(vendor, base_url).aio as client:
        stream = await client.models.generate_content_stream(model=_MODEL, contents=contents, config=config)
        return [chunk async for chunk in stream]


async def _ours(vendor: ChatProvider, request: TurnRequest) -> TurnEnd:
    events = [event async for event in vendor.stream_turn(request)]
    assert isinstance(events[-1], TurnEnd)
    return events[-1]


def _config(base_url: str, **settings: Any) -> AgentConfig:
    place = {"project": "p-1", "location": "us-east1"}
    return AgentConfig(model=_MODEL, base_url=base_url, options=place, **settings)


@pytest.mark.parametrize("name", _NAMES)
async def test_recordings(vendor: ChatProvider, name: str) -> None:
    """Text, thoughts, signatures, calls, model and usage are those of the SDK."""
    recording = (_RECORDINGS / vendor.name / f"{name}.sse").read_bytes()
    async with ReplayServer([Reply(frames=(recording,))]) as server:
        chunks = await _theirs(vendor, server.url, "Hi")
        ours = await _ours(vendor, TurnRequest(config=_config(server.url), messages=(Message.user("Hi"),)))
    parts = [part for chunk in chunks for part in _parts(chunk)]
    assert ours.message.text == "".join(part.text for part in parts if part.text and not part.thought)
    thoughts = [part for part in ours.message.parts if isinstance(part, ThinkingPart)]
    assert "".join(part.text for part in thoughts) == "".join(part.text for part in parts if part.text and part.thought)
    signatures = [types.Part(thought_signature=part.signature or part.redacted) for part in thoughts]
    assert [part.thought_signature for part in signatures if part.thought_signature] == [
        part.thought_signature for part in parts if part.thought_signature
    ]
    calls = [part.function_call for part in parts if part.function_call]
    assert [(call.name, json.loads(call.arguments)) for call in ours.message.tool_calls] == [
        (call.name, call.args) for call in calls
    ]
    for call, their_call in zip(ours.message.tool_calls, calls, strict=True):
        assert call.id == their_call.id or (their_call.id is None and call.id.startswith("local-"))
    _same_end(ours, chunks[-1])


async def test_requests(vendor: ChatProvider) -> None:
    """A conversation with everything in it becomes the same body, whoever builds it."""
    recording = Reply(frames=((_RECORDINGS / vendor.name / "text.sse").read_bytes(),))
    async with ReplayServer([recording]) as server:
        await _theirs(vendor, server.url, _their_contents(), _their_config())
        await _ours(vendor, _our_request(vendor.name, server.url))
    theirs, ours = server.requests
    assert ours.target == theirs.target
    assert _plain(json.loads(ours.body)) == _plain(json.loads(theirs.body))


def _our_request(provider: str, base_url: str) -> TurnRequest:
    picture = ImagePart(media_type="image/png", data="cG5n")
    calls = (
        ThinkingPart(signature=_SIGNATURE, provider=provider),
        ToolCall(id="a1", name="look", arguments='{"at": "sea"}'),
        ToolCall(id="a2", name="look", arguments='{"at": "sky"}'),
    )
    outcomes = (
        ToolOutcome(call_id="a1", name="look", content="blue", images=(picture,)),
        ToolOutcome(call_id="a2", name="look", content="dark", is_error=True),
    )
    talk = (
        Message(role=Role.USER, parts=(TextPart(text="Look!"), picture, ImagePart(url="gs://bucket/b.png"))),
        Message(role=Role.ASSISTANT, parts=calls),
        Message(role=Role.USER, parts=outcomes),
    )
    config = _config(
        base_url,
        system_prompt="Be kind.",
        max_tokens=99,
        temperature=0.5,
        top_p=0.25,
        stop=("END",),
        thinking=Thinking(effort="high"),
        tool_choice=ToolChoice.REQUIRED,
        output_schema=_SCHEMA,
    )
    tools = (ToolSpec(name="look", description="Looks.", input_schema=_SCHEMA),)
    return TurnRequest(config=config, messages=talk, tools=tools)


def _their_contents() -> list[Any]:
    inline = {"mime_type": "image/png", "data": "cG5n"}
    first = {"id": "a1", "name": "look", "args": {"at": "sea"}}
    second = {"id": "a2", "name": "look", "args": {"at": "sky"}}
    answer = {"id": "a1", "name": "look", "response": {"output": "blue"}, "parts": [{"inline_data": inline}]}
    failure = {"id": "a2", "name": "look", "response": {"error": "dark"}}
    file = {"mime_type": "image/png", "file_uri": "gs://bucket/b.png"}
    return [
        types.Content.model_validate(content)
        for content in (
            {"role": "user", "parts": [{"text": "Look!"}, {"inline_data": inline}, {"file_data": file}]},
            {
                "role": "model",
                "parts": [{"function_call": first, "thought_signature": _SIGNATURE}, {"function_call": second}],
            },
            {"role": "user", "parts": [{"function_response": answer}, {"function_response": failure}]},
        )
    ]


def _their_config() -> Any:
    declaration = {"name": "look", "description": "Looks.", "parameters_json_schema": _SCHEMA}
    return types.GenerateContentConfig.model_validate(
        {
            "system_instruction": types.Content.model_validate({"parts": [{"text": "Be kind."}]}),
            "max_output_tokens": 99,
            "temperature": 0.5,
            "top_p": 0.25,
            "stop_sequences": ["END"],
            "thinking_config": {"thinking_level": "HIGH", "include_thoughts": True},
            "tools": [{"function_declarations": [declaration]}],
            "tool_config": {"function_calling_config": {"mode": "ANY"}},
            "response_mime_type": "application/json",
            "response_json_schema": _SCHEMA,
        }
    )


def _plain(body: Any) -> Any:
    """The same words for what the API takes in either way: keys in camel or snake case."""
    if isinstance(body, dict):
        return {_camel(key): _plain(value) for key, value in body.items() if value is not None}
    if isinstance(body, list):
        return [_plain(value) for value in body]
    return body


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.title() for word in rest)


def _parts(chunk: Any) -> list[Any]:
    content = chunk.candidates[0].content if chunk.candidates else None
    return list(content.parts or ()) if content is not None else []


def _same_end(ours: TurnEnd, last: Any) -> None:
    usage = last.usage_metadata
    assert (ours.model, ours.response_id) == (last.model_version, last.response_id)
    assert ours.usage.input_tokens == usage.prompt_token_count
    assert ours.usage.output_tokens == (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    assert ours.usage.output_tokens == usage.total_token_count - usage.prompt_token_count
    assert ours.usage.cache_read_tokens == usage.cached_content_token_count
    assert ours.usage.reasoning_tokens == usage.thoughts_token_count
