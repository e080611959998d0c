"""The lower part of a terminal, drawn again and again in place: without flicker, without a trace when it goes."""

from __future__ import annotations

import contextlib
import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO, TypeAlias

from rich.cells import cell_len, set_cell_size

from worker.cli.screen import Screen, clean, styled

Span: TypeAlias = tuple[str, str]
"""A text and the name of its style."""
Line: TypeAlias = tuple[Span, ...]

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""A frame between these is shown at once by terminals that know them; others ignore them."""
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_ELLIPSIS = "…"


class LiveArea:
    """Lines that stand below what was written before, and are replaced in place. Use it as a context manager."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._lines: list[Line] = []
        """What stands there now; the cursor is at the start of the line below."""
        self._width = 0

    def __enter__(self) -> LiveArea:
        self._write(_HIDE)
        return self

    def __exit__(self, *_: object) -> None:
        self._write(_SHOW)

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these instead. Writes nothing if they stand there already."""
        width, height = self._screen.size
        fitting = [fit(line, width) for line in lines[: max(height - 1, 1)]]
        if fitting == self._lines and width == self._width:
            return
        pieces = [_BEGIN, self._upwards(width)]
        before = self._lines if width == self._width else []
        for index, line in enumerate(fitting):
            stands = index < len(before) and before[index] == line
            pieces.append("\n" if stands else f"{self._text(line)}\x1b[K\n")
        pieces += ["\x1b[J", _END]
        self._write("".join(pieces))
        self._lines, self._width = fitting, width

    @contextlib.contextmanager
    def below_the_log(self) -> Iterator[None]:
        """While the body runs, what is logged to stderr comes above the area, and stays."""
        err = self._screen.err
        handlers = [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]
        ours = [handler for handler in handlers if handler.stream is err]
        for handler in ours:
            handler.setStream(_Above(self, err))
        try:
            yield
        finally:
            for handler in ours:
                handler.setStream(err)

    def erase(self) -> None:
        """Take it away; what is written next stands in its place."""
        if not self._lines:
            return
        self._write(self._upwards(self._screen.size[0]) + "\x1b[J")
        self._lines = []

    def _upwards(self, width: int) -> str:
        """To the area's first line. A terminal that has become narrower has broken lines that were too long for it."""
        rows = sum(max(1, -(-cells(line) // max(width, 1))) for line in self._lines)
        return f"\r\x1b[{rows}A" if rows else "\r"

    def _text(self, line: Line) -> str:
        if not self._screen.fancy:
            return "".join(text for text, _ in line)
        return "".join(styled(text, style) for text, style in line)

    def _write(self, text: str) -> None:
        self._screen.out.write(text)
        self._screen.out.flush()


class _Above:
    """A stream whose texts push the area down."""

    def __init__(self, area: LiveArea, stream: TextIO) -> None:
        self._area = area
        self._stream = stream

    def write(self, text: str) -> None:
        """Write it where the area stands, which is drawn anew below it."""
        self._area.erase()
        self._stream.write(text)

    def flush(self) -> None:
        """Let it be seen."""
        self._stream.flush()


def cells(line: Line) -> int:
    """How many columns a line takes."""
    return sum(cell_len(text) for text, _ in line)


def fit(line: Line, width: int) -> Line:
    """The line without what goes beyond the width; wide characters are not split."""
    if cells(line) <= width:
        return line
    spans: list[Span] = []
    room = width - 1
    for text, style in line:
        size = cell_len(text)
        if size > room:
            spans.append((set_cell_size(text, room).rstrip() + _ELLIPSIS, style))
            break
        spans.append((text, style))
        room -= size
    return tuple(spans)


def cut(text: str, width: int) -> str:
    """One line of at most so many columns, without anything that could steer a terminal."""
    flat = safe(" ".join(text.split()))
    if cell_len(flat) <= width:
        return flat
    return set_cell_size(flat, max(width - 1, 0)).rstrip() + _ELLIPSIS if width > 0 else ""


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled up with spaces to so many columns."""
    space = " " * max(width - cell_len(text), 0)
    return space + text if right else text + space


def safe(text: str) -> str:
    """Text of others without what steers a terminal, or turns around the order of its characters."""
    if text.isprintable():  # nearly all: twenty streams are drawn eight times a second
        return text
    return "".join(each for each in clean(text) if each in "\n\t" or unicodedata.category(each) not in _STEERING)


_STEERING = frozenset({"Cf", "Cc", "Cs", "Co"})
"""Format characters (among them those that change the direction), controls, lone surrogates, private use."""


def last_lines(text: str, width: int, most: int) -> list[str]:
    """The last lines of a text that is broken at words to so many columns; empty ones are left out."""
    if most <= 0 or width <= 0:
        return []
    lines: list[str] = []
    for paragraph in reversed(text.splitlines()):
        lines[:0] = _broken(safe(paragraph).split(), width)
        if len(lines) >= most:
            break
    return lines[-most:]


def first_lines(text: str, width: int, most: int) -> list[str]:
    """The first lines of a text that is broken at words; the last one tells that there are more."""
    lines = [line for paragraph in text.splitlines() for line in _broken(safe(paragraph).split(), max(width, 1))]
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], cut(f"{lines[most - 1]} {lines[most]}…", width)]


def _broken(words: Iterable[str], width: int) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in words:
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *whole, line = _chopped(word, width)
        lines += whole
    return [*lines, line] if line else lines


def _chopped(word: str, width: int) -> list[str]:
    pieces, piece, size = [], "", 0
    for character in word:
        columns = cell_len(character)
        if size + columns > width and piece:
            pieces.append(piece)
            piece, size = "", 0
        piece, size = piece + character, size + columns
    return [*pieces, piece]
