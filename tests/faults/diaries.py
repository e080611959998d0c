"""Append-only files in which servers and tools note what happened, one JSON line each, and how they are read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct


class Diary:
    """Writes lines. Each is one write in append mode, so that a reader never sees half of one of another process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, **fields: Any) -> None:
        """Add a line; `at` is the present moment, in Unix seconds."""
        os.write(self._file, msgspec.json.encode({"at": time.time(), **fields}) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class CallStart(Struct, frozen=True, kw_only=True, tag="call", tag_field="kind"):
    """The provider received a model call."""

    at: float
    no: int
    """Unique among all model calls of a soak; the answer's output tokens are this number too."""
    key: str
    turn: int
    worker: str
    lineage: tuple[int, ...]
    """The earlier answers in the conversation, as numbers of the calls that gave them."""
    odd: tuple[tuple[int, int, str], ...] = ()
    """Tool outcomes in the conversation that are not what the tool answers: turn, index, text."""
    mangled: str = ""
    """What is wrong with the conversation itself."""


class CallEnd(Struct, frozen=True, kw_only=True, tag="end", tag_field="kind"):
    """A model call is over."""

    at: float
    no: int
    ending: str
    """`complete`, `left` by the worker, `cut` or `refused` by the provider as planned."""
    begun: bool
    """Whether anything of the answer was sent."""


class Call(Struct, frozen=True, kw_only=True):
    """A model call as the provider saw it."""

    start: CallStart
    end: CallEnd | None

    @property
    def is_complete(self) -> bool:
        """The last byte of the answer was sent."""
        return self.end is not None and self.end.ending == "complete"

    @property
    def begun(self) -> bool:
        """Something of an answer was sent, which a vendor would charge for."""
        return self.end is None or self.end.begun

    @property
    def ended_at(self) -> float:
        """When it was over; a call of which nobody knows ended when it began."""
        return self.end.at if self.end is not None else self.start.at


class Effect(Struct, frozen=True, kw_only=True):
    """A tool took effect."""

    at: float
    tool: str
    key: str
    step: str


class Injected(Struct, frozen=True, kw_only=True):
    """A fault that was carried out. `target` is a worker's name, `broker`, `clients` or `all`."""

    at: float
    until: float
    """When its immediate effect was over."""
    kind: str
    target: str


def read_calls(path: Path) -> list[Call]:
    """All model calls, in the order in which they came."""
    starts: dict[int, CallStart] = {}
    ends: dict[int, CallEnd] = {}
    for entry in _read(path, CallStart | CallEnd):
        if isinstance(entry, CallStart):
            starts[entry.no] = entry
        else:
            ends[entry.no] = entry
    return [Call(start=start, end=ends.get(number)) for number, start in sorted(starts.items())]


def read_effects(*paths: Path) -> list[Effect]:
    """All effects that tools noted."""
    return [effect for path in paths if path.exists() for effect in _read(path, Effect)]


def _read(path: Path, kind: Any) -> Sequence[Any]:
    decoder = msgspec.json.Decoder(kind)
    return decoder.decode_lines(path.read_bytes())
