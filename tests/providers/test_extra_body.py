"""What an agent adds to its requests takes nothing away."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from providers import anthropic_request, bedrock_request, gemini_request, ollama_request, openai_request
from providers import openai_responses_request as responses_request
from providers.messages import AgentConfig, Message, TurnRequest
from providers.openai_responses_dialect import ResponsesDialect
from queue_backends.messages import JsonObject

_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def _turn(extra: JsonObject) -> TurnRequest:
    options = {"extra_body": extra}
    config = AgentConfig(model="m", max_tokens=99, output_schema=_SCHEMA, stop=("END",), options=options)
    return TurnRequest(config=config, messages=(Message.user("Hi"),))


def _bodies(vendor: str, extra: JsonObject) -> Any:
    turn = _turn(extra)
    match vendor:
        case "anthropic":
            body = anthropic_request.request_body(turn)
        case "bedrock":
            body = bedrock_request.request_body(turn, bedrock_request.Dialect())
        case "gemini":
            body = gemini_request.request_body(turn, "gemini")
        case "ollama":
            body = ollama_request.request_body(turn, ollama_request.Serving(num_ctx=4096), ollama_request.Dialect())
        case "openai":
            body = openai_request.request_body(turn, openai_request.OPENAI, "openai")
        case _:
            body = responses_request.request_body(turn, ResponsesDialect(), "openai_responses")
    return msgspec.json.decode(body)


@pytest.mark.parametrize(
    ("vendor", "extra", "kept"),
    [
        ("anthropic", {"output_config": {"effort": "low"}}, "format"),
        ("bedrock", {"inferenceConfig": {"topP": 0.5}}, "maxTokens"),
        ("gemini", {"generationConfig": {"seed": 7}}, "maxOutputTokens"),
        ("ollama", {"options": {"seed": 7}}, "num_ctx"),
        ("openai_responses", {"text": {"verbosity": "low"}}, "format"),
    ],
)
def test_objects_are_joined(vendor: str, extra: JsonObject, kept: str) -> None:
    """A seed or a verbosity leaves limits and schema where they are."""
    ((field, added),) = extra.items()
    body = _bodies(vendor, extra)
    assert added.items() <= body[field].items()
    assert kept in body[field]


@pytest.mark.parametrize("vendor", ["anthropic", "bedrock", "gemini", "ollama", "openai", "openai_responses"])
def test_new_fields_and_lists(vendor: str) -> None:
    """What is new is added, lists come behind ours, anything else is replaced."""
    body = _bodies(vendor, {"model": "other", "things": [1]})
    assert (body["model"], body["things"]) == ("other", [1])
    messages = {"gemini": "contents", "openai_responses": "input"}.get(vendor, "messages")
    assert len(_bodies(vendor, {messages: [{"role": "user"}]})[messages]) == 2
