"""From the chunks of a Gemini stream to turn events. Pure.

There is no last event: an answer is whole when a finish reason came and the stream ended properly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from providers.answer_limits import CALL_CHARS, check_argument_chars
from providers.decoding import UNREADABLE, unreadable
from providers.errors import BadResponse, InvalidRequest, ProviderError, Refused, StreamBroken
from providers.gemini_request import LOCAL_ID
from providers.gemini_wire import NO_ERROR, Candidate, Chunk, Feedback, FunctionCall, Usage
from providers.gemini_wire import Part as WirePart
from providers.http_errors import broken_by, error_for, read_error_body
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
    TurnRequest,
    UsageUpdate,
)
from queue_backends import TokenUsage

_chunk_decoder = msgspec.json.Decoder(Chunk)
_chunks_decoder = msgspec.json.Decoder(list[Chunk])

STOP_REASONS = {
    "STOP": StopReason.END_TURN,
    "MAX_TOKENS": StopReason.MAX_TOKENS,
    "SAFETY": StopReason.REFUSAL,
    "RECITATION": StopReason.REFUSAL,
    "LANGUAGE": StopReason.REFUSAL,
    "BLOCKLIST": StopReason.REFUSAL,
    "PROHIBITED_CONTENT": StopReason.REFUSAL,
    "SPII": StopReason.REFUSAL,
    "IMAGE_SAFETY": StopReason.REFUSAL,
    "IMAGE_PROHIBITED_CONTENT": StopReason.REFUSAL,
    "IMAGE_RECITATION": StopReason.REFUSAL,
    "ESCALATION": StopReason.REFUSAL,
    "MODEL_ARMOR": StopReason.REFUSAL,
}

_NO_ARGUMENTS = (msgspec.Raw(b""), msgspec.Raw(b"null"))

_UNUSABLE = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE", "OTHER"}
)
"""The model failed to write a proper answer. Asked again, it usually does."""


def error_chunk(data: bytes, provider: str) -> ProviderError | None:
    """The error that this chunk reports, if it is an error at all."""
    if b'"error"' not in data:
        return None
    return next(
        (_reported(provider, chunk.error) for chunk in _decode(provider, data) if chunk.error != NO_ERROR), None
    )


class ContentReader:
    """Reads one streamed answer, chunk by chunk."""

    complete = False
    """Nothing in the stream says that no more will come."""

    def __init__(self, provider: str, request: TurnRequest) -> None:
        self._provider = provider
        self._ids = _LocalIds(request)
        self._parts: list[Part] = []
        self._pieces: list[str] = []
        self._is_thought = False
        self._usage = Usage()
        self._finish = Candidate()
        self._block = Feedback()
        self._model = ""
        self._response_id = ""
        self._calls = 0
        self._argument_chars = 0

    @property
    def usage(self) -> TokenUsage | None:
        """What is known of the usage so far; None if nothing was reported."""
        if self._usage == Usage():
            return None
        return self._usage.neutral(is_last=self._finish.finish_reason is not None)

    def read(self, data: bytes) -> Sequence[TurnEvent]:
        """What the chunk means for the turn. Raises `BadResponse`, or what an error chunk says."""
        events: list[TurnEvent] = []
        for chunk in _decode(self._provider, data):
            if chunk.error != NO_ERROR:
                raise broken_by(_reported(self._provider, chunk.error))
            try:
                self._chunk(chunk, events)
            except UNREADABLE as error:  # a call's arguments, which are decoded apart
                raise unreadable(error, self._provider, "a chunk") from error
        return events

    def end(self) -> TurnEnd:
        """The whole turn.

        Raises `StreamBroken` if no end was seen, `Refused` if the prompt was blocked, `BadResponse` if the model failed
        to write a proper answer.
        """
        self._close_text()
        if self._block.block_reason is not None:
            said = f"{self._provider}: the prompt was blocked: {self._block.reason}"
            raise Refused(said, provider=self._provider)
        reason = self._finish.finish_reason
        if reason is None:
            raise StreamBroken(f"{self._provider}: the stream ended before the answer did", provider=self._provider)
        return TurnEnd(
            message=Message(role=Role.ASSISTANT, parts=tuple(self._parts)),
            stop_reason=self._stop_reason(reason),
            usage=self.usage or TokenUsage(),
            model=self._model,
            response_id=self._response_id,
        )

    def _chunk(self, chunk: Chunk, events: list[TurnEvent]) -> None:
        self._model = chunk.model_version or self._model
        self._response_id = chunk.response_id or self._response_id
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            self._block = chunk.prompt_feedback
        for candidate in chunk.candidates or ():
            if candidate.index:
                continue
            if candidate.finish_reason is not None:
                self._finish = candidate
            if candidate.content is not None:
                told = map(self._part, candidate.content.parts or ())
                events.extend([event for event in told if event is not None])
        if chunk.usage_metadata is not None and chunk.usage_metadata != Usage():
            self._usage.update(chunk.usage_metadata)
            events.append(UsageUpdate(self._usage.neutral(is_last=self._finish.finish_reason is not None)))

    def _part(self, part: WirePart) -> TurnEvent | None:
        if part.function_call is not None:
            self._call(part.function_call, part.thought_signature)
            return None
        if part.text is None:
            return None  # the vendor's own tools: code, its outcome, pictures
        is_thought = part.thought is True
        if part.thought_signature is not None:
            self._signed_text(part.text, part.thought_signature, is_thought=is_thought)
        elif part.text:
            self._text(part.text, is_thought=is_thought)
        if not part.text:
            return None
        return ThinkingDelta(part.text) if is_thought else TextDelta(part.text)

    def _text(self, text: str, *, is_thought: bool) -> None:
        if is_thought is not self._is_thought:
            self._close_text()
            self._is_thought = is_thought
        self._pieces.append(text)

    def _signed_text(self, text: str, signature: str, *, is_thought: bool) -> None:
        # Neither joined with what came before nor with what follows: the signature is for this part alone.
        self._close_text()
        if not text:
            self._parts.append(ThinkingPart(redacted=signature, provider=self._provider))
        elif is_thought:
            self._parts.append(ThinkingPart(text=text, signature=signature, provider=self._provider))
        else:
            self._parts.append(ThinkingPart(signature=signature, provider=self._provider))
            self._parts.append(TextPart(text=text))

    def _close_text(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if text:
            thought = ThinkingPart(text=text, provider=self._provider) if self._is_thought else None
            self._parts.append(thought or TextPart(text=text))

    def _call(self, call: FunctionCall, signature: str | None) -> None:
        self._close_text()
        arguments = "{}" if call.args in _NO_ARGUMENTS else bytes(call.args).decode()
        self._calls += 1
        self._argument_chars += len(arguments)
        check_argument_chars(self._argument_chars + CALL_CHARS * self._calls, self._provider)
        if signature is not None:
            self._parts.append(ThinkingPart(signature=signature, provider=self._provider))
        call_id = call.id or self._ids.next()
        self._parts.append(ToolCall(id=call_id, name=call.name or "", arguments=arguments))

    def _stop_reason(self, reason: str) -> StopReason:
        said = self._finish.reason
        if reason == "MISSING_THOUGHT_SIGNATURE":
            raise InvalidRequest(f"{self._provider}: {said}", provider=self._provider)
        known = STOP_REASONS.get(reason)
        if known is None and (reason in _UNUSABLE or not self._parts):
            raise BadResponse(f"{self._provider}: the model wrote no proper answer: {said}", provider=self._provider)
        if known in (None, StopReason.END_TURN) and self._calls:
            return StopReason.TOOL_USE
        return known or StopReason.END_TURN


class _LocalIds:
    """Ids for calls that the vendor gave none: the same if the turn is asked for again, and each only once."""

    def __init__(self, request: TurnRequest) -> None:
        task = hashlib.blake2s(request.task_id.encode(), digest_size=5).hexdigest()
        self._stem = f"{LOCAL_ID}{task}-{request.turn}-"
        self._taken = {call.id for message in request.messages for call in message.tool_calls}
        self._number = 0

    def next(self) -> str:
        while True:
            self._number += 1
            chosen = f"{self._stem}{self._number}"
            if chosen not in self._taken:
                return chosen


def _decode(provider: str, data: bytes) -> list[Chunk]:
    try:
        if data.startswith(b"["):  # without `alt=sse`, all chunks come as one list; some gateways send a last [DONE]
            return [] if data == b"[DONE]" else _chunks_decoder.decode(data)
        return [_chunk_decoder.decode(data)]
    except UNREADABLE as error:
        raise unreadable(error, provider, "a chunk") from error


def _reported(provider: str, error: msgspec.Raw) -> ProviderError:
    return error_for(provider, None, read_error_body(bytes(error)))
