"""How large the record of an exchange may be: stores refuse what is too large, and a task must never fail for it."""

from __future__ import annotations

from msgspec.structs import replace

from providers import ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolOutcome
from providers.messages import Part
from queue_backends.messages import encode_json
from worker.sessions.conversation_log import Exchange

MOST_BYTES = 512 * 1024
"""Of a record. NATS takes messages of a megabyte, and the record goes with others."""
_CUT = "\n(The rest is not kept.)"
_LIMITS = (50_000, 8_000, 1_000)
"""Characters that each part is cut to, one after the other, until all fit."""
_MOST_MESSAGES = 50


def bounded(exchange: Exchange) -> Exchange:
    """The exchange, with long parts cut and images left out if it would be too large as it is."""
    if _fits(exchange):
        return exchange
    for most_chars in _LIMITS:
        cut = replace(
            exchange,
            asked=tuple(_cut(message, most_chars) for message in exchange.asked),
            answered=tuple(_cut(message, most_chars) for message in exchange.answered),
        )
        if _fits(cut):
            return cut
    return replace(cut, asked=cut.asked[-_MOST_MESSAGES:], answered=cut.answered[-_MOST_MESSAGES:])


def _fits(exchange: Exchange) -> bool:
    return len(encode_json(exchange)) <= MOST_BYTES


def _cut(message: Message, most_chars: int) -> Message:
    return replace(message, parts=tuple(_cut_part(part, most_chars) for part in message.parts))


def _cut_part(part: Part, most_chars: int) -> Part:
    match part:
        case ImagePart():
            return TextPart(text="(an image, not kept)")
        case TextPart():
            return replace(part, text=_shortened(part.text, most_chars))
        case ThinkingPart():  # signed reasoning is whole, or worth nothing
            return ThinkingPart(text=_shortened(part.text, most_chars))
        case ToolCall():
            return part if len(part.arguments) <= most_chars else replace(part, arguments="{}")
        case ToolOutcome():
            return replace(part, content=_shortened(part.content, most_chars), images=(), structured=None)


def _shortened(text: str, most_chars: int) -> str:
    return text if len(text) <= most_chars else text[:most_chars] + _CUT
