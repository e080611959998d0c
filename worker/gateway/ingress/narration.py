"""A task's chunks, as the events that the vendors' forms of an answer are made of. Pure: always the same for
the same chunks.

Only what the agent says and thinks is told of; the tools that it calls in the fleet are its own affair. Where a turn
starts over, the new text is compared with what was told already: as long as it is the same, nothing is told twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from queue_backends import RUN_CANCELLED, Chunk, ChunkType, TokenUsage


class Said(Struct, frozen=True):
    """A piece of the answer's text."""

    text: str
    turn: int
    begins: bool = False
    """The first piece of a new stretch: reasoning, a tool or another turn came before."""
    after_tools: bool = False
    """The first piece since a tool was called."""


class Thought(Struct, frozen=True):
    """A piece of the reasoning."""

    text: str
    turn: int
    begins: bool = False


class Withdrawn(Struct, frozen=True):
    """What was told of this turn and of those after it does not hold any more."""

    turn: int


class ClientCall(Struct, frozen=True):
    """A call that the client carries out."""

    name: str
    arguments: str
    """JSON text."""


class Ended(Struct, frozen=True, kw_only=True):
    """There is an answer."""

    stop_reason: str
    usage: TokenUsage
    calls: tuple[ClientCall, ...] = ()


class Failed(Struct, frozen=True, kw_only=True):
    """There is none."""

    message: str
    error_type: str = ""
    """The error's class, if that is known."""
    usage: TokenUsage = TokenUsage()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return self.message == RUN_CANCELLED


Event = Said | Thought | Withdrawn | Ended | Failed

_Kind = type[Said] | type[Thought]
_Stretch = tuple[int, _Kind]
"""A turn, and what of it: its text or its reasoning."""
_KINDS: Mapping[ChunkType, _Kind] = {ChunkType.CONTENT: Said, ChunkType.THINKING: Thought}


class Narrator:
    """Takes a task's chunks in order, from the first on."""

    def __init__(self) -> None:
        self._attempts: dict[int, int] = {}
        """Turn -> the attempt that is being told."""
        self._told: dict[_Stretch, list[str]] = {}
        """In pieces; those of a stretch that comes again are one."""
        self._again: dict[_Stretch, int] = {}
        """Stretches that come again -> how many of their characters have."""
        self._last: _Stretch | None = None
        """What was told last; None: something came between."""
        self._after_tools = False

    def events(self, chunk: Chunk) -> Iterator[Event]:
        """What this chunk adds."""
        if chunk.is_final:
            yield from self._cut_short(before=None)
            yield _end(chunk)
            return
        turn = chunk.turn
        if chunk.attempt > self._attempts.get(turn, chunk.attempt):
            self._starts_over(turn)
        self._attempts[turn] = chunk.attempt
        kind = _KINDS.get(chunk.type)
        if kind is None:
            self._last, self._after_tools = None, True
        elif chunk.content:
            yield from self._cut_short(before=turn)
            yield from self._piece((turn, kind), chunk.content)

    def _starts_over(self, turn: int) -> None:
        self._attempts = {known: attempt for known, attempt in self._attempts.items() if known < turn}
        for key, pieces in self._told.items():
            if key[0] >= turn:
                self._told[key] = ["".join(pieces)]
                self._again[key] = 0

    def _piece(self, key: _Stretch, text: str) -> Iterator[Event]:
        done = self._again.get(key)
        if done is not None:
            told = self._told[key][0]
            if told.startswith(text, done):
                self._again[key] = done + len(text)
                return
            if len(told) - done < len(text) and text.startswith(rest := told[done:]):
                del self._again[key]
                text = text[len(rest) :]
            else:
                yield from self._withdraw(key[0])
        if text:
            self._told.setdefault(key, []).append(text)
            yield self._telling(key, text)

    def _telling(self, key: _Stretch, text: str) -> Said | Thought:
        turn, kind = key
        begins, self._last = key != self._last, key
        if kind is Thought:
            return Thought(text, turn, begins)
        after_tools, self._after_tools = self._after_tools, False
        return Said(text, turn, begins, after_tools)

    def _cut_short(self, *, before: int | None) -> Iterator[Event]:
        """Turns that are over now, and have not said again all that they had said."""
        while over := [key for key in self._again if before is None or key[0] < before]:
            key = min(over, key=lambda key: key[0])
            if self._again[key] < len(self._told[key][0]):
                yield from self._withdraw(key[0])
            else:
                del self._again[key]

    def _withdraw(self, turn: int) -> Iterator[Event]:
        """Take back the turn and what followed, and tell anew what of it has come again."""
        held = {
            key: pieces[0][: self._again[key]] if key in self._again else "".join(pieces)
            for key, pieces in self._told.items()
            if key[0] == turn
        }
        self._told = {key: pieces for key, pieces in self._told.items() if key[0] < turn}
        self._again = {key: done for key, done in self._again.items() if key[0] < turn}
        self._last = None
        yield Withdrawn(turn)
        for key in sorted(held, key=lambda key: key[1] is Said):  # models think before they speak
            if held[key]:
                self._told[key] = [held[key]]
                yield self._telling(key, held[key])


def failure_in(chunk: Chunk) -> Failed:
    """What a final ERROR chunk tells."""
    said: Mapping[str, Any] = chunk.metadata
    usage = msgspec.convert(said.get("usage", {}), TokenUsage)
    return Failed(message=chunk.content, error_type=str(said.get("error_type", "")), usage=usage)


def _end(chunk: Chunk) -> Event:
    if chunk.type is not ChunkType.DONE:
        return failure_in(chunk)
    said: Mapping[str, Any] = chunk.metadata
    usage = msgspec.convert(said.get("usage", {}), TokenUsage)
    calls = tuple(ClientCall(call["name"], call["arguments"]) for call in said.get("tool_calls", ()))
    return Ended(stop_reason=str(said.get("stop_reason", "")), usage=usage, calls=calls)
