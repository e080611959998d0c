"""A run as the events of a streamed message, and as the message that they come to. Pure.

Source: https://docs.claude.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from providers.decoding import UNREADABLE
from queue_backends import TokenUsage
from queue_backends.messages import JsonObject, encode_json
from worker.gateway.ingress.call_ids import call_id
from worker.gateway.ingress.failures import problem_of_end
from worker.gateway.ingress.narration import ClientCall, Ended, Event, Failed, Said, Thought, Withdrawn
from worker.gateway.ingress.streaming import REFUSED
from worker.gateway.problem import ErrorStyle

_STOPS = frozenset({"end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"})


class MessageForm(Struct, frozen=True, kw_only=True):
    """What all of one message has in common."""

    task_id: str
    model: str
    """As the client asked for it."""
    has_schema: bool = False
    parallel_calls: bool = True
    shows_thinking: bool = False
    """The vendor's clients expect it only if they asked for it."""

    @property
    def signature(self) -> str:
        """Of the message's thinking: it says whose it is, and is not looked at when it comes back."""
        return f"shoal-{self.task_id}"


class MessageEvents:
    """Builds a message, event by event. Pure."""

    def __init__(self, form: MessageForm) -> None:
        self.content: list[JsonObject] = []
        """The blocks that are done."""
        self.end: Ended | Failed | None = None
        self.text_turn = -1
        """The last turn whose text was told."""
        self._form = form
        self._turns: list[int] = []
        self._index = 0
        self._open: _OpenBlock | None = None

    def begin(self) -> Iterator[JsonObject]:
        """What comes before anything is known of the run."""
        yield {"type": "message_start", "message": self._message(None, TokenUsage())}
        yield {"type": "ping"}

    def add(self, event: Event) -> Iterator[JsonObject]:
        """What an event of the run adds."""
        match event:
            case Said():
                if not self._form.has_schema:  # only the last turn's text is the answer, and only whole does it fit
                    self.text_turn = event.turn
                    yield from self._piece(event.text, event.turn, is_thought=False, begins=event.begins)
            case Thought():
                if self._form.shows_thinking:
                    yield from self._piece(event.text, event.turn, is_thought=True, begins=event.begins)
            case Withdrawn(turn=turn):
                yield from self._close()
                kept = [(block, its) for block, its in zip(self.content, self._turns, strict=True) if its < turn]
                self.content, self._turns = [block for block, _ in kept], [its for _, its in kept]
            case Ended():
                yield from self._close()
                for position, made in enumerate(event.calls[: None if self._form.parallel_calls else 1]):
                    yield from self._call(made, position)
                yield from self._end(event)
            case Failed():
                yield from self._close()
                if event.error_type == REFUSED:
                    yield from self._end(Ended(stop_reason="refusal", usage=event.usage))
                else:
                    self.end = event

    def answer(self, text: str) -> Iterator[JsonObject]:
        """The whole answer at once, where it has to fit a schema."""
        yield from self._piece(text, 0, is_thought=False, begins=True)

    def message(self) -> JsonObject:
        """The whole message. Raises `Problem` for a run without an answer."""
        if not isinstance(self.end, Ended):
            raise problem_of_end(self.end, ErrorStyle.ANTHROPIC)
        return self._message(_stop(self.end), self.end.usage)

    def _piece(self, text: str, turn: int, *, is_thought: bool, begins: bool) -> Iterator[JsonObject]:
        if self._open is None or begins or self._open.is_thought is not is_thought:
            yield from self._close()
            self._open = _OpenBlock(self._next_index(), turn, is_thought)
            yield self._open.begin()
        yield self._open.add(text)

    def _close(self) -> Iterator[JsonObject]:
        if (block := self._open) is not None:
            self._open = None
            yield from block.end(self._form.signature)
            self.content.append(block.block(self._form.signature))
            self._turns.append(block.turn)

    def _call(self, made: ClientCall, position: int) -> Iterator[JsonObject]:
        index = self._next_index()
        block = {"type": "tool_use", "id": call_id(self._form.task_id, position), "name": made.name, "input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": block}
        arguments = _arguments(made)
        delta = {"type": "input_json_delta", "partial_json": encode_json(arguments).decode()}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
        self.content.append({**block, "input": arguments})
        self._turns.append(1_000_000)

    def _end(self, end: Ended) -> Iterator[JsonObject]:
        self.end = end
        delta = {"stop_reason": _stop(end), "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": usage_of(end.usage)}
        yield {"type": "message_stop"}

    def _next_index(self) -> int:
        index = self._index
        self._index += 1
        return index

    def _message(self, stop_reason: str | None, usage: TokenUsage) -> JsonObject:
        return {
            "id": f"msg_{self._form.task_id}",
            "type": "message",
            "role": "assistant",
            "model": self._form.model,
            "content": list(self.content),
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": usage_of(usage),
        }


class _OpenBlock:
    """A text, or a stretch of reasoning, that is being told."""

    def __init__(self, index: int, turn: int, is_thought: bool) -> None:
        self.turn = turn
        self.is_thought = is_thought
        self._index = index
        self._pieces: list[str] = []

    def begin(self) -> JsonObject:
        return {"type": "content_block_start", "index": self._index, "content_block": self.block("")}

    def add(self, text: str) -> JsonObject:
        self._pieces.append(text)
        kind = "thinking" if self.is_thought else "text"
        delta = {"type": f"{kind}_delta", kind: text}
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def end(self, signature: str) -> Iterator[JsonObject]:
        if self.is_thought:
            delta = {"type": "signature_delta", "signature": signature}
            yield {"type": "content_block_delta", "index": self._index, "delta": delta}
        yield {"type": "content_block_stop", "index": self._index}

    def block(self, signature: str) -> JsonObject:
        """The block as it stands."""
        text = "".join(self._pieces)
        if self.is_thought:
            return {"type": "thinking", "thinking": text, "signature": signature}
        return {"type": "text", "text": text, "citations": None}


def _arguments(made: ClientCall) -> Any:
    """The vendor's clients take an object and nothing else."""
    try:
        arguments = msgspec.json.decode(made.arguments or "{}")
    except UNREADABLE:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"_unreadable": made.arguments}


def _stop(end: Ended) -> str:
    return end.stop_reason if end.stop_reason in _STOPS else "end_turn"


def usage_of(usage: TokenUsage) -> JsonObject:
    """The tokens of all the run's model calls. The vendor counts what was cached apart from the rest of the input."""
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    return {
        "input_tokens": max(0, (usage.input_tokens or 0) - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens or 0,
    }
