"""A run's answer as a Chat Completion, in one piece or as a stream. Both are made of the same events.

The model's reasoning stands in `reasoning_content`, as many compatible servers have it; OpenAI's own client leaves it
in a message's `model_extra`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from queue_backends import Chunk, TokenUsage
from queue_backends.messages import JsonObject, encode_json
from worker.gateway.ingress.call_ids import call_id
from worker.gateway.ingress.exact_text import exact_text
from worker.gateway.ingress.failures import (
    began_anew,
    message_of,
    problem_of_end,
    problem_of_failure,
)
from worker.gateway.ingress.narration import ClientCall, Ended, Event, Failed, Said, Thought, Withdrawn
from worker.gateway.ingress.streaming import REFUSED, problem_body, problem_in_stream, when_cut_off
from worker.gateway.ingress.telling import told
from worker.gateway.ingress.transcript import Transcript
from worker.gateway.operation import Call
from worker.gateway.problem import ErrorStyle, Problem, shutting_down
from worker.gateway.sse import SseEvent

_FINISH = {"max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}


class ChatForm(Struct, frozen=True, kw_only=True):
    """What all pieces of one completion have in common."""

    task_id: str
    model: str
    """As the client asked for it."""
    created: int
    """Unix seconds."""
    has_schema: bool = False
    parallel_calls: bool = True
    include_usage: bool = False

    @property
    def id(self) -> str:
        """The completion's id."""
        return f"chatcmpl-{self.task_id}"

    def calls(self, calls: Sequence[ClientCall]) -> list[JsonObject]:
        """The calls that the client is asked to make."""
        return [
            {
                "id": call_id(self.task_id, position),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for position, call in enumerate(calls[: None if self.parallel_calls else 1])
        ]


async def completion(call: Call, form: ChatForm, transcript: Transcript) -> JsonObject:
    """The whole answer. Raises `Problem` for a run that failed."""
    end = transcript.end
    message: dict[str, Any] = {"role": "assistant", "content": transcript.text or None, "refusal": None}
    if isinstance(end, Failed) and end.error_type == REFUSED:
        message.update(content=None, refusal=message_of(end))
        return _completion(form, message, "content_filter", end.usage)
    if not isinstance(end, Ended):
        raise problem_of_end(end, ErrorStyle.OPENAI)
    if end.calls:
        message["tool_calls"] = form.calls(end.calls)
    elif form.has_schema:
        message["content"] = await exact_text(call, form.task_id)
    elif message["content"] is None:
        message["content"] = ""
    if reasoning := transcript.reasoning:
        message["reasoning_content"] = reasoning
    return _completion(form, message, finish_reason(end), end.usage)


def _completion(form: ChatForm, message: JsonObject, finish: str, usage: TokenUsage) -> JsonObject:
    return {
        "id": form.id,
        "object": "chat.completion",
        "created": form.created,
        "model": form.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage_of(usage),
    }


def finish_reason(end: Ended) -> str:
    """Why it ended, in the vendor's words."""
    return _FINISH.get(end.stop_reason, "stop")


def usage_of(usage: TokenUsage) -> JsonObject:
    """The tokens of all the run's model calls."""
    return {
        "prompt_tokens": usage.input_tokens or 0,
        "completion_tokens": usage.output_tokens or 0,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens or 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0, "audio_tokens": 0},
    }


async def completion_events(
    call: Call, form: ChatForm, chunks: AsyncGenerator[Chunk, None]
) -> AsyncGenerator[SseEvent, None]:
    """The answer as it comes, `data: [DONE]` at the end; an error instead, if it comes to that."""
    stream = _Stream(form)

    def broken_off(problem: Problem) -> SseEvent:
        return SseEvent(problem_body(call, problem))

    when_cut_off(call, broken_off)
    try:
        yield stream.piece({"role": "assistant", "content": "", "refusal": None})
        async with aclosing(told(call, chunks)) as events:
            async for event in events:
                if isinstance(event, Ended) and form.has_schema and not event.calls:
                    yield stream.piece({"content": await exact_text(call, form.task_id)})
                for piece in stream.pieces(event):
                    yield piece
        if not stream.has_ended:
            raise shutting_down()  # noqa: TRY301 - told like any other
    except Exception as error:  # noqa: BLE001 - the stream has begun: whatever it is, it is told in it
        yield broken_off(problem_in_stream(call, error))
        return
    yield SseEvent("[DONE]")


class _Stream:
    """The pieces of one streamed completion."""

    def __init__(self, form: ChatForm) -> None:
        self._form = form
        self._text_turn = -1
        """The last turn whose text was told."""
        self.has_ended = False

    def pieces(self, event: Event) -> list[SseEvent]:
        """What an event adds. Raises `Problem` for what ends the stream without an answer."""
        match event:
            case Said(text=text, turn=turn):
                if self._form.has_schema:  # only the last turn's text is the answer, and only whole does it fit
                    return []
                separator = "\n\n" if event.after_tools and self._text_turn >= 0 else ""
                self._text_turn = turn
                return [self.piece({"content": separator + text})]
            case Thought(text=text):
                return [self.piece({"reasoning_content": text})]
            case Withdrawn(turn=turn):
                return self._withdrawn(turn)
            case Ended():
                return self._ended(event)
            case Failed():
                if event.error_type != REFUSED:
                    raise problem_of_failure(event, ErrorStyle.OPENAI)
                self.has_ended = True
                refusal = self.piece({"refusal": message_of(event)})
                return [refusal, *self._last("content_filter", event.usage)]

    def _withdrawn(self, turn: int) -> list[SseEvent]:
        if self._text_turn >= turn:
            raise began_anew()
        return []

    def _ended(self, end: Ended) -> list[SseEvent]:
        self.has_ended = True
        calls = [
            self.piece({"tool_calls": [{"index": index, **made}]})
            for index, made in enumerate(self._form.calls(end.calls))
        ]
        return [*calls, *self._last(finish_reason(end), end.usage)]

    def _last(self, finish: str, usage: TokenUsage) -> list[SseEvent]:
        last = [self.piece({}, finish)]
        if self._form.include_usage:
            last.append(self._event({"choices": [], "usage": usage_of(usage)}))
        return last

    def piece(self, delta: JsonObject, finish: str | None = None) -> SseEvent:
        """One chunk of the vendor's."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        without = {"usage": None} if self._form.include_usage else {}
        return self._event({"choices": [choice], **without})

    def _event(self, fields: JsonObject) -> SseEvent:
        form = self._form
        head = {
            "id": form.id,
            "object": "chat.completion.chunk",
            "created": form.created,
            "model": form.model,
        }
        return SseEvent(encode_json({**head, **fields}))
