"""A Messages request as it stands on the wire. What is not listed is not looked at.

Source: https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from queue_backends.messages import JsonObject


class TextBlock(Struct, frozen=True, tag="text"):
    """A piece of text."""

    text: str


class Base64Source(Struct, frozen=True, tag="base64"):
    """All of a picture."""

    media_type: str
    data: str


class UrlSource(Struct, frozen=True, tag="url"):
    """Where a picture is."""

    url: str


class ImageBlock(Struct, frozen=True, tag="image"):
    """A picture."""

    source: Base64Source | UrlSource


class ToolUseBlock(Struct, frozen=True, tag="tool_use"):
    """The model has called a tool of the client's."""

    id: str
    name: str
    input: JsonObject = {}


class ToolResultBlock(Struct, frozen=True, tag="tool_result"):
    """What that tool answered."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock] | None = None
    is_error: bool | None = None


class ThinkingBlock(Struct, frozen=True, tag="thinking"):
    """What the model thought before. It is with the run that thought it, so that it is not looked at."""

    thinking: str = ""
    signature: str = ""


class RedactedThinkingBlock(Struct, frozen=True, tag="redacted_thinking"):
    """The same, not shown."""

    data: str = ""


Block = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class MessageParam(Struct, frozen=True):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ToolParam(Struct, frozen=True):
    """A tool of the client's."""

    name: str
    input_schema: JsonObject = {}
    description: str | None = None
    type: str | None = None


class ToolChoiceParam(Struct, frozen=True):
    """Whether, and which, tool has to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class ThinkingParam(Struct, frozen=True):
    """How much the model shall reason, and whether that is shown."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(Struct, frozen=True):
    """What the answer has to be."""

    type: Literal["json_schema"]
    schema: JsonObject


class OutputConfig(Struct, frozen=True):
    """How the answer is made."""

    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(Struct, frozen=True):
    """On whose behalf."""

    user_id: str | None = None


class CountRequest(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/messages/count_tokens`."""

    model: str
    messages: list[MessageParam]
    system: str | list[TextBlock] | None = None
    tools: list[ToolParam] | None = None
    tool_choice: ToolChoiceParam | None = None
    thinking: ThinkingParam | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountRequest, frozen=True, kw_only=True):
    """The body of `POST /v1/messages`."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None
    container: str | JsonObject | None = None
    thread: JsonObject | None = None
    mcp_servers: list[JsonObject] = msgspec.field(default_factory=list)
