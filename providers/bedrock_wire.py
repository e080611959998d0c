"""What Bedrock's Converse API answers, as it is on the wire. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html and
API_runtime_Converse.html there.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from queue_backends import TokenUsage

_T = TypeVar("_T")


class Usage(Struct, rename="camel"):
    """Token counts as on the wire: here `input_tokens` leaves out what was read from or written to the cache."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class CalledTool(Struct, rename="camel"):
    """A call, or a piece of its arguments."""

    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"")


class ReasoningText(Struct):
    """Reasoning that comes whole."""

    text: str = ""
    signature: str = ""


class Reasoning(Struct, rename="camel"):
    """A piece of the reasoning, or of what proves or hides it."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None
    reasoning_text: ReasoningText | None = None
    """In an answer that comes whole."""


class Content(Struct, rename="camel"):
    """A block's start, a piece of one, or, in an answer that comes whole, a block."""

    text: str | None = None
    tool_use: CalledTool | None = None
    reasoning_content: Reasoning | None = None


class Event(Struct, rename="camel"):
    """Any event of a stream."""

    content_block_index: int = 0
    start: Content | None = None
    delta: Content | None = None
    stop_reason: str | None = None
    usage: Usage | None = None
    message: str | None = None
    """Of an exception."""
    original_message: str | None = None


class Said(Struct):
    """The message of an answer that comes whole."""

    content: list[Content] = []


class Output(Struct):
    """What holds that message."""

    message: Said | None = None


class Answer(Struct, rename="camel"):
    """An answer that comes whole."""

    output: Output | None = None
    stop_reason: str | None = None
    usage: Usage | None = None


event_decoder = msgspec.json.Decoder(Event)
answer_decoder = msgspec.json.Decoder(Answer)


def neutral_usage(usage: Usage) -> TokenUsage:
    """Counts as ours, where the input includes the cached parts."""
    parts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens)
    return TokenUsage(
        input_tokens=None if usage.input_tokens is None else sum(part or 0 for part in parts),
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_input_tokens,
        cache_write_tokens=usage.cache_write_input_tokens,
    )
