"""From what an MCP server answers to a tool's result. Knows the SDK's types by their attributes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from providers.messages import ImagePart
from queue_backends.messages import encode_json
from worker.tools.interfaces import ToolResult
from worker.tools.redaction import redact


def result_of(answer: Any) -> ToolResult:
    """A `CallToolResult`: texts joined by line breaks, pictures apart, everything else as a short note."""
    texts: list[str] = []
    images: list[ImagePart] = []
    for block in answer.content:
        text, image = _block(block)
        if text:
            texts.append(text)
        if image is not None:
            images.append(image)
    return ToolResult(
        text="\n".join(texts),
        images=tuple(images),
        structured=answer.structured_content,
        is_error=bool(answer.is_error),
    )


def without_secrets(result: ToolResult, secrets: Sequence[str]) -> ToolResult:
    """The result with each of the secrets replaced, wherever it stands."""
    if not secrets:
        return result
    structured = result.structured
    if structured is not None:
        structured = msgspec.json.decode(redact(encode_json(structured).decode(), secrets))
    return msgspec.structs.replace(result, text=redact(result.text, secrets), structured=structured)


def _block(block: Any) -> tuple[str, ImagePart | None]:
    match block.type:
        case "text":
            return block.text, None
        case "image":
            return "", ImagePart(media_type=block.mime_type, data=block.data)
        case "audio":
            return f"[audio, {block.mime_type}: not shown]", None
        case "resource":
            return _resource(block.resource)
        case "resource_link":
            return _link(block), None
        case other:
            return f"[{other}: not shown]", None


def _resource(resource: Any) -> tuple[str, ImagePart | None]:
    text: str | None = getattr(resource, "text", None)
    if text is not None:
        return f"[resource {resource.uri}]\n{text}", None
    media_type: str = resource.mime_type or ""
    if media_type.startswith("image/"):
        return f"[resource {resource.uri}]", ImagePart(media_type=media_type, data=resource.blob)
    return f"[resource {resource.uri}, {media_type or 'binary'}: not shown]", None


def _link(link: Any) -> str:
    text = f"[resource link {link.uri}: {link.title or link.name}]"
    return f"{text} {link.description}" if link.description else text
