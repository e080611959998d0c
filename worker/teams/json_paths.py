"""Reads one value out of JSON by a path: JSONPath's plain parts (`$.items[0].name`, `$['a b']`, `[*]`, negative
indexes) and the dotted form of kubeswarm's files (`items.0.name`, `items.#.name`). No filters, and no `..`."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

Part: TypeAlias = str | int | None
"""A key, an index, or None for every item."""
_PART = re.compile(
    r"""
    (?:^|\.)(?P<name>[^.\[\]'"*\#$\s][^.\[\]]*)       # name
    | (?:^|\.)?\[\s*(?P<index>-?\d{1,9})\s*\]          # [0]
    | (?:^|\.)?\[\s*'(?P<single>[^']*)'\s*\]           # ['a b']
    | (?:^|\.)?\[\s*"(?P<double>[^"]*)"\s*\]           # ["a b"]
    | (?:^|\.)?(?:\[\s*\*\s*\])                        # [*]
    | (?:^|\.)[*\#](?=\.|\[|$)                         # .* and .#
    """,
    re.VERBOSE,
)
NOT_FOUND: Any = object()


def parts_of(path: str) -> list[Part] | None:
    """The parts of a path; None if it is none."""
    text = path.strip()
    if text.startswith("$"):
        text = text[1:]
        if not text:
            return []
        if text[0] not in ".[" or text.startswith(".."):
            return None
        text = text.removeprefix(".")
    parts: list[Part] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at) if at else _PART.match(text)
        if found is None or found.end() == at:
            return None
        parts.append(_part(found))
        at = found.end()
    return parts or None


def _part(found: re.Match[str]) -> Part:
    if found["index"] is not None:
        return int(found["index"])
    return next((found[name] for name in ("name", "single", "double") if found[name] is not None), None)


def value_at(value: Any, path: str) -> Any:
    """The value; `NOT_FOUND` where there is none, or where the path is none. Several are a list."""
    parts = parts_of(path)
    return NOT_FOUND if parts is None else _walked(value, parts)


def _walked(value: Any, parts: list[Part]) -> Any:
    for place, part in enumerate(parts):
        if part is None:
            return _each(value, parts[place + 1 :])
        value = _item(value, part)
        if value is NOT_FOUND:
            return NOT_FOUND
    return value


def _each(value: Any, rest: list[Part]) -> Any:
    items = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(items, list):
        return NOT_FOUND
    found = (_walked(item, rest) for item in items)
    return [item for item in found if item is not NOT_FOUND]


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(str(part), NOT_FOUND)
    if isinstance(value, list) and (isinstance(part, int) or (part.isascii() and part.isdecimal() and len(part) < 10)):
        index = int(part)
        return value[index] if -len(value) <= index < len(value) else NOT_FOUND
    return NOT_FOUND
