"""From the neutral conversation to the messages of a Bedrock Converse request. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from providers.call_arguments import arguments_object
from providers.errors import InvalidRequest
from providers.messages import (
    ImagePart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolOutcome,
)
from providers.part_order import outcomes_first
from queue_backends.messages import JsonObject

PROVIDER = "bedrock"

_FORMATS = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "gif": "gif", "webp": "webp"}
_TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")


def converse_messages(messages: Iterable[Message]) -> list[JsonObject]:
    """One message per side in turn: the API refuses two of the same side after each other."""
    built: list[JsonObject] = []
    for message in messages:
        blocks = [block for part in outcomes_first(message) if (block := _block(part)) is not None]
        if not blocks:
            continue
        if built and built[-1]["role"] == message.role.value:
            built[-1]["content"].extend(blocks)
        else:
            built.append({"role": message.role.value, "content": blocks})
    return built


def _block(part: Part) -> JsonObject | None:
    match part:
        case TextPart():
            return {"text": part.text} if part.text.strip() else None  # blank text is refused
        case ImagePart():
            return _image(part)
        case ThinkingPart():
            return _reasoning(part)
        case ToolCall():
            called = {"toolUseId": _tool_use_id(part.id), "name": part.name, "input": arguments_object(part.arguments)}
            return {"toolUse": called}
        case ToolOutcome():
            return _tool_result(part)


def _reasoning(part: ThinkingPart) -> JsonObject | None:
    if part.provider != PROVIDER:
        return None
    if part.redacted:
        return {"reasoningContent": {"redactedContent": part.redacted}}
    if not part.signature:  # only signed reasoning is taken back
        return None
    return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}


def _tool_result(part: ToolOutcome) -> JsonObject:
    content: list[JsonObject] = [{"text": part.content}] if part.content.strip() else []
    content.extend(map(_image, part.images))
    result: JsonObject = {"toolUseId": _tool_use_id(part.call_id), "content": content or [{"text": "(no output)"}]}
    if part.is_error:
        result["status"] = "error"
    return {"toolResult": result}


def _image(part: ImagePart) -> JsonObject:
    media_type, data = part.media_type, part.data
    if not data and part.url.startswith("data:"):
        media_type, _, data = part.url.removeprefix("data:").partition(";base64,")
    source: JsonObject = {"bytes": data}
    if not data and part.url.startswith("s3://"):
        source = {"s3Location": {"uri": part.url}}
        media_type = media_type or part.url.rpartition(".")[2]
    elif not data:
        raise InvalidRequest(
            f"{PROVIDER} takes pictures as data or as s3:// address only: send this one as base64 `data`",
            provider=PROVIDER,
        )
    kind = _FORMATS.get(media_type.rpartition("/")[2].lower())
    if kind is None:
        raise InvalidRequest(
            f"{PROVIDER} takes no pictures of type {media_type!r}: use image/png, image/jpeg, image/gif or image/webp",
            provider=PROVIDER,
        )
    return {"image": {"format": kind, "source": source}}


def _tool_use_id(call_id: str) -> str:
    """Another vendor's id may be longer, or have other characters, than this API takes."""
    if _TOOL_USE_ID.fullmatch(call_id):
        return call_id
    return "call_" + hashlib.blake2s(call_id.encode(), digest_size=16).hexdigest()
