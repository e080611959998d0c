"""From the events of an Anthropic message stream to turn events. Pure.

Source: https://docs.claude.com/en/docs/build-with-claude/streaming. New kinds of events and blocks may appear at any
time and are skipped, as that page asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from providers.answer_limits import CALL_CHARS, check_argument_chars
from providers.decoding import UNREADABLE, unreadable
from providers.errors import BadResponse, ProviderError, StreamBroken
from providers.http_errors import ErrorBody, broken_by, error_for
from providers.messages import (
    Message,
    Part,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    TurnEnd,
    TurnEvent,
    UsageUpdate,
)
from queue_backends import TokenUsage

PROVIDER = "anthropic"


class _OutputDetails(Struct, gc=False):
    thinking_tokens: int | None = None


class Usage(Struct):
    """Token counts as on the wire: here `input_tokens` leaves out what was read from or written to the cache."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Delta(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    stop_reason: str | None = None


class _Block(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"")


class _Start(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None


class _Error(Struct, gc=False):
    type: str | None = None
    message: str | None = None


class _Event(Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Start | None = None
    usage: Usage | None = None
    error: _Error | None = None


_event_decoder = msgspec.json.Decoder(_Event)

_STOP_REASONS = {
    "end_turn": StopReason.END_TURN,
    "tool_use": StopReason.TOOL_USE,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "refusal": StopReason.REFUSAL,
    "pause_turn": StopReason.PAUSE,
}


def error_event(data: bytes, provider: str) -> ProviderError | None:
    """The error that this event reports, if it is an error event at all."""
    if b'"error"' not in data:
        return None
    event = _decode(data, provider)
    return _reported(event, provider) if event.type == "error" or event.error is not None else None


def neutral_usage(usage: Usage) -> TokenUsage:
    """Counts as ours, where the input includes the cached parts."""
    parts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
    details = usage.output_tokens_details
    return TokenUsage(
        input_tokens=None if usage.input_tokens is None else sum(part or 0 for part in parts),
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_input_tokens,
        cache_write_tokens=usage.cache_creation_input_tokens,
        reasoning_tokens=None if details is None else details.thinking_tokens,
    )


class MessageReader:
    """Reads one streamed message, event by event. `provider`: who sends it, for errors; the reasoning is Anthropic's
    whoever does."""

    def __init__(self, provider: str = PROVIDER) -> None:
        self._provider = provider
        self._blocks: dict[int, _Block] = {}
        self._pieces: dict[int, list[str]] = {}
        self._usage = Usage()
        self._stop_reason: str | None = None
        self._start = _Start()
        self._argument_chars = 0
        self.complete = False
        """The message's proper end was seen."""

    @property
    def usage(self) -> TokenUsage | None:
        """What is known of the usage so far; None if nothing was reported."""
        usage = neutral_usage(self._usage)
        return usage if usage != TokenUsage() else None

    def read(self, data: bytes) -> Sequence[TurnEvent]:
        """What the event means for the turn. Raises `BadResponse`, or what an error event says."""
        event = _decode(data, self._provider)
        kind = event.type
        if kind == "content_block_delta" and event.delta is not None:
            return self._delta(event.index, event.delta)
        if kind == "content_block_start" and event.content_block is not None:
            return self._begin(event.index, event.content_block)
        if kind == "message_delta":
            if event.delta is not None and event.delta.stop_reason is not None:
                self._stop_reason = event.delta.stop_reason
            return self._count(event.usage)
        if kind == "message_start" and event.message is not None:
            self._start = event.message
            return self._count(event.message.usage)
        if kind == "message_stop":
            self.complete = True
        elif kind == "error" or event.error is not None:
            raise broken_by(_reported(event, self._provider))
        return ()

    def end(self) -> TurnEnd:
        """The whole turn. Raises `StreamBroken` if the message has not ended."""
        if not self.complete:
            raise StreamBroken(f"{self._provider}: the stream ended before the message did", provider=self._provider)
        parts = tuple(part for index in sorted(self._blocks) if (part := self._part(index)) is not None)
        return TurnEnd(
            message=Message(role=Role.ASSISTANT, parts=parts),
            stop_reason=self._reason(parts),
            usage=self.usage or TokenUsage(),
            model=self._start.model or "",
            response_id=self._start.id or "",
        )

    def _begin(self, index: int, block: _Block) -> Sequence[TurnEvent]:
        self._blocks[index] = block
        self._pieces[index] = []
        check_argument_chars(self._argument_chars + CALL_CHARS * len(self._blocks), self._provider)
        # Usually empty here, but a compatible server may send a block whole.
        if block.type == "text":
            return self._delta(index, _Delta(type="text_delta", text=block.text))
        if block.type == "thinking":
            return self._delta(index, _Delta(type="thinking_delta", thinking=block.thinking))
        return ()

    def _delta(self, index: int, delta: _Delta) -> Sequence[TurnEvent]:
        pieces = self._pieces.get(index)
        if pieces is None:
            said = f"{self._provider}: a delta for block {index}, which never began"
            raise BadResponse(said, provider=self._provider)
        kind = delta.type
        if kind == "text_delta" and delta.text:
            pieces.append(delta.text)
            return (TextDelta(delta.text),)
        if kind == "input_json_delta" and delta.partial_json:
            pieces.append(delta.partial_json)
            self._argument_chars += len(delta.partial_json)
            check_argument_chars(self._argument_chars + CALL_CHARS * len(self._blocks), self._provider)
        elif kind == "thinking_delta" and delta.thinking:
            pieces.append(delta.thinking)
            return (ThinkingDelta(delta.thinking),)
        elif kind == "signature_delta":
            self._blocks[index].signature = delta.signature
        return ()

    def _count(self, usage: Usage | None) -> Sequence[TurnEvent]:
        """Counts are cumulative: each replaces the one before, and what is not repeated stays."""
        if usage is None:
            return ()
        for name in Usage.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(self._usage, name, value)
        return (UsageUpdate(neutral_usage(self._usage)),)

    def _part(self, index: int) -> Part | None:
        block, text = self._blocks[index], "".join(self._pieces[index])
        match block.type:
            case "text":
                return TextPart(text=text) if text else None
            case "thinking":
                return ThinkingPart(text=text, signature=block.signature or "", provider=PROVIDER)
            case "redacted_thinking":
                return ThinkingPart(redacted=block.data or "", provider=PROVIDER)
            case "tool_use":
                # Without arguments no delta comes at all; a server that sends calls whole has them in the first event.
                arguments = text or bytes(block.input).decode() or "{}"
                return ToolCall(id=block.id or "", name=block.name or "", arguments=arguments)
        return None

    def _reason(self, parts: tuple[Part, ...]) -> StopReason:
        known = _STOP_REASONS.get(self._stop_reason or "")
        if known is not None:
            return known
        return StopReason.TOOL_USE if any(isinstance(part, ToolCall) for part in parts) else StopReason.END_TURN


def _decode(data: bytes, provider: str) -> _Event:
    try:
        return _event_decoder.decode(data)
    except UNREADABLE as error:
        raise unreadable(error, provider, "an event") from error


def _reported(event: _Event, provider: str) -> ProviderError:
    error = event.error or _Error()
    return error_for(provider, None, ErrorBody(kind=error.type or "", message=error.message or ""))
