"""The items of a Responses request's input, and the conversation that they are. Pure.

Source: https://platform.openai.com/docs/api-reference/responses/input-items
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from providers import ImagePart, Message, Role, TextPart, ToolCall, ToolOutcome
from providers.messages import Part
from queue_backends.messages import JsonObject
from worker.gateway.ingress.images import image_of_url
from worker.gateway.openai_api.parameters import refused


class InputText(Struct, frozen=True, tag="input_text"):
    """A piece of text."""

    text: str


class OutputText(Struct, frozen=True, tag="output_text"):
    """A piece of an earlier answer."""

    text: str


class Refusal(Struct, frozen=True, tag="refusal"):
    """How an earlier answer was declined."""

    refusal: str


class InputImage(Struct, frozen=True, tag="input_image"):
    """A picture."""

    image_url: str
    detail: str | None = None


Content = InputText | OutputText | Refusal | InputImage


class MessageItem(Struct, frozen=True):
    """Somebody said something."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Content]


class FunctionCallItem(Struct, frozen=True):
    """The model has called a function of the client's."""

    call_id: str
    name: str
    arguments: str = "{}"


class FunctionOutputItem(Struct, frozen=True):
    """What that function answered."""

    call_id: str
    output: str | list[InputText | InputImage]


Item = MessageItem | FunctionCallItem | FunctionOutputItem

_KINDS: Mapping[str, type[Item]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionOutputItem,
}
_SKIPPED = frozenset({"reasoning"})
"""What the model thought in earlier runs is with those runs, and not what a client sends back."""


class Input(Struct, frozen=True, kw_only=True):
    """What an input says."""

    messages: tuple[Message, ...]
    instructions: str = ""
    """From messages of the system and the developer, wherever they stand."""


def items_of(given: str | Sequence[JsonObject] | None) -> list[JsonObject]:
    """The items as they are kept: a plain text is a message of the user's."""
    if given is None:
        return []
    listed: Sequence[JsonObject] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return [_normal(item) for item in listed]


def _normal(item: JsonObject) -> JsonObject:
    kind = item.get("type", "message")
    content = item.get("content")
    if kind == "message" and isinstance(content, str):
        name = "output_text" if item.get("role") == "assistant" else "input_text"
        return {"type": kind, **item, "content": [{"type": name, "text": content}]}
    return {"type": kind, **item}


def input_of(items: Sequence[JsonObject], open_calls: Mapping[str, str]) -> Input:
    """The conversation of some items. `open_calls`: ids and names of the calls that the conversation before ended with.

    Raises `Problem` 400 for what is none, and for outputs that belong to no call or are missing.
    """
    built: list[Message] = []
    instructions: list[str] = []
    waiting = dict(open_calls)
    for index, raw in enumerate(items):
        where = f"input[{index}]"
        item = _read(raw, where)
        match item:
            case None:
                continue
            case MessageItem(role="system" | "developer"):
                instructions.append("".join(part.text for part in _parts(item, where) if isinstance(part, TextPart)))
            case MessageItem(role=role):
                if role == "user":
                    _check_answered(waiting, where)
                _add(built, Role(role), tuple(_parts(item, where)), joins=role == "assistant")
            case FunctionCallItem():
                waiting[item.call_id] = item.name
                made = ToolCall(id=item.call_id, name=item.name, arguments=item.arguments or "{}")
                _add(built, Role.ASSISTANT, (made,), joins=True)
            case FunctionOutputItem():
                _add(built, Role.USER, (_outcome(item, waiting, where),), joins=_ends_with_outcomes(built))
    _check_answered(waiting, "input")
    return Input(messages=tuple(built), instructions="\n\n".join(filter(None, instructions)))


def _read(raw: JsonObject, where: str) -> Item | None:
    kind = raw.get("type", "message")
    if isinstance(kind, str) and kind in _SKIPPED:
        return None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise refused(where, f"items of type {str(kind)[:50]!r} are not supported: use {', '.join(_KINDS)}")
    try:
        found: Item = msgspec.convert(raw, _KINDS[kind])
    except msgspec.ValidationError as error:
        raise refused(where, str(error), code="invalid_value") from error
    return found


def _parts(item: MessageItem, where: str) -> Iterator[Part]:
    if isinstance(item.content, str):
        if item.content:
            yield TextPart(text=item.content)
        return
    for index, content in enumerate(item.content):
        match content:
            case InputImage(image_url=url):
                yield image_of_url(url, f"{where}.content[{index}].image_url")
            case Refusal(refusal=text) | InputText(text=text) | OutputText(text=text):
                if text:
                    yield TextPart(text=text)


def _outcome(item: FunctionOutputItem, waiting: dict[str, str], where: str) -> ToolOutcome:
    name = waiting.pop(item.call_id, None)
    if name is None:
        raise refused(
            where,
            f"no tool call found for function call output with call_id {item.call_id[:70]!r}",
            code="invalid_value",
        )
    if isinstance(item.output, str):
        return ToolOutcome(call_id=item.call_id, name=name, content=item.output)
    texts = [part.text for part in item.output if isinstance(part, InputText)]
    images: list[ImagePart] = [
        image_of_url(part.image_url, f"{where}.output") for part in item.output if isinstance(part, InputImage)
    ]
    return ToolOutcome(call_id=item.call_id, name=name, content="".join(texts), images=tuple(images))


def _add(built: list[Message], role: Role, parts: tuple[Any, ...], *, joins: bool) -> None:
    if not parts:
        return
    if joins and built and built[-1].role is role:
        built[-1] = Message(role=role, parts=(*built[-1].parts, *parts))
    else:
        built.append(Message(role=role, parts=parts))


def _ends_with_outcomes(built: Sequence[Message]) -> bool:
    return bool(built) and all(isinstance(part, ToolOutcome) for part in built[-1].parts)


def _check_answered(waiting: Mapping[str, str], where: str) -> None:
    if waiting:
        raise refused(where, f"no tool output found for function call {', '.join(waiting)[:300]}", code="invalid_value")
