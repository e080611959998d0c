"""How deep and how large a value from outside may be, told before anything walks through it recursively."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_LEVELS = 64
MOST_ITEMS = 1_000_000
"""Each is counted as often as it is referred to: a YAML file of a few lines can stand for billions."""


def check_nesting(value: Any) -> None:
    """Raise `ValueError` for what is nested too deeply, within itself, or has too many items."""
    level, items = [value], 0
    for _ in range(MOST_LEVELS + 1):
        below: list[Any] = []
        for each in level:
            inside = each.values() if isinstance(each, Mapping) else each if isinstance(each, list | tuple) else ()
            items += len(inside)
            if items > MOST_ITEMS:
                raise ValueError(f"it has more than {MOST_ITEMS} items, with those that are referred to again")
            below += [inner for inner in inside if isinstance(inner, Mapping | list | tuple)]
        if not below:
            return
        level = below
    raise ValueError(f"it is more than {MOST_LEVELS} levels deep")
