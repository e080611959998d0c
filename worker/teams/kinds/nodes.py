"""YAML values that know where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(slots=True, eq=False)
class Node:
    """A value of a document. Lines and columns count from 1."""

    kind: Literal["map", "list", "scalar"]
    line: int
    column: int
    text: str = ""
    """A scalar as it is written, without its quotes."""
    value: Any = None
    """A scalar's value: None, a truth value, a number or text."""
    style: str = ""
    """A scalar's: `'`, `"`, `|`, `>`; empty: plain."""
    lines: int = 1
    """How many lines a scalar takes."""
    indent: int = 0
    """Of a block scalar's text: its columns before the text begins."""
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Node] = field(default_factory=dict)
    """The keys of `entries`, where they stand."""
    path: str = ""
    size: int = 1
    """Nodes in it, itself included; a long text counts as several."""
    height: int = 1
    """Levels in it, its own included."""

    @property
    def is_null(self) -> bool:
        """Whether nothing is given."""
        return self.kind == "scalar" and self.value is None

    @property
    def type_name(self) -> str:
        """For messages."""
        if self.kind != "scalar":
            return {"map": "a mapping", "list": "a list"}[self.kind]
        names = {bool: "a truth value", int: "a number", float: "a number", str: "text"}
        return names.get(type(self.value), "nothing")

    def name(self, path: str) -> None:
        """Tell this node, and all below, their paths."""
        self.path = path
        for key, below in self.entries.items():
            inner = f"{path}.{key}" if path else key
            self.keys[key].path = inner
            below.name(inner)
        for index, below in enumerate(self.items):
            below.name(f"{path}[{index}]")

    def copy(self) -> Node:
        """Another node of the same content, for an alias."""
        return Node(
            kind=self.kind,
            line=self.line,
            column=self.column,
            text=self.text,
            value=self.value,
            style=self.style,
            lines=self.lines,
            indent=self.indent,
            items=[item.copy() for item in self.items],
            entries={key: below.copy() for key, below in self.entries.items()},
            keys={key: below.copy() for key, below in self.keys.items()},
            path=self.path,
            size=self.size,
            height=self.height,
        )

    def plain(self) -> Any:
        """As ordinary Python values."""
        if self.kind == "map":
            return {key: below.plain() for key, below in self.entries.items()}
        if self.kind == "list":
            return [item.plain() for item in self.items]
        return self.value

    def place(self, line: int, column: int) -> tuple[int, int]:
        """Where a line and a column of the text stand in the file. Of text that YAML folds: where it begins."""
        if self.style == "|":
            return self.line + line, self.indent + column
        if self.lines > 1 or line > 1:
            return self.line, self.column
        return self.line, self.column + column - (0 if self.style else 1)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.items)
