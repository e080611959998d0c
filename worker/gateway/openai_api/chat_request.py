"""A Chat Completions request as it stands on the wire. What is not listed is not looked at.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.gateway.openai_api.parameters import Schema


class TextContent(Struct, frozen=True, tag="text"):
    """A piece of text."""

    text: str


class RefusalContent(Struct, frozen=True, tag="refusal"):
    """How an assistant declined to answer."""

    refusal: str


class ImageAddress(Struct, frozen=True):
    """Where a picture is: an address, or all of it as one."""

    url: str
    detail: str | None = None


class ImageContent(Struct, frozen=True, tag="image_url"):
    """A picture."""

    image_url: ImageAddress


class CalledFunction(Struct, frozen=True):
    """What an assistant called."""

    name: str
    arguments: str = "{}"


class FunctionCall(Struct, frozen=True, tag="function"):
    """One call."""

    id: str
    function: CalledFunction


class SystemMessage(Struct, frozen=True, tag_field="role", tag="system"):
    """What the model shall be."""

    content: str | list[TextContent]


class DeveloperMessage(Struct, frozen=True, tag_field="role", tag="developer"):
    """The same, by its newer name."""

    content: str | list[TextContent]


class UserMessage(Struct, frozen=True, tag_field="role", tag="user"):
    """What the user says and shows."""

    content: str | list[TextContent | ImageContent]


class AssistantMessage(Struct, frozen=True, tag_field="role", tag="assistant"):
    """What the model said before."""

    content: str | list[TextContent | RefusalContent] | None = None
    tool_calls: list[FunctionCall] | None = None
    refusal: str | None = None


class ToolMessage(Struct, frozen=True, tag_field="role", tag="tool"):
    """What a tool answered."""

    tool_call_id: str
    content: str | list[TextContent]


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Struct, frozen=True):
    """A function of the client's."""

    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class FunctionTool(Struct, frozen=True):
    """A tool of the client's."""

    type: Literal["function"]
    function: Function


class StreamOptions(Struct, frozen=True):
    """What a stream has beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ResponseFormat(Struct, frozen=True):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class ChatRequest(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | JsonObject | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    modalities: list[str] | None = None
    audio: JsonObject | None = None
    functions: list[JsonObject] | None = None
    function_call: str | JsonObject | None = None
    web_search_options: JsonObject | None = None
    moderation: JsonObject | None = None
