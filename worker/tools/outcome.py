"""From what a tool answered to what the model reads: bounded, and always encodable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from providers.messages import ToolCall, ToolOutcome
from queue_backends.messages import encode_json
from worker.tools.interfaces import ToolResult

MAX_IMAGES = 10
MAX_IMAGE_CHARS = 5 * 1024 * 1024
"""Of base64. Vendors refuse a whole request for a bigger picture."""


def failed(call: ToolCall, reason: str) -> ToolOutcome:
    """The outcome of a call that came to nothing."""
    return ToolOutcome(call_id=call.id, name=call.name, content=_encodable(reason), is_error=True)


Keep = Callable[[str], Awaitable[str]]
"""Stores a text that is too long to be shown, and returns a note of where it is, or why it is nowhere."""

Digest = Callable[[ToolCall, str], Awaitable[str | None]]
"""What the model reads instead of a text; None: the text itself."""


async def outcome_of(
    call: ToolCall, result: ToolResult, max_chars: int, keep: Keep | None = None, digest: Digest | None = None
) -> ToolOutcome:
    """The outcome of a call: of a text longer than `max_chars` characters, the beginning, with a note that says so and
    where `keep` has put all of it; or its `digest`, if that has one."""
    structured, structured_text = _structured(result, max_chars)
    images = tuple(image for image in result.images if len(image.data) <= MAX_IMAGE_CHARS)[:MAX_IMAGES]
    text = _encodable(result.text or structured_text)
    if digest is not None and not result.is_error and (short := await digest(call, text)) is not None:
        text, structured = short, None
    if len(text) > max_chars:
        note = f"output cut: {len(text)} characters, the first {max_chars} are shown"
        if keep is not None:
            note += f"; {await keep(text)}"
        text = f"{text[:max_chars]}\n[{note}]"
    if left_out := len(result.images) - len(images):
        text += f"\n[{left_out} image(s) left out: too large or too many]"
    return ToolOutcome(
        call_id=call.id,
        name=call.name,
        content=text,
        is_error=result.is_error,
        images=images,
        structured=structured,
    )


def _structured(result: ToolResult, max_chars: int) -> tuple[object, str]:
    if result.structured is None:
        return None, ""
    try:
        text = encode_json(result.structured).decode()
    except (TypeError, ValueError, RecursionError):
        return None, str(result.structured)
    # A value cannot be cut as text can; a huge one would be stored and sent with every later turn.
    return (result.structured if len(text) <= max_chars else None), text


def _encodable(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8, and would fail far from here."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")
