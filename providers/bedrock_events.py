"""From the messages of a Bedrock Converse stream to turn events. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html. New kinds of
events and blocks may appear at any time and are skipped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from providers.answer_limits import CALL_CHARS, check_argument_chars
from providers.aws_event_stream import AwsMessage, BrokenEventStreamError, read_message
from providers.bedrock_messages import PROVIDER
from providers.bedrock_wire import (
    CalledTool,
    Content,
    Reasoning,
    ReasoningText,
    Usage,
    answer_decoder,
    event_decoder,
    neutral_usage,
)
from providers.decoding import UNREADABLE, decoded, unreadable
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

_STOP_REASONS = {
    "end_turn": StopReason.END_TURN,
    "tool_use": StopReason.TOOL_USE,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "guardrail_intervened": StopReason.REFUSAL,
    "content_filtered": StopReason.REFUSAL,
    "refusal": StopReason.REFUSAL,
}
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})

_STATUS_OF_EXCEPTION = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "validationException": 400,
    "throttlingException": 429,
    "serviceUnavailableException": 503,
}


def exception_message(data: bytes) -> ProviderError | None:
    """The error that this message reports, if it is one."""
    message = _read(data)
    return _reported(message.headers, message.payload) if _is_exception(message.headers) else None


class _Block:
    """One part of the answer while it grows."""

    __slots__ = ("name", "pieces", "redacted", "signature", "thinks", "tool_use_id")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.thinks = False
        self.signature = ""
        self.redacted: list[str] = []
        self.tool_use_id = ""
        self.name = ""

    def part(self) -> Part | None:
        text = "".join(self.pieces)
        if self.name:
            return ToolCall(id=self.tool_use_id, name=self.name, arguments=text or "{}")
        if self.redacted:
            return ThinkingPart(redacted=_joined(self.redacted), provider=PROVIDER)
        if self.thinks:
            return ThinkingPart(text=text, signature=self.signature, provider=PROVIDER)
        return TextPart(text=text) if text else None


class ConverseReader:
    """Reads one streamed answer, message by message."""

    def __init__(self, model: str = "") -> None:
        self._model = model
        self._blocks: dict[int, _Block] = {}
        self._argument_chars = 0
        self._stop_reason: str | None = None
        self.usage: TokenUsage | None = None
        """What is known of the usage so far; None if nothing was reported."""

    @property
    def complete(self) -> bool:
        """The answer's end, and the counts that follow it, were seen."""
        return self._stop_reason is not None and self.usage is not None

    def read(self, data: bytes) -> Sequence[TurnEvent]:
        """What the message means for the turn. Raises `BadResponse`, or what an exception says."""
        message = _read(data)
        if _is_exception(message.headers):
            raise broken_by(_reported(message.headers, message.payload))
        kind = message.headers.get(":event-type", "")
        if kind not in _KINDS:
            return ()
        event = decoded(event_decoder, message.payload, PROVIDER)
        if event.start is not None:
            return self._content(event.content_block_index, event.start)
        if event.delta is not None:
            return self._content(event.content_block_index, event.delta)
        if kind == "messageStop":
            self._stop_reason = event.stop_reason or "end_turn"
        return self._count(event.usage)

    def end(self) -> TurnEnd:
        """The whole turn. Raises `StreamBroken` if the answer has not ended, `BadResponse` if the model spoilt it."""
        if self._stop_reason is None:
            raise StreamBroken(f"{PROVIDER}: the stream ended before the answer did", provider=PROVIDER)
        if self._stop_reason in _MALFORMED:
            said = f"{PROVIDER}: the model wrote what cannot be read ({self._stop_reason})"
            raise BadResponse(said, provider=PROVIDER)
        parts = tuple(part for index in sorted(self._blocks) if (part := self._blocks[index].part()) is not None)
        calls = any(isinstance(part, ToolCall) for part in parts)
        return TurnEnd(
            message=Message(role=Role.ASSISTANT, parts=parts),
            stop_reason=_STOP_REASONS.get(self._stop_reason, StopReason.TOOL_USE if calls else StopReason.END_TURN),
            usage=self.usage or TokenUsage(),
            model=self._model,
        )

    def whole(self, data: bytes) -> list[TurnEvent]:
        """An answer that came in one piece, as the events that it would have been. `end` follows."""
        answer = decoded(answer_decoder, data, PROVIDER)
        if answer.output is None or answer.output.message is None:
            raise BadResponse(f"{PROVIDER}: the answer has no message", provider=PROVIDER)
        events: list[TurnEvent] = []
        for index, content in enumerate(answer.output.message.content):
            events.extend(self._content(index, content))
        self._stop_reason = answer.stop_reason or "end_turn"
        events.extend(self._count(answer.usage))
        return events

    def _content(self, index: int, content: Content) -> Sequence[TurnEvent]:
        block = self._blocks.get(index)
        if block is None:  # only calls have a start of their own
            block = self._blocks[index] = _Block()
        if content.tool_use is not None:
            self._call(block, content.tool_use)
        elif content.reasoning_content is not None:
            return self._reasoning(block, content.reasoning_content)
        elif content.text:
            block.pieces.append(content.text)
            return (TextDelta(content.text),)
        return ()

    def _call(self, block: _Block, called: CalledTool) -> None:
        if called.name:
            block.tool_use_id, block.name = called.tool_use_id, called.name
        piece = _arguments(called.input)
        if piece:
            block.pieces.append(piece)
        self._argument_chars += len(piece)
        check_argument_chars(self._argument_chars + CALL_CHARS * len(self._blocks), PROVIDER)

    def _reasoning(self, block: _Block, reasoning: Reasoning) -> Sequence[TurnEvent]:
        block.thinks = True
        whole = reasoning.reasoning_text or ReasoningText()
        block.signature += reasoning.signature or whole.signature
        if reasoning.redacted_content:
            block.redacted.append(reasoning.redacted_content)
        text = reasoning.text or whole.text
        if not text:
            return ()
        block.pieces.append(text)
        return (ThinkingDelta(text),)

    def _count(self, usage: Usage | None) -> Sequence[TurnEvent]:
        if usage is None:
            return ()
        self.usage = neutral_usage(usage)
        return (UsageUpdate(self.usage),)


_KINDS = frozenset({"messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata"})


def _arguments(raw: msgspec.Raw) -> str:
    data = bytes(raw)
    try:
        if data.startswith(b'"'):  # a piece of the text; an answer that comes whole has the object itself
            return msgspec.json.decode(data, type=str)
        return "" if data in (b"", b"null") else data.decode()
    except UNREADABLE as error:
        raise unreadable(error, PROVIDER, "a call's arguments") from error


def _joined(pieces: Sequence[str]) -> str:
    if len(pieces) == 1:
        return pieces[0]
    try:
        return base64.b64encode(b"".join(map(base64.b64decode, pieces))).decode()
    except ValueError as error:  # `binascii.Error` is one
        raise BadResponse(f"{PROVIDER}: encrypted reasoning is no base64", provider=PROVIDER) from error


def _is_exception(headers: dict[str, str]) -> bool:
    return headers.get(":message-type") in ("exception", "error")


def _reported(headers: dict[str, str], payload: bytes) -> ProviderError:
    kind = headers.get(":exception-type") or headers.get(":error-code", "")
    event = decoded(event_decoder, payload or b"{}", PROVIDER)
    said = event.message or event.original_message or headers.get(":error-message", "")
    return error_for(PROVIDER, _STATUS_OF_EXCEPTION.get(kind), ErrorBody(kind=kind, message=said))


def _read(data: bytes) -> AwsMessage:
    try:
        return read_message(data)
    except BrokenEventStreamError as error:
        raise BadResponse(f"{PROVIDER}: {error}", provider=PROVIDER) from error
