"""From the neutral conversation to the body of a request to OpenAI's Responses API. Pure.

Source: https://platform.openai.com/docs/api-reference/responses/create, and the guides on reasoning and function calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from providers.extra_body import add_extra
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    TurnRequest,
)
from providers.openai_request import image_address
from providers.openai_responses_dialect import ResponsesDialect
from providers.openai_responses_items import carried_by, reasoning_item, stored_turn
from providers.openai_schema import sent_schema
from providers.structured import with_schema_in_prompt
from providers.thinking_effort import effort_of
from queue_backends.messages import JsonObject

_MIN_OUTPUT_TOKENS = 16
"""The vendor refuses a lower limit."""


def request_body(request: TurnRequest, dialect: ResponsesDialect, provider: str) -> bytes:
    """The body of `POST /responses` for one streamed turn."""
    config = request.config
    schema = sent_schema(config.output_schema, dialect)
    messages = (with_schema_in_prompt(request) if schema is None else request).messages
    stores = stores_responses(config)
    body: JsonObject = {"model": config.model, "stream": True, "store": stores}
    if stores and dialect.stored:
        response_id, known = stored_turn(messages, provider)
        if response_id:
            body["previous_response_id"] = response_id
            messages = messages[known:]
    body["input"] = input_items(messages, dialect, provider)
    body["max_output_tokens"] = max(config.max_tokens, _MIN_OUTPUT_TOKENS)
    if dialect.encrypted_reasoning and may_reason(config.model):
        body["include"] = ["reasoning.encrypted_content"]
    if request.tools and dialect.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = config.tool_choice.value
    _add_settings(body, config, dialect)
    if schema is not None:
        body["text"] = {"format": {"type": "json_schema", **schema}}
    add_extra(body, config.options.get("extra_body", {}))
    return msgspec.json.encode(body)


def completion_body(
    config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int, dialect: ResponsesDialect
) -> bytes:
    """The body of a plain request without tools, answered in one piece."""
    body: JsonObject = {"model": config.model, "input": prompt, "store": False}
    if max_tokens > 0:
        body["max_output_tokens"] = max(max_tokens, _MIN_OUTPUT_TOKENS)
    plain = msgspec.structs.replace(config, system_prompt=system_prompt, thinking=None)
    _add_settings(body, plain, dialect)
    return msgspec.json.encode(body)


def count_body(config: AgentConfig, messages: Sequence[Message], provider: str) -> bytes:
    """The body of `POST /responses/input_tokens`."""
    body: JsonObject = {"model": config.model, "input": input_items(messages, ResponsesDialect(), provider)}
    if config.system_prompt.strip():
        body["instructions"] = config.system_prompt
    return msgspec.json.encode(body)


def stores_responses(config: AgentConfig) -> bool:
    """Whether the vendor shall keep the responses (`options.store`), so that a turn goes on from the one before."""
    return config.options.get("store") is True


def may_reason(model: str) -> bool:
    """Whether a model may have reasoning to carry: all but the vendor's older families, which refuse to be asked."""
    return not model.startswith(("gpt-4", "gpt-3.5", "chatgpt-"))


def _add_settings(body: JsonObject, config: AgentConfig, dialect: ResponsesDialect) -> None:
    if config.system_prompt.strip():
        body["instructions"] = config.system_prompt
    if config.temperature is not None and dialect.sampling:
        body["temperature"] = config.temperature
    if config.top_p is not None and dialect.sampling:
        body["top_p"] = config.top_p
    if effort := effort_of(config.thinking):
        body["reasoning"] = {"effort": effort}
        if dialect.summaries:
            body["reasoning"]["summary"] = config.options.get("reasoning_summary", "auto")


def _tool(tool: ToolSpec) -> JsonObject:
    # Strict is the default here, and refuses any schema with an optional property.
    parameters = {"type": "object"} | tool.input_schema
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        "strict": False,
    }


def input_items(messages: Iterable[Message], dialect: ResponsesDialect, provider: str) -> list[JsonObject]:
    """The conversation as the vendor's items: one of our messages may become several."""
    items: list[JsonObject] = []
    for message in messages:
        if message.role is Role.ASSISTANT:
            items.extend(_Assistant(provider if dialect.carried else "").items(message))
        else:
            items.extend(_user(message))
    return items


class _Assistant:
    """Gives the parts of one assistant message the form in which its provider sent them."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._waiting: list[JsonObject] = []
        """Skeletons of items whose parts are still to come."""

    def items(self, message: Message) -> Iterable[JsonObject]:
        for part in message.parts:
            yield from self._part(part)
        yield from self._foreign(())

    def _part(self, part: Part) -> Iterable[JsonObject]:
        match part:
            case ThinkingPart():
                yield from self._thinking(part)
            case TextPart() if part.text:
                yield from self._foreign(("message",))
                yield _said(part.text, self._taken("message"))
            case ToolCall():
                yield from self._foreign(("function_call",))
                yield _call(part, self._taken("function_call"))

    def _thinking(self, part: ThinkingPart) -> Iterable[JsonObject]:
        carried = carried_by(part, self._provider) if self._provider else None
        if carried is None:
            return
        yield from self._foreign(())
        if item := reasoning_item(part):
            yield item
        self._waiting = list(carried.items)

    def _foreign(self, expected: tuple[str, ...]) -> Iterable[JsonObject]:
        """The carried items that come before the next expected one and that no part of ours stands for."""
        while self._waiting and self._waiting[0].get("type") not in expected:
            item = self._waiting.pop(0)
            if item.get("type") not in ("message", "function_call"):
                yield item

    def _taken(self, kind: str) -> JsonObject:
        if self._waiting and self._waiting[0].get("type") == kind:
            return self._waiting.pop(0)
        return {}


def _said(text: str, known: JsonObject) -> JsonObject:
    # In the short form, with the text as content, the vendor takes it too, llama.cpp does not.
    content = {"type": "output_text", "text": text, "annotations": []}
    message: JsonObject = {"type": "message", "role": "assistant", "content": [content]}
    if item_id := known.get("id"):
        message |= {"id": item_id, "status": "completed"}
    if phase := known.get("phase"):
        message["phase"] = phase
    return message


def _call(call: ToolCall, known: JsonObject) -> JsonObject:
    named = {"call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}
    return {"type": "function_call", **named, **{key: known[key] for key in ("id", "namespace") if known.get(key)}}


def _user(message: Message) -> Iterable[JsonObject]:
    content: list[JsonObject] = []
    for part in message.parts:
        match part:
            case ToolOutcome():
                yield {"type": "function_call_output", "call_id": part.call_id, "output": _output(part)}
            case TextPart() if part.text:
                content.append({"type": "input_text", "text": part.text})
            case ImagePart():
                content.append(_image(part))
    if not content:
        return
    plain = all(item["type"] == "input_text" for item in content)
    yield {"role": "user", "content": "".join(item["text"] for item in content) if plain else content}


def _output(outcome: ToolOutcome) -> str | list[JsonObject]:
    if not outcome.images:
        return outcome.content
    text = [{"type": "input_text", "text": outcome.content}] if outcome.content else []
    return [*text, *map(_image, outcome.images)]


def _image(image: ImagePart) -> JsonObject:
    return {"type": "input_image", "image_url": image_address(image), "detail": "auto"}
