"""Output schemas in the part of JSON Schema that Anthropic takes, and where the prompt has to ask instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.anthropic import AnthropicProvider
from providers.anthropic_schema import native_schema, takes_schemas
from providers.messages import AgentConfig, Message, Thinking, TurnRequest
from providers.replay_server import ReplayServer, json_error

_CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_objects_are_closed_at_every_depth() -> None:
    """As the API demands; those that say nothing of further properties lose none that their author thought of."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"places": {"type": "array", "items": {"anyOf": [_CITY, {"$ref": "#/$defs/sea"}]}}},
        "$defs": {"sea": {"type": "object", "properties": {"deep": {"type": "boolean"}}}},
    }
    closed = {**_CITY, "additionalProperties": False}
    assert native_schema(schema) == {
        "type": "object",
        "properties": {"places": {"type": "array", "items": {"anyOf": [closed, {"$ref": "#/$defs/sea"}]}}},
        "$defs": {
            "sea": {"type": "object", "properties": {"deep": {"type": "boolean"}}, "additionalProperties": False}
        },
        "additionalProperties": False,
    }


def test_limits_become_a_description() -> None:
    """What the API refuses is told to the model in words; what it knows is left as it is."""
    age = {"type": "integer", "minimum": 0, "maximum": 150, "description": "In years."}
    day = {"type": "string", "format": "date", "pattern": "^2"}
    tags = {"type": "array", "items": {"enum": ["a", None, 1]}, "minItems": 1, "maxItems": 3}
    schema = {"type": "object", "properties": {"age": age, "day": day, "tags": tags}}
    built = native_schema(schema)
    assert built is not None
    assert built["properties"] == {
        "age": {"type": "integer", "description": 'In years.\n{"minimum":0,"maximum":150}'},
        "day": {"type": "string", "format": "date", "description": '{"pattern":"^2"}'},
        "tags": {"type": "array", "items": {"enum": ["a", None, 1]}, "minItems": 1, "description": '{"maxItems":3}'},
    }


@pytest.mark.parametrize(
    "schema",
    [
        {**_CITY, "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "object"},
        {"type": ["string", "null"]},
        {"type": "array", "items": True},
        {"properties": {"any": {}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "patternProperties": {"^x": {"type": "string"}}},
    ],
)
def test_what_cannot_be_said(schema: dict[str, Any]) -> None:
    """Open objects, mappings, lists of types and anything at all: the prompt asks."""
    assert native_schema(schema) is None
    config = AgentConfig(model="claude-sonnet-4-5", output_schema=schema)
    assert not AnthropicProvider().sends_schema(config)


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("claude-3-7-sonnet-latest", False),
        ("claude-3-haiku-20240307", False),
        ("claude-2.1", False),
        ("claude-sonnet-4-0", False),
        ("claude-sonnet-4-20250514", False),
        ("claude-opus-4-20250514", False),
        ("claude-opus-4-1", True),
        ("claude-opus-4-1-20250805", True),
        ("claude-sonnet-4-5", True),
        ("claude-haiku-4-5-20251001", True),
        ("claude-opus-5-5", True),
        ("a-compatible-servers-own", True),
    ],
)
def test_models_from_before(model: str, takes: bool) -> None:
    """They refuse a schema; whatever is newer has it."""
    assert takes_schemas(model) is takes
    assert AnthropicProvider().sends_schema(AgentConfig(model=model, output_schema=_CITY)) is takes


async def test_schema_beside_an_effort() -> None:
    """Both are parts of one object; an agent may prefer to have the prompt ask."""
    config = AgentConfig(model="claude-sonnet-4-5", output_schema=_CITY, thinking=Thinking(effort="low"), max_retries=0)
    wanted = {"type": "json_schema", "schema": {**_CITY, "additionalProperties": False}}
    assert (await _sent(config))["output_config"] == {"effort": "low", "format": wanted}
    unlike = AgentConfig(model="claude-sonnet-4-5", output_schema=_CITY, options={"native_schema": False})
    assert "output_config" not in await _sent(unlike)
    assert not AnthropicProvider().sends_schema(unlike)


async def _sent(config: AgentConfig) -> dict[str, Any]:
    provider = AnthropicProvider()
    async with ReplayServer([json_error(404, b"{}")]) as server:
        await provider.config_updated({"base_url": server.url})
        with pytest.raises(Exception, match="404"):
            await anext(provider.stream_turn(TurnRequest(config=config, messages=(Message.user("Hi"),))))
        await provider.aclose()
    body: dict[str, Any] = json.loads(server.requests[0].body)
    return body
