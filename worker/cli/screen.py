"""Where a command writes: in colour on a terminal, plain in a pipe or with NO_COLOR, JSON or YAML on request."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TextIO

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
"""Orders to a terminal, as a whole: colours, cursor movements, titles (ECMA-48)."""
_STYLES = {"": "", "dim": "2", "bold": "1", "tool": "36", "good": "32", "warn": "33", "bad": "31"}
_RICH_STYLES = {"": "", "dim": "dim", "bold": "bold", "tool": "cyan", "good": "green", "warn": "yellow", "bad": "red"}


class Column(NamedTuple):
    """One column of a table."""

    title: str
    right: bool = False
    style: str = ""
    """A name of `_STYLES`."""
    wide: bool = False
    """Takes the room that is left and is cut to it; others are never cut."""


class Cell(NamedTuple):
    """A cell with a style of its own."""

    text: str
    style: str = ""


class Screen:
    """Output of one command. `fancy` says that stdout is a terminal that may show colours."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        as_yaml: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        as_json = as_json or as_yaml
        self.as_json = as_json
        """Whether the reader is a program: `json` writes what it wants."""
        self.as_yaml = as_yaml
        """Whether that is YAML."""
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self.fancy = not as_json and _is_fancy(self.out, environ)
        self.is_live = not as_json and self.out.isatty() and environ.get("TERM") != "dumb"
        """Whether stdout is a terminal on which lines can be drawn anew, maybe without colours."""
        self.fancy_notes = _is_fancy(self.err, environ)
        self._is_asking = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""
        found = shutil.get_terminal_size((100, 24))
        return found.columns, found.lines

    def write(self, text: str, style: str = "") -> None:
        """Write a piece of text as it is, without a line end, and let it be seen at once."""
        self.out.write(styled(text, style) if self.fancy else text)
        self.out.flush()

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line."""
        self.write(text, style)
        self.out.write("\n")
        self.out.flush()

    def note(self, text: str, style: str = "dim") -> None:
        """Write one line for the reader, not for a pipe: it goes to stderr."""
        self.out.flush()
        start, self._is_asking = "\n" if self._is_asking else "", False
        self.err.write(start + (styled(text, style) if self.fancy_notes else text) + "\n")
        self.err.flush()

    def prompt(self, text: str, style: str = "bold") -> None:
        """Ask the reader something, on stderr: the cursor stays behind it until he has `answered`."""
        self.out.flush()
        self.err.write(styled(text, style) if self.fancy_notes else text)
        self.err.flush()
        self._is_asking = True

    def answered(self) -> None:
        """The cursor is on a new line again."""
        self._is_asking = False

    def json(self, value: Any) -> None:
        """Write one document: JSON on one line, or YAML after a line `---`, if that is wanted."""
        import msgspec

        if self.as_yaml:
            import yaml  # 20 ms, for those alone who want it

            plain = msgspec.to_builtins(value, str_keys=True)
            yaml.safe_dump(plain, self.out, sort_keys=False, allow_unicode=True, width=100, explicit_start=True)
        else:
            self.out.write(msgspec.json.encode(value).decode() + "\n")
        self.out.flush()

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], *, empty: str = "nothing") -> None:
        """Write a table, without columns that are empty in every row; without rows, note `empty`."""
        if not rows:
            self.note(empty)
            return
        cells = [[_cell(cell) for cell in row] for row in rows]
        shown = [index for index, _ in enumerate(columns) if any(row[index].text for row in cells)]
        columns, cells = [columns[index] for index in shown], [[row[index] for index in shown] for row in cells]
        if self.fancy:
            self._rich_table(columns, cells)
        else:
            self.out.write(plain_table(columns, cells))
            self.out.flush()

    def fields(self, pairs: Sequence[tuple[str, str | Cell]]) -> None:
        """Write names and values, one pair a line; a value of several lines is indented."""
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            cell = _cell(value, one_line=False)
            text = cell.text.replace("\n", "\n" + " " * (width + 2))
            self.write(f"{name:<{width}}  ", "dim")
            self.line(text, cell.style)

    def _rich_table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        from rich import box  # 60 ms, for tables on terminals alone
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
        widths = [max(len(column.title), *(len(row[n].text) for row in rows)) for n, column in enumerate(columns)]
        if wide := [index for index, column in enumerate(columns) if column.wide]:
            # rich would take from all columns alike.
            others = sum(width for index, width in enumerate(widths) if index not in wide)
            room = (self.size[0] - others - 2 * (len(columns) - 1)) // len(wide)
            for index in wide:
                widths[index] = max(min(widths[index], room), 12)
        for column, width in zip(columns, widths, strict=True):
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                style=_RICH_STYLES[column.style],
                no_wrap=True,
                overflow="ellipsis",
                width=width,
            )
        for row in rows:
            table.add_row(*(Text(cell.text, style=_RICH_STYLES[cell.style]) for cell in row))
        Console(file=self.out, width=self.size[0], highlight=False).print(table)


def clean(text: str) -> str:
    """Text of others without what could steer a terminal; line ends and tabs stay."""
    return _CONTROL.sub("", _SEQUENCES.sub("", text))


def styled(text: str, style: str) -> str:
    """The text between the terminal's codes for a style."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text else text


def plain_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> str:
    """Aligned columns of plain text, two spaces apart."""
    widths = [max(len(column.title), *(len(row[index].text) for row in rows)) for index, column in enumerate(columns)]
    lines = [_aligned([column.title.upper() for column in columns], columns, widths)]
    lines += [_aligned([cell.text for cell in row], columns, widths) for row in rows]
    return "".join(line.rstrip() + "\n" for line in lines)


def _aligned(texts: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    padded = (
        text.rjust(width) if column.right else text.ljust(width)
        for text, column, width in zip(texts, columns, widths, strict=True)
    )
    return "  ".join(padded)


def _cell(value: str | Cell, *, one_line: bool = True) -> Cell:
    cell = value if isinstance(value, Cell) else Cell(value)
    text = clean(cell.text)
    return Cell(" ".join(text.split()) if one_line else text, cell.style)


def _is_fancy(stream: TextIO, environ: Mapping[str, str]) -> bool:
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
