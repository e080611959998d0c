"""Output schemas in both of OpenAI's protocols: sent natively where that works, in the prompt where not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers.interfaces import ModelInfo
from providers.messages import AgentConfig, Message, TurnRequest
from providers.openai_chat import OpenAIChatProvider
from providers.openai_provider import OpenAIFamilyProvider
from providers.openai_responses import OpenAIResponsesProvider
from providers.replay_server import ReplayServer, Reply, json_error
from providers.transport import Transport
from tests.providers import openai_answers

pytestmark = pytest.mark.timeout(30)

_OPEN = {"type": "object", "properties": {"a": {"type": "string"}}}
_CLOSED = {**_OPEN, "required": ["a"], "additionalProperties": False}
_ANSWERS = {
    "openai": json_error(200, json.dumps(openai_answers.completion("{}")).encode()),
    "openai_responses": json_error(200, json.dumps(openai_answers.response("{}")).encode()),
}


async def _no_wait(_: float) -> None:
    return


@pytest.fixture(params=[OpenAIChatProvider, OpenAIResponsesProvider])
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[OpenAIFamilyProvider]:
    """A provider of each protocol that does not sleep between tries."""
    provider: OpenAIFamilyProvider = request.param(Transport(sleep=_no_wait))
    yield provider
    await provider.aclose()


def _refusal(message: str) -> Reply:
    return json_error(400, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode())


def _config(schema: dict[str, Any], base_url: str = "http://127.0.0.1:1") -> AgentConfig:
    return AgentConfig(model="m", base_url=base_url, output_schema=schema)


async def _sent(provider: OpenAIFamilyProvider, schema: dict[str, Any], *replies: Reply, turns: int = 1) -> list[str]:
    """How each request had the schema: `strict`, `loose`, or in the `prompt`, never twice."""
    async with ReplayServer([*replies, _ANSWERS[provider.name]]) as server:
        for _ in range(turns):
            request = TurnRequest(config=_config(schema, server.url), messages=(Message.user("Hi"),))
            _ = [event async for event in provider.stream_turn(request)]
    return [_form(json.loads(sent.body)) for sent in server.requests]


def _form(body: dict[str, Any]) -> str:
    native = body.get("response_format", {}).get("json_schema") or body.get("text", {}).get("format")
    prompt = json.dumps(body.get("messages") or body.get("input"))
    assert prompt.count("matching this schema") == (native is None), body
    if native is None:
        return "prompt"
    return "strict" if native["strict"] else "loose"


async def test_closed_schemas_are_strict(provider: OpenAIFamilyProvider) -> None:
    """The vendor's strict mode is used where it takes the schema."""
    assert await _sent(provider, _CLOSED) == ["strict"]
    assert await _sent(provider, _OPEN) == ["loose"]


@pytest.mark.parametrize("schema", [{"type": "array", "items": {"type": "string"}}, {"anyOf": [_OPEN]}])
async def test_answers_that_are_no_objects(provider: OpenAIFamilyProvider, schema: dict[str, Any]) -> None:
    """The vendor takes objects only: for anything else the prompt asks."""
    assert not provider.sends_schema(_config(schema))
    assert await _sent(provider, schema) == ["prompt"]


@pytest.mark.parametrize(
    "said",
    [
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
        "Invalid parameter: 'text.format' of type 'json_schema' is not supported with this model.",
        "This response_format type is unavailable now",
        "This model does not support response format `json_schema`.",
    ],
)
async def test_models_without_schemas(provider: OpenAIFamilyProvider, said: str) -> None:
    """A model that takes none is asked by the prompt at once, and from then on without trying."""
    assert await _sent(provider, _CLOSED, _refusal(said), turns=2) == ["strict", "prompt", "prompt"]


async def test_known_models_without_schemas(provider: OpenAIFamilyProvider) -> None:
    """The loop is told so, too."""
    said = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
    async with ReplayServer([_refusal(said), _ANSWERS[provider.name]]) as server:
        config = _config(_CLOSED, server.url)
        assert provider.sends_schema(config)
        _ = [event async for event in provider.stream_turn(TurnRequest(config=config, messages=(Message.user("Hi"),)))]
        assert not provider.sends_schema(config)


async def test_schemas_that_strict_mode_refuses(provider: OpenAIFamilyProvider) -> None:
    """A schema with keywords that strict mode does not know is sent without it, and as a last resort in the prompt; the
    next schema is tried again."""
    said = "Invalid schema for response_format 'answer': 'oneOf' is not permitted."
    assert await _sent(provider, _CLOSED, _refusal(said), turns=2) == ["strict", "loose", "strict"]
    twice = (_refusal(said), _refusal(said))
    assert await _sent(provider, _CLOSED, *twice, turns=2) == ["strict", "loose", "prompt", "strict"]


async def test_configuration_that_cannot_be_used(
    provider: OpenAIFamilyProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking what would be sent, or what is known of a model, never fails."""
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    for setting in ("base_url", "model"):
        await provider.config_updated({"base_url": "", "model": "", setting: "env:NOT_SET_ANYWHERE"})
        assert provider.sends_schema(AgentConfig(model="", output_schema=_CLOSED))
        assert await provider.model_info(AgentConfig(model="")) == ModelInfo()
