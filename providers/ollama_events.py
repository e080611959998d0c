"""From the lines of an Ollama chat stream to turn events. Pure.

Source: https://docs.ollama.com/api/chat, /api/streaming and /api/errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from providers.answer_limits import CALL_CHARS, check_argument_chars
from providers.decoding import UNREADABLE, unreadable
from providers.errors import BadResponse, ProviderError, StreamBroken
from providers.http_errors import broken_by, error_body, error_for
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
from providers.ollama_request import PROVIDER
from queue_backends import TokenUsage


class _Function(Struct, frozen=True):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"")


class _Call(Struct):
    id: str | None = None
    function: _Function = _Function()


class _Said(Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(Struct, gc=False):
    message: _Said | None = None
    done: bool = False
    done_reason: str | None = None
    model: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


_line_decoder = msgspec.json.Decoder(_Line)

_DONE_REASONS = {"length": StopReason.MAX_TOKENS}


def error_line(data: bytes) -> ProviderError | None:
    """The error that this line reports, if it is one."""
    if b'"error"' not in data:
        return None
    line = _decode(data)
    return _reported(line) if line.error else None


class CallIds:
    """Ids for tool calls of one turn: the server's own, or else made from the task, the turn and the call's place.

    So a turn that is asked for again gives its calls the same ids, and no two calls of a conversation share one.
    """

    def __init__(self, task_id: str = "", turn: int = 0, taken: Container[str] = ()) -> None:
        # A session holds the calls of several tasks, and other vendors refuse a conversation with an id twice.
        task = hashlib.blake2s(task_id.encode(), digest_size=5).hexdigest() + "_" if task_id else ""
        self._stem = f"call_{task}{turn}_"
        self._taken = taken
        self._given: set[str] = set()

    @classmethod
    def of(cls, request: TurnRequest) -> CallIds:
        """For the calls that will answer this request."""
        taken = {call.id for message in request.messages for call in message.tool_calls}
        return cls(request.task_id, request.turn, taken)

    def id_for(self, place: int, own: str | None) -> str:
        """The id of the call at this place of the answer; `own` is what the server calls it, if anything."""
        wanted = own or f"{self._stem}{place}"
        number, chosen = 1, wanted
        while chosen in self._given or chosen in self._taken:
            number += 1
            chosen = f"{wanted}_{number}"
        self._given.add(chosen)
        return chosen


class ChatReader:
    """Reads one streamed chat answer, line by line."""

    def __init__(self, ids: CallIds | None = None) -> None:
        self._ids = ids or CallIds()
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[ToolCall] = []
        self._argument_chars = 0
        self._last = _Line()
        self.usage: TokenUsage | None = None
        """What is known of the usage so far; None if nothing was reported."""

    @property
    def complete(self) -> bool:
        """The answer's proper end was seen."""
        return self._last.done

    def read(self, data: bytes) -> Sequence[TurnEvent]:
        """What the line means for the turn. Raises `BadResponse`, or what an error line says."""
        line = _decode(data)
        if line.error:
            raise broken_by(_reported(line))
        events: list[TurnEvent] = []
        if line.message is not None:
            self._said(line.message, events)
        if line.done:
            self._last = line
            self._count(line, events)
        return events

    def end(self) -> TurnEnd:
        """The whole turn. Raises `StreamBroken` if the answer has not ended, `BadResponse` if it is none."""
        if not self.complete:
            raise StreamBroken(f"{PROVIDER}: the stream ended before the answer did", provider=PROVIDER)
        parts: list[Part] = []
        if self._thinking:
            parts.append(ThinkingPart(text="".join(self._thinking), provider=PROVIDER))
        if self._text:
            parts.append(TextPart(text="".join(self._text)))
        parts.extend(self._calls)
        if not parts and self._last.done_reason in ("load", "unload"):
            said = f"{PROVIDER}: the server only {self._last.done_reason}ed the model, and answered nothing"
            raise BadResponse(said, provider=PROVIDER)
        return TurnEnd(
            message=Message(role=Role.ASSISTANT, parts=tuple(parts)),
            stop_reason=self._reason(),
            usage=self.usage or TokenUsage(),
            model=self._last.model or "",
        )

    def _said(self, said: _Said, events: list[TurnEvent]) -> None:
        if said.thinking:
            self._thinking.append(said.thinking)
            events.append(ThinkingDelta(said.thinking))
        if said.content:
            self._text.append(said.content)
            events.append(TextDelta(said.content))
        for call in said.tool_calls or ():
            arguments = _arguments(call.function.arguments)
            self._argument_chars += len(arguments) + CALL_CHARS
            check_argument_chars(self._argument_chars, PROVIDER)
            given = self._ids.id_for(len(self._calls), call.id)
            self._calls.append(ToolCall(id=given, name=call.function.name, arguments=arguments))

    def _count(self, line: _Line, events: list[TurnEvent]) -> None:
        # A count of zero is left out by the server, and so is one that it does not know.
        if line.prompt_eval_count is not None or line.eval_count is not None:
            self.usage = TokenUsage(input_tokens=line.prompt_eval_count, output_tokens=line.eval_count)
            events.append(UsageUpdate(self.usage))

    def _reason(self) -> StopReason:
        if self._calls:  # they come whole: a call that was cut is never sent
            return StopReason.TOOL_USE
        return _DONE_REASONS.get(self._last.done_reason or "", StopReason.END_TURN)


def _arguments(raw: msgspec.Raw) -> str:
    data = bytes(raw)
    try:
        if data.startswith(b'"'):  # some servers behind this API write the object as a text
            return msgspec.json.decode(data, type=str) or "{}"
        return "{}" if data in (b"", b"null") else data.decode()
    except UNREADABLE as error:
        raise unreadable(error, PROVIDER, "a call's arguments") from error


def _decode(data: bytes) -> _Line:
    try:
        return _line_decoder.decode(data)
    except UNREADABLE as error:
        raise unreadable(error, PROVIDER, "a line") from error


def _reported(line: _Line) -> ProviderError:
    return error_for(PROVIDER, None, error_body({"error": line.error}))
