"""Patterns that leave paths out, as `.gitignore` has them. Pure.

`*.tmp` fits a name anywhere, `/build` and `docs/old` a path from the folder's top, `cache/` folders alone, `**` any
number of folders; `!` brings back what an earlier pattern left out. The last pattern that fits decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from worker.datasources.errors import IngestFailed


class _Rule(NamedTuple):
    fits: re.Pattern[str]
    folders_alone: bool
    brings_back: bool


class Patterns:
    """Tells whether a path is left out. Of what is in a folder that is left out, nothing is asked.

    Raises `IngestFailed` for a pattern that is none.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._rules = [_rule(pattern.strip()) for pattern in patterns if pattern.strip() and pattern[0] != "#"]

    def fit(self, path: str, *, is_folder: bool) -> bool:
        """`path` is relative to the folder's top, with `/` between its parts."""
        left_out = False
        for rule in self._rules:
            if (is_folder or not rule.folders_alone) and rule.fits.fullmatch(path):
                left_out = not rule.brings_back
        return left_out


def _rule(pattern: str) -> _Rule:
    brings_back, pattern = pattern.startswith("!"), pattern.removeprefix("!")
    folders_alone, pattern = pattern.endswith("/"), pattern.rstrip("/")
    is_anchored = "/" in pattern
    expression = _expression(pattern.removeprefix("/"))
    try:
        fits = re.compile(expression if is_anchored else f"(?:.*/)?{expression}")
    except re.error as error:
        raise IngestFailed(f"pattern {pattern!r} cannot be understood: {error.msg}") from error
    return _Rule(fits, folders_alone, brings_back)


def _expression(pattern: str) -> str:
    parts = []
    rest = pattern
    while rest:
        if rest.startswith("**/"):
            parts.append("(?:.*/)?")
            rest = rest[3:]
        elif rest.startswith("**"):
            parts.append(".*")
            rest = rest[2:]
        elif rest[0] in "*?":
            parts.append("[^/]*" if rest[0] == "*" else "[^/]")
            rest = rest[1:]
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            inside = rest[1:end].replace("\\", "\\\\")
            parts.append(f"[^/{inside[1:]}]" if inside[0] == "!" else f"[{inside}]")
            rest = rest[end + 1 :]
        else:
            parts.append(re.escape(rest[0]))
            rest = rest[1:]
    return "".join(parts)
