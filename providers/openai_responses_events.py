"""From the events of a streamed OpenAI response to turn events. Pure.

Source: https://platform.openai.com/docs/api-reference/responses-streaming. There are some sixty kinds of events. Most
repeat at the end of a part what its deltas said, or tell of the vendor's own tools, and are skipped, as are new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from providers.decoding import UNREADABLE, unreadable
from providers.errors import BadResponse, ProviderError, StreamBroken
from providers.http_errors import broken_by
from providers.messages import Message, Role, StopReason, TextPart, TurnEnd, TurnEvent, UsageUpdate
from providers.openai_responses_answer import Answer
from providers.openai_responses_errors import filtered_answer, reported_error
from queue_backends import TokenUsage


class _InputDetails(Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class Usage(Struct, gc=False):
    """Token counts as on the wire; the input includes what was cached, the output what was reasoned."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(Struct, gc=False):
    reason: str | None = None


class Response(Struct):
    """A response as far as it matters here: streamed, at its beginning and end; else, whole."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[Raw] | None = None
    usage: Usage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None
    content_filters: Any = None
    """Azure's."""


class _Event(Struct, gc=False):
    type: str = ""
    delta: Any = None
    output_index: int | None = None
    item_id: str | None = None
    summary_index: int | None = None
    item: Raw = Raw(b"")
    response: Raw = Raw(b"")
    arguments: Any = None
    object: str | None = None
    """Only a response that is not streamed has it."""


class _Named(Struct, gc=False):
    id: str | None = None
    call_id: str | None = None


_event_decoder = msgspec.json.Decoder(_Event)
_response_decoder = msgspec.json.Decoder(Response)
_named_decoder = msgspec.json.Decoder(_Named)

_INCOMPLETE = {"max_output_tokens": StopReason.MAX_TOKENS, "content_filter": StopReason.REFUSAL}


def error_event(data: bytes, provider: str) -> ProviderError | None:
    """The error that this event reports, if it is one."""
    if b'"error"' not in data:
        return None
    try:
        is_error = _is_error(_event_decoder.decode(data), data)
        return reported_error(provider, msgspec.json.decode(data)) if is_error else None
    except UNREADABLE as error:
        raise unreadable(error, provider) from error


def neutral_usage(usage: Usage) -> TokenUsage:
    """Counts as ours."""
    read = usage.input_tokens_details or _InputDetails()
    written = usage.output_tokens_details or _OutputDetails()
    return TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=read.cached_tokens,
        cache_write_tokens=read.cache_write_tokens,
        reasoning_tokens=written.reasoning_tokens,
    )


class ResponseReader:
    """Reads one streamed response, event by event. `keep_id`: the vendor stores it, and the next turn goes on from
    it."""

    def __init__(self, provider: str, *, keep_id: bool = False) -> None:
        self._provider = provider
        self._keep_id = keep_id
        self._answer = Answer(provider)
        self._response = Response()
        self._usage: TokenUsage | None = None
        self._places: dict[str, int] = {}
        self.complete = False
        """The response's proper end was seen."""

    @property
    def usage(self) -> TokenUsage | None:
        """What is known of the usage so far; None if nothing was reported."""
        return self._usage

    def read(self, data: bytes) -> Sequence[TurnEvent]:
        """What the event means for the turn. Raises `BadResponse`, or what an error event says."""
        try:
            return self._read(_event_decoder.decode(data), data)
        except UNREADABLE as error:
            raise unreadable(error, self._provider) from error

    def _read(self, event: _Event, data: bytes) -> Sequence[TurnEvent]:
        if event.type.endswith(".delta"):
            return self._delta(event)
        if _is_error(event, data):
            raise broken_by(reported_error(self._provider, msgspec.json.decode(data)))
        match event.type:
            case "response.output_item.added":
                self._answer.begin(self._place(event), event.item)
            case "response.output_item.done":
                return self._answer.finish(self._place(event), event.item)
            case "response.reasoning_summary_part.added":
                return self._answer.next_summary(self._place(event), event.summary_index or 0)
            case "response.function_call_arguments.done" if isinstance(event.arguments, str):
                self._answer.set_arguments(self._place(event), event.arguments)
            case "response.created" | "response.in_progress":
                self._response = _response_decoder.decode(event.response)
            case "response.completed" | "response.incomplete" | "response.failed":
                return self._end(_response_decoder.decode(event.response))
            case "" if event.object == "response":  # a server that does not stream answers in one piece
                return self._end(_response_decoder.decode(data))
        return ()

    def end(self) -> TurnEnd:
        """The whole turn. Raises `StreamBroken` if the response has not ended, and `Refused` if a content filter
        stopped it and says why."""
        provider, response = self._provider, self._response
        if not self.complete:
            raise StreamBroken(f"{provider}: the stream ended before the response did", provider=provider)
        reason = self._reason()
        if reason is StopReason.REFUSAL and (filtered := filtered_answer(provider, response.content_filters)):
            raise filtered
        stored_id = response.id if self._keep_id else None
        message = Message(role=Role.ASSISTANT, parts=tuple(self._answer.parts(stored_id or "")))
        if message.tool_calls:
            reason = StopReason.TOOL_USE
        return TurnEnd(
            message=message,
            stop_reason=reason,
            usage=self._usage or TokenUsage(),
            model=response.model or "",
            response_id=response.id or "",
        )

    def _delta(self, event: _Event) -> Sequence[TurnEvent]:
        piece = event.delta
        if not isinstance(piece, str) or not piece:
            return ()
        match event.type:
            case "response.output_text.delta":
                return self._answer.text(self._place(event), piece)
            case "response.refusal.delta":
                return self._answer.refusal(self._place(event), piece)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self._answer.reasoning(self._place(event), piece)
            case "response.function_call_arguments.delta":
                self._answer.arguments(self._place(event), piece)
        return ()

    def _place(self, event: _Event) -> int:
        """Which item an event is about. Servers that leave out the index name the item instead."""
        if event.output_index is not None:
            return event.output_index
        item_id = event.item_id
        if not item_id and event.item:
            named = _named_decoder.decode(event.item)
            item_id = named.id or named.call_id
        return self._places.setdefault(item_id or "", len(self._places))

    def _end(self, response: Response) -> Sequence[TurnEvent]:
        events: list[TurnEvent] = []
        if response.usage is not None:
            self._usage = neutral_usage(response.usage)
            events.append(UsageUpdate(self._usage))
        if response.status == "failed" or response.error:
            raise broken_by(reported_error(self._provider, response.error or {"message": "the response failed"}))
        if not self._answer.is_streamed:
            events.extend(self._answer.take(response.output or ()))
        self._response = response
        self._answer.is_cut = response.status == "incomplete"
        self.complete = True
        return events

    def _reason(self) -> StopReason:
        details = self._response.incomplete_details
        if self._response.status == "incomplete" and details is not None and details.reason in _INCOMPLETE:
            return _INCOMPLETE[details.reason]
        return StopReason.REFUSAL if self._answer.refused else StopReason.END_TURN


def answer_text(data: bytes, provider: str) -> str:
    """The text of a response that came in one piece. Raises what it says went wrong, and `BadResponse` if there is
    none."""
    answer = Answer(provider)
    try:
        response = _response_decoder.decode(data)
        answer.take(response.output or ())
    except UNREADABLE as error:
        raise unreadable(error, provider) from error
    if response.status == "failed" or response.error:
        raise reported_error(provider, response.error or {"message": "the response failed"})
    text = "".join(part.text for part in answer.parts() if isinstance(part, TextPart))
    if not text:
        raise BadResponse(f"{provider}: the answer is empty", provider=provider)
    return text


def _is_error(event: _Event, data: bytes) -> bool:
    return event.type == "error" or (not event.type and event.object != "response" and b'"error"' in data)
