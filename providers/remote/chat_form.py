"""The conversation as the JSON texts of a provider's `messages`, `tools` and `tool_calls`: OpenAI's chat form. Pure.

The protocol's documents say "JSON array" only; this is the form that its element names suggest. Between two Shoal
processes messages also carry what that form has no place for (`full`): reasoning with its signatures, and failed tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from providers.errors import InvalidRequest
from providers.messages import (
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolOutcome,
    ToolSpec,
)
from queue_backends.messages import JsonObject

THINKING = "thinking"
_INVALID = "invalid {name} JSON: {error}"


def messages_json(system_prompt: str, conversation: Sequence[Message], *, full: bool) -> str:
    """The conversation as the text of `messages`."""
    built: list[JsonObject] = []
    if system_prompt.strip():
        built.append({"role": "system", "content": system_prompt})
    for message in conversation:
        built.extend(_assistant(message, full) if message.role is Role.ASSISTANT else _user(message, full))
    return msgspec.json.encode(built).decode()


def _assistant(message: Message, full: bool) -> Iterable[JsonObject]:
    reasoning = [part for part in message.parts if isinstance(part, ThinkingPart)] if full else []
    if not (message.text or message.tool_calls or reasoning):
        return
    built: JsonObject = {"role": "assistant", "content": message.text}
    if message.tool_calls:
        built["tool_calls"] = [_call(call) for call in message.tool_calls]
    if reasoning:
        built[THINKING] = msgspec.to_builtins(reasoning)
    yield built


def _user(message: Message, full: bool) -> Iterable[JsonObject]:
    pictures: list[ImagePart] = []
    for part in message.parts:
        if isinstance(part, ToolOutcome):
            outcome: JsonObject = {"role": "tool", "tool_call_id": part.call_id, "content": part.content}
            if full:
                outcome["name"] = part.name
                outcome["is_error"] = part.is_error
            yield outcome
            pictures.extend(part.images)  # a tool's message has text only: its pictures follow as the user's
    content = [_image(picture) for picture in pictures]
    for part in message.parts:
        if isinstance(part, TextPart):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            content.append(_image(part))
    if content:
        is_plain = all(item["type"] == "text" for item in content)
        yield {"role": "user", "content": "".join(item["text"] for item in content) if is_plain else content}


def _image(image: ImagePart) -> JsonObject:
    return {"type": "image_url", "image_url": {"url": image.url or f"data:{image.media_type};base64,{image.data}"}}


def _call(call: ToolCall) -> JsonObject:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def calls_json(calls: Sequence[ToolCall]) -> str:
    """Tool calls as the text of `tool_calls`."""
    return msgspec.json.encode([_call(call) for call in calls]).decode()


def tools_json(tools: Sequence[ToolSpec]) -> str:
    """Tools as the text of `tools`."""
    described = [
        {"name": tool.name, "description": tool.description, "parameters": tool.input_schema} for tool in tools
    ]
    return msgspec.json.encode([{"type": "function", "function": function} for function in described]).decode()


def read_tools(text: str) -> tuple[ToolSpec, ...]:
    """The tools of a `tools` text. Raises `InvalidRequest`."""
    return tuple(_tool(item) for item in _array("tools", text))


def _tool(item: Any) -> ToolSpec:
    function = item.get("function", item) if isinstance(item, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidRequest(_INVALID.format(name="tools", error="each needs a function with a name"))
    schema = function.get("parameters")
    return ToolSpec(
        name=function["name"],
        description=str(function.get("description") or ""),
        input_schema=schema if isinstance(schema, dict) else {"type": "object"},
    )


def read_calls(text: str) -> tuple[ToolCall, ...]:
    """The calls of a `tool_calls` text. Raises `InvalidRequest`."""
    return tuple(_read_call(number, item) for number, item in enumerate(_array("tool_calls", text)))


def _read_call(number: int, item: Any) -> ToolCall:
    function = item.get("function", item) if isinstance(item, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest(_INVALID.format(name="tool_calls", error="each needs a function with a name"))
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return ToolCall(id=str(item.get("id") or f"call_{number}"), name=function["name"], arguments=arguments or "{}")


def read_messages(text: str) -> tuple[str, tuple[Message, ...]]:
    """The system prompt and the conversation of a `messages` text. Raises `InvalidRequest`."""
    system: list[str] = []
    read: list[Message] = []
    tool_names: dict[str, str] = {}
    for number, item in enumerate(_array("messages", text)):
        role = item.get("role") if isinstance(item, dict) else None
        if role in {"system", "developer"}:
            system.append(_text(item.get("content")))
        elif role == "assistant":
            parts = _assistant_parts(item)
            tool_names.update({part.id: part.name for part in parts if isinstance(part, ToolCall)})
            read.append(Message(role=Role.ASSISTANT, parts=parts))
        elif role == "tool":
            _add_outcome(read, _outcome(item, tool_names))
        elif role == "user":
            read.append(Message(role=Role.USER, parts=_parts(item.get("content"))))
        else:
            problem = f"message {number} has the role {role!r}: use system, user, assistant or tool"
            raise InvalidRequest(_INVALID.format(name="messages", error=problem))
    return "\n\n".join(text for text in system if text), tuple(read)


def _assistant_parts(item: JsonObject) -> tuple[Part, ...]:
    parts: list[Part] = []
    if item.get(THINKING):
        try:
            parts += msgspec.convert(item[THINKING], list[ThinkingPart])
        except msgspec.ValidationError as error:
            raise InvalidRequest(_INVALID.format(name="messages", error=error)) from error
    if text := _text(item.get("content")):
        parts.append(TextPart(text=text))
    return (*parts, *(_read_call(number, call) for number, call in enumerate(item.get("tool_calls") or ())))


def _outcome(item: JsonObject, names: dict[str, str]) -> ToolOutcome:
    call_id = str(item.get("tool_call_id") or "")
    return ToolOutcome(
        call_id=call_id,
        name=str(item.get("name") or names.get(call_id, "")),
        content=_text(item.get("content")),
        is_error=item.get("is_error") is True,
    )


def _add_outcome(read: list[Message], outcome: ToolOutcome) -> None:
    """Outcomes of one turn belong into one message."""
    last = read[-1] if read else None
    if last is not None and last.role is Role.USER and all(isinstance(part, ToolOutcome) for part in last.parts):
        read[-1] = Message(role=Role.USER, parts=(*last.parts, outcome))
    else:
        read.append(Message(role=Role.USER, parts=(outcome,)))


def _parts(content: Any) -> tuple[Part, ...]:
    if not isinstance(content, list):
        return (TextPart(text=_text(content)),)
    return tuple(_part(item) for item in content)


def _part(item: Any) -> Part:
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "text":
        return TextPart(text=str(item.get("text") or ""))
    if kind == "image_url":
        address = item.get("image_url")
        url = str(address.get("url") or "") if isinstance(address, dict) else str(address or "")
        media_type, separator, data = url.removeprefix("data:").partition(";base64,")
        is_inline = url.startswith("data:") and separator
        return ImagePart(media_type=media_type, data=data) if is_inline else ImagePart(url=url)
    raise InvalidRequest(_INVALID.format(name="messages", error=f"a part has the type {kind!r}: use text or image_url"))


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(item.get("text") or "") for item in content if isinstance(item, dict))
    return content if isinstance(content, str) else ""


def _array(name: str, text: str) -> list[Any]:
    try:
        return msgspec.json.decode(text, type=list[Any])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidRequest(_INVALID.format(name=name, error=error)) from error
