"""A Responses request as it stands on the wire. What is not listed is not looked at.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from queue_backends.messages import JsonObject


class FunctionTool(Struct, frozen=True):
    """A function of the client's."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class TextFormat(Struct, frozen=True):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: JsonObject | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(Struct, frozen=True):
    """How the answer is written."""

    format: TextFormat = TextFormat()
    verbosity: str | None = None


class Reasoning(Struct, frozen=True):
    """How much the model shall reason."""

    effort: str | None = None
    summary: str | None = None


class ResponseRequest(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/responses`."""

    model: str
    input: str | list[JsonObject] | None = None
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | JsonObject | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    truncation: str | None = None
    conversation: str | JsonObject | None = None
    prompt: JsonObject | None = None
    max_tool_calls: int | None = None
    top_logprobs: int | None = None
    context_management: list[JsonObject] | None = None
    moderation: JsonObject | None = None


class ResponseQuery(Struct, frozen=True, kw_only=True):
    """The query of `GET /v1/responses/{id}`."""

    stream: bool = False
    starting_after: int | None = None


class InputItemsQuery(Struct, frozen=True, kw_only=True):
    """The query of `GET /v1/responses/{id}/input_items`."""

    after: str = ""
    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
