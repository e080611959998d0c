"""From the neutral conversation to the body of an Anthropic Messages request. Pure.

Source: https://docs.claude.com/en/api/messages and the pages on tool use, extended thinking and prompt caching.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from providers.anthropic_schema import native_schema, takes_schemas
from providers.call_arguments import arguments_object
from providers.extra_body import add_extra
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Part,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolCall,
    ToolChoice,
    ToolOutcome,
    ToolSpec,
    TurnRequest,
)
from providers.part_order import outcomes_first
from queue_backends.messages import JsonObject

PROVIDER = "anthropic"

_MIN_THINKING_TOKENS = 1024

# Writing a cache entry costs a quarter more than plain input and reading it a tenth, so it pays when the same beginning
# is sent a second time. Entries below 1,024 tokens are never made: about 4 characters each.
_MIN_CACHED_CHARS = 4096


def request_body(request: TurnRequest) -> bytes:
    """The body of `POST /v1/messages` for one streamed turn."""
    config = request.config
    body = _body(config, request.messages, request.tools)
    body["stream"] = True
    body["max_tokens"] = _max_tokens(config)
    _add_sampling(body, config)
    _add_thinking(body, config.thinking)
    if (schema := sent_schema(config)) is not None:
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
    if request.tools and config.options.get("cache", True):
        _add_cache_marks(body)
    add_extra(body, config.options.get("extra_body", {}))
    return msgspec.json.encode(body)


def sent_schema(config: AgentConfig) -> JsonObject | None:
    """What the vendor is given of `config.output_schema`; None if the prompt has to ask."""
    if config.output_schema is None or not takes_schemas(config.model) or not config.options.get("native_schema", True):
        return None
    return native_schema(config.output_schema)


def completion_body(config: AgentConfig, messages: Sequence[Message], max_tokens: int) -> bytes:
    """The body of a plain request without tools and thinking, answered in one piece."""
    body = _body(config, messages, ())
    body["max_tokens"] = max_tokens
    if config.temperature is not None:
        body["temperature"] = config.temperature
    return msgspec.json.encode(body)


def count_body(config: AgentConfig, messages: Sequence[Message]) -> bytes:
    """The body of `POST /v1/messages/count_tokens`."""
    return msgspec.json.encode(_body(config, messages, ()))


def _body(config: AgentConfig, messages: Iterable[Message], tools: Sequence[ToolSpec]) -> JsonObject:
    body: JsonObject = {"model": config.model, "messages": _messages(messages)}
    if config.system_prompt.strip():
        body["system"] = [{"type": "text", "text": config.system_prompt}]
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
        body["tool_choice"] = {"type": _TOOL_CHOICE[config.tool_choice]}
    return body


_TOOL_CHOICE = {ToolChoice.AUTO: "auto", ToolChoice.REQUIRED: "any", ToolChoice.NONE: "none"}


def _tool(tool: ToolSpec) -> JsonObject:
    return {"name": tool.name, "description": tool.description, "input_schema": {"type": "object"} | tool.input_schema}


def _messages(messages: Iterable[Message]) -> list[JsonObject]:
    built = []
    for message in messages:
        blocks = [block for part in outcomes_first(message) if (block := _block(part)) is not None]
        if blocks:  # a message without content is refused
            built.append({"role": message.role.value, "content": blocks})
    return built


def _block(part: Part) -> JsonObject | None:
    match part:
        case TextPart():
            # Blank text is refused by the API.
            return {"type": "text", "text": part.text} if part.text.strip() else None
        case ImagePart():
            return _image(part)
        case ThinkingPart():
            return _thinking(part)
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments_object(part.arguments)}
        case ToolOutcome():
            return _tool_result(part)


def _image(part: ImagePart) -> JsonObject:
    if part.url:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}


def _thinking(part: ThinkingPart) -> JsonObject | None:
    if part.provider != PROVIDER:
        return None
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.redacted}
    # Unsigned thinking (a compatible server's, or cut off) is refused.
    return {"type": "thinking", "thinking": part.text, "signature": part.signature} if part.signature else None


def _tool_result(part: ToolOutcome) -> JsonObject:
    result: JsonObject = {"type": "tool_result", "tool_use_id": part.call_id}
    if part.images:
        text = [{"type": "text", "text": part.content}] if part.content.strip() else []
        result["content"] = [*text, *map(_image, part.images)]
    elif part.content:
        result["content"] = part.content
    if part.is_error:
        result["is_error"] = True
    return result


def _add_sampling(body: JsonObject, config: AgentConfig) -> None:
    thinks = config.thinking is not None and bool(config.thinking.budget_tokens or config.thinking.effort)
    # With thinking, the API takes no temperature, and no forced tool.
    if config.temperature is not None and not thinks:
        body["temperature"] = config.temperature
    if config.top_p is not None and (not thinks or config.top_p >= 0.95):
        body["top_p"] = config.top_p
    if thinks and "tool_choice" in body and config.tool_choice is ToolChoice.REQUIRED:
        body["tool_choice"] = {"type": "auto"}
    if config.stop:
        body["stop_sequences"] = list(config.stop)


def _add_thinking(body: JsonObject, thinking: Thinking | None) -> None:
    if thinking is None:
        return
    if thinking.budget_tokens:
        budget = max(thinking.budget_tokens, _MIN_THINKING_TOKENS)
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    elif thinking.effort:
        body["thinking"] = {"type": "adaptive"}
    if thinking.effort:
        body["output_config"] = {"effort": thinking.effort}


def _max_tokens(config: AgentConfig) -> int:
    # Thinking counts as output: `max_tokens` stays what the answer itself may use.
    budget = config.thinking.budget_tokens if config.thinking else None
    return config.max_tokens + max(budget, _MIN_THINKING_TOKENS) if budget else config.max_tokens


def _add_cache_marks(body: JsonObject) -> None:
    """Marks after the fixed beginning (tools, then system) and after the conversation so far.

    Only with tools: their loop sends the same beginning again within seconds, which is what a cache entry is for.
    """
    mark = {"type": "ephemeral"}
    fixed_chars = len(msgspec.json.encode([body["tools"], body.get("system", [])]))
    if fixed_chars >= _MIN_CACHED_CHARS:
        (body["system"] if "system" in body else body["tools"])[-1]["cache_control"] = mark
    if not body["messages"]:
        return
    last = body["messages"][-1]["content"][-1]
    if last["type"] in _MARKABLE and fixed_chars + len(msgspec.json.encode(body["messages"])) >= _MIN_CACHED_CHARS:
        last["cache_control"] = mark


_MARKABLE = frozenset({"text", "image", "tool_result", "tool_use"})
