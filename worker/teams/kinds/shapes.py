"""What a field's value may be, and how it is read: a value that does not fit is an error at its place."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

from worker.teams.kinds.findings import Findings
from worker.teams.kinds.nodes import Node

_MOST_COMPARED = 300
_LONGEST_COMPARED = 100
_MOST = 1e15
"""Of any number: other programs, and counters in the store, take no larger ones as they are."""
_LONGEST_S = 366 * 86_400.0
_SPAN_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SPAN = re.compile(rf"(?:{_SPAN_PART.pattern}){{1,5}}")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Shape(Protocol):
    """Reads a value, or tells what is wrong with it and gives None."""

    def read(self, node: Node, findings: Findings) -> Any:
        """The value; None if it does not fit (an error was told)."""

    def allowed(self) -> str:
        """What fits, for messages and the reference."""


@dataclass(frozen=True)
class Text:
    """A text; a number or a truth value is taken as it is written, as Kubernetes' reader does."""

    is_required: bool = False
    """Not empty."""
    check: Callable[[str, Node, Findings], None] | None = None
    """Tells what is wrong with it."""
    means: str = "text"

    def read(self, node: Node, findings: Findings) -> str | None:
        """The text."""
        if node.kind != "scalar" or node.value is None:
            findings.error(node, f"it is {node.type_name}: use {self.means}{_quoting(node)}")
            return None
        text = node.value if isinstance(node.value, str) else node.text
        if self.is_required and not text.strip():
            findings.error(node, f"it is empty: use {self.means}")
            return None
        if self.check is not None:
            self.check(text, node, findings)
        return text

    def allowed(self) -> str:
        """What fits."""
        return self.means


def _quoting(node: Node) -> str:
    is_template = node.kind == "map" and len(node.entries) == 1 and node.column > 1
    return ", in quotes if it has braces" if is_template else ""


@dataclass(frozen=True)
class Number:
    """A number within bounds."""

    least: float | None = None
    most: float | None = None
    is_whole: bool = True

    def read(self, node: Node, findings: Findings) -> float | int | None:
        """The number."""
        value = node.value
        if isinstance(value, str) and not self.is_whole:
            value = _number(value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or (self.is_whole and value != int(value)):
            findings.error(node, f"it is {shown(node)}: use {self.allowed()}")
            return None
        if abs(value) > _MOST:
            findings.error(node, f"it is {shown(node)}, which is too large: use {self.allowed()}")
            return None
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            findings.error(node, f"it is {shown(node)}: use {self.allowed()}")
            return None
        return int(value) if self.is_whole else float(value)

    def allowed(self) -> str:
        """What fits."""
        what = "a whole number" if self.is_whole else "a number"
        if self.least is not None and self.most is not None:
            return f"{what} from {self.least:g} to {self.most:g}"
        return f"{what} of at least {self.least:g}" if self.least is not None else what


def _number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


@dataclass(frozen=True)
class Flag:
    """A truth value."""

    def read(self, node: Node, findings: Findings) -> bool | None:
        """The truth value; `yes`, `no`, `on` and `off` are as Kubernetes' reader has them."""
        words = {"yes": True, "on": True, "no": False, "off": False}
        value = words.get(node.text.lower(), node.value) if not node.style else node.value
        if not isinstance(value, bool):
            findings.error(node, f"it is {shown(node)}: use true or false")
            return None
        return value

    def allowed(self) -> str:
        """What fits."""
        return "true or false"


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, node: Node, findings: Findings) -> str | None:
        """The word."""
        text = node.text if node.kind == "scalar" else None
        if text not in self.words:
            findings.error(node, f"it is {shown(node)}: use {self.allowed()}{did_you_mean(text or '', self.words)}")
            return None
        return text

    def allowed(self) -> str:
        """What fits."""
        return f"one of {', '.join(self.words)}" if len(self.words) > 1 else self.words[0]


@dataclass(frozen=True)
class Seconds:
    """A time span: a number of seconds, or text as `90s`, `5m`, `1h30m`."""

    def read(self, node: Node, findings: Findings) -> float | None:
        """In seconds."""
        span_s = _span_s(node)
        if span_s is None or not 0 <= span_s <= _LONGEST_S:
            findings.error(node, f"it is {shown(node)}: use {self.allowed()}")
            return None
        return span_s

    def allowed(self) -> str:
        """What fits."""
        return "a time span such as 90s, 5m or 168h, at most a year"


def _span_s(node: Node) -> float | None:
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    if node.kind != "scalar" or not _SPAN.fullmatch(node.text):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _SPAN_PART.findall(node.text))


@dataclass(frozen=True)
class Anything:
    """Any value."""

    kinds: tuple[str, ...] = ()
    """`map`, `list`, `scalar`; empty: all."""

    def read(self, node: Node, findings: Findings) -> Any:
        """As plain values."""
        if self.kinds and node.kind not in self.kinds:
            findings.error(node, f"it is {node.type_name}: use {self.allowed()}")
            return None
        return node.plain()

    def allowed(self) -> str:
        """What fits."""
        names = {"map": "a mapping", "list": "a list", "scalar": "a plain value"}
        return " or ".join(names[kind] for kind in self.kinds) or "any value"


@dataclass(frozen=True)
class ListOf:
    """A list."""

    item: Shape
    least: int = 0
    most: int = 1000
    unique: str = ""
    """Field of the items that has to be different in each; `.`: the items themselves."""

    def read(self, node: Node, findings: Findings) -> list[Any] | None:
        """Its items, without those that do not fit."""
        if node.kind != "list":
            hint = " (put '- ' before it)" if node.kind == "scalar" else ""
            findings.error(node, f"it is {node.type_name}: use {self.allowed()}{hint}")
            return None
        if not self.least <= len(node.items) <= self.most:
            findings.error(node, f"it has {len(node.items)} items: use {self.allowed()}")
        found = [self.item.read(item, findings) for item in node.items]
        if self.unique:
            self._check_unique(node, findings)
        return [value for value in found if value is not None]

    def _check_unique(self, node: Node, findings: Findings) -> None:
        seen: dict[str, Node] = {}
        for item in node.items:
            named = item if self.unique == "." else item.entries.get(self.unique)
            if named is None or named.kind != "scalar" or named.is_null:
                continue
            if (first := seen.setdefault(named.text, named)) is not named:
                findings.error(named, f"{named.text!r} is there twice, first in line {first.line}")

    def allowed(self) -> str:
        """What fits."""
        least = f" of at least {self.least}" if self.least else ""
        return f"a list{least}: {self.item.allowed()}"


@dataclass(frozen=True)
class MapOf:
    """A mapping with any keys."""

    item: Shape

    def read(self, node: Node, findings: Findings) -> dict[str, Any] | None:
        """In the file's order, without what does not fit."""
        if node.kind != "map":
            findings.error(node, f"it is {node.type_name}: use {self.allowed()}")
            return None
        found = {name: self.item.read(below, findings) for name, below in node.entries.items()}
        return {name: value for name, value in found.items() if value is not None}

    def allowed(self) -> str:
        """What fits."""
        return f"a mapping of names to {self.item.allowed()}"


@dataclass(frozen=True)
class Either:
    """Different shapes for a list, a mapping and a plain value."""

    shapes: Mapping[Literal["map", "list", "scalar"], Shape]

    def read(self, node: Node, findings: Findings) -> Any:
        """As the shape that fits the node's kind has it."""
        shape = self.shapes.get(node.kind)
        if shape is None:
            findings.error(node, f"it is {node.type_name}: use {self.allowed()}")
            return None
        return shape.read(node, findings)

    def allowed(self) -> str:
        """What fits."""
        return ", or ".join(shape.allowed() for shape in self.shapes.values())


def did_you_mean(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """` (did you mean …?)`, or nothing if no known name is that much like it."""
    names = list(islice(known, _MOST_COMPARED))
    if len(name) > _LONGEST_COMPARED:
        return ""
    same = [other for other in names if other.casefold() == name.casefold()]
    near = same or difflib.get_close_matches(name, names, n=1, cutoff=likeness)
    return f" (did you mean `{near[0]}`?)" if near else ""


def shown(node: Node) -> str:
    if node.kind != "scalar" or node.is_null:
        return node.type_name
    return repr(node.text if len(node.text) <= 60 else node.text[:60] + "…")
