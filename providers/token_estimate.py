"""How many tokens a conversation is, roughly: for vendors that cannot be asked. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from providers.messages import ImagePart, Message, Part, TextPart, ThinkingPart, ToolCall, ToolOutcome

_ASCII_CHARS_PER_TOKEN = 4
"""English prose and code have about four characters per token in every common vocabulary."""
_OTHER_CHARS_PER_TOKEN = 1.5
"""Other scripts have between one and two."""
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_IMAGE = 1600
"""About what a picture of a million pixels costs; smaller ones cost less."""


def estimated_tokens(system_prompt: str, messages: Iterable[Message]) -> int:
    """An estimate of the input tokens, more likely too high than too low for English text."""
    count = _text_tokens(system_prompt)
    for message in messages:
        count += _TOKENS_PER_MESSAGE + sum(map(_part_tokens, message.parts))
    return round(count)


def _part_tokens(part: Part) -> float:
    match part:
        case TextPart() | ThinkingPart():
            return _text_tokens(part.text)
        case ToolCall():
            return _TOKENS_PER_MESSAGE + _text_tokens(part.name) + _text_tokens(part.arguments)
        case ToolOutcome():
            structured = "" if part.content else msgspec.json.encode(part.structured).decode()
            return _TOKENS_PER_MESSAGE + _text_tokens(part.content or structured) + _TOKENS_PER_IMAGE * len(part.images)
        case ImagePart():
            return _TOKENS_PER_IMAGE


def _text_tokens(text: str) -> float:
    ascii_chars = len(text.encode("ascii", "ignore"))
    return ascii_chars / _ASCII_CHARS_PER_TOKEN + (len(text) - ascii_chars) / _OTHER_CHARS_PER_TOKEN
