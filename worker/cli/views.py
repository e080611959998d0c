"""How chunks look: on a terminal, in a pipe, as JSON lines."""

from __future__ import annotations

import unicodedata
from typing import Any, Protocol

import msgspec

from queue_backends import Chunk, ChunkType, TaskResult
from worker.cli.screen import Screen, clean
from worker.cli.wording import ending, shorten

RESTARTED = "[turn restarted]"
_TAB = 8


class View(Protocol):
    """Shows one task's chunks."""

    def chunk(self, chunk: Chunk) -> None:
        """Show a chunk that is not final."""
        ...

    def restart(self) -> None:
        """Drop what was shown of the present turn."""
        ...

    def end(self, result: TaskResult, *, elapsed_s: float | None) -> None:
        """Show how the task ended."""
        ...

    def pause(self) -> None:
        """End the line, because something else will be written."""
        ...


def view_for(screen: Screen) -> View:
    """The view that suits where the output goes."""
    if screen.as_json:
        return JsonView(screen)
    return TerminalView(screen) if screen.fancy else PlainView(screen)


class JsonView:
    """One JSON document a line: each chunk as it travels, superseded ones included; at the end the result."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def chunk(self, chunk: Chunk) -> None:
        """Write the chunk."""
        self._screen.json(chunk)

    def restart(self) -> None:
        """The higher `attempt` of the chunks tells it."""

    def end(self, result: TaskResult, *, elapsed_s: float | None) -> None:
        """Write `{"result": …}`."""
        self._screen.json({"result": result})

    def pause(self) -> None:
        """Lines are always whole."""


class PlainView:
    """The answer's text on stdout; tool calls and the ending on stderr, so that a pipe gets the answer alone."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._at_line_start = True

    def chunk(self, chunk: Chunk) -> None:
        """Write text to stdout and tool lines to stderr; reasoning is left out."""
        if chunk.metadata.get("route"):
            self.pause()
            self._screen.note(route_line(chunk, 200))
        if chunk.type is ChunkType.CONTENT and chunk.content:
            self._screen.write(chunk.content)
            self._at_line_start = chunk.content.endswith("\n")
        elif chunk.type in (ChunkType.TOOL_CALL, ChunkType.TOOL_RESULT):
            self.pause()
            self._screen.note(tool_line(chunk, 200))

    def restart(self) -> None:
        """Say that the text of this turn begins again: what is in the pipe cannot be taken back."""
        self.pause()
        self._screen.line(RESTARTED)

    def end(self, result: TaskResult, *, elapsed_s: float | None) -> None:
        """Write the ending to stderr."""
        self.pause()
        if result.error:
            self._screen.note(f"error: {clean(result.error)}", "bad")
        self._screen.note(ending(result, elapsed_s=elapsed_s))

    def pause(self) -> None:
        """End an unfinished line."""
        if not self._at_line_start:
            self._screen.write("\n")
            self._at_line_start = True


class TerminalView:
    """Text as it comes, reasoning and tool lines set apart by colour, a restarted turn wiped off the screen."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown = ""
        """What stands on the screen of the present turn; the cursor was at a line's start before it."""
        self._turn = -1
        self._kind: ChunkType | None = None

    def chunk(self, chunk: Chunk) -> None:
        """Write the chunk in its style, on a new line if it is of another kind than the one before."""
        if chunk.turn != self._turn:
            self.pause()
            if self._turn >= 0:
                self._screen.line()
            self._turn, self._shown, self._kind = chunk.turn, "", None
        if chunk.metadata.get("route"):
            self.pause()
            self._write(f"  {route_line(chunk, self._screen.size[0] - 4)}\n", "dim")
        if not chunk.content and chunk.type is ChunkType.CONTENT:
            return
        if chunk.type is not self._kind:
            self._break(chunk.type)
        match chunk.type:
            case ChunkType.CONTENT:
                self._write(clean(chunk.content))
            case ChunkType.THINKING:
                self._write(clean(chunk.content), "dim")
            case ChunkType.TOOL_CALL:
                self._write(f"  {tool_line(chunk, self._screen.size[0] - 4)}\n", "tool")
            case ChunkType.TOOL_RESULT:
                style = "bad" if chunk.metadata.get("is_error") else "dim"
                self._write(f"  {tool_line(chunk, self._screen.size[0] - 4)}\n", style)

    def restart(self) -> None:
        """Wipe the present turn off the screen, or say that it starts over if it has scrolled away."""
        columns, lines = self._screen.size
        rows = rows_below(self._shown, columns)
        if rows < lines:
            up = f"\x1b[{rows}A" if rows else ""
            self._screen.write(f"\r{up}\x1b[J")
        else:
            self.pause()
            self._screen.line(RESTARTED, "warn")
        self._shown, self._kind = "", None

    def end(self, result: TaskResult, *, elapsed_s: float | None) -> None:
        """Write the ending, in red what went wrong."""
        self.pause()
        if self._turn >= 0:
            self._screen.line()
        if result.error:
            self._screen.line(f"✗ {clean(result.error)}", "bad")
            self._screen.write("  ")
        else:
            self._screen.write("✓ ", "good")
        self._screen.line(ending(result, elapsed_s=elapsed_s), "dim")

    def pause(self) -> None:
        """End an unfinished line."""
        if self._shown and not self._shown.endswith("\n"):
            self._write("\n")

    def _break(self, kind: ChunkType) -> None:
        tools = (ChunkType.TOOL_CALL, ChunkType.TOOL_RESULT)
        self.pause()
        if self._shown and not (kind in tools and self._kind in tools):
            self._write("\n")
        self._kind = kind

    def _write(self, text: str, style: str = "") -> None:
        self._screen.write(text, style)
        self._shown += text


def tool_line(chunk: Chunk, width: int) -> str:
    """`→ name(key=value)` or `← first line of the answer`, cut to `width`."""
    if chunk.type is ChunkType.TOOL_CALL:
        name = str(chunk.metadata.get("name") or chunk.content)
        return shorten(clean(f"→ {name}({_arguments(chunk.metadata.get('arguments'))})"), width)
    lines = clean(chunk.content).strip().splitlines()
    more = f" (+{len(lines) - 1} lines)" if len(lines) > 1 else ""
    return shorten(f"← {lines[0] if lines else '(nothing)'}", width - len(more)) + more


def route_line(chunk: Chunk, width: int) -> str:
    """`⇢ openai/gpt-4o (anthropic/claude-sonnet-4-5: overloaded)`, cut to `width`."""
    route = chunk.metadata["route"]
    reason = str(route.get("reason", "")).replace("_", " ")
    return shorten(clean(f"⇢ {route.get('target', '')} ({route.get('from', '')}: {reason})"), width)


def _arguments(arguments: Any) -> str:
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments or "{}")
        except msgspec.DecodeError:
            return str(arguments)
    if not isinstance(arguments, dict):
        return "" if arguments is None else _value(arguments)
    return ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())


def _value(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def rows_below(text: str, columns: int) -> int:
    """By how many rows the cursor moves down when `text` is written from the first column of such a terminal.

    A terminal breaks a full line only when the next character comes; wide characters are never split.
    """
    row = column = 0
    for character in text:
        if character == "\n":
            row, column = row + 1, 0
            continue
        width = _TAB - column % _TAB if character == "\t" else _width(character)
        if character == "\t":
            column = min(column + width, columns - 1)
        elif column + width > columns:
            row, column = row + 1, width
        else:
            column += width
    return row


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
