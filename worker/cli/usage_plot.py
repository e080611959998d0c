"""Bars in a terminal, to an eighth of a character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_PARTS = " ▏▎▍▌▋▊▉█"
_LONGEST_NAME = 40
_FEWEST_CELLS = 10


class Bar(NamedTuple):
    """One line of a plot; all names of a plot have the same width."""

    name: str
    bar: str
    label: str


def bars(values: Sequence[tuple[str, float]], labels: Sequence[str], *, width: int) -> list[Bar]:
    """A bar for each value, the greatest as long as the terminal of `width` columns allows beside names and labels."""
    names = [name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name, _ in values]
    longest = max(map(len, names))
    cells = max(width - longest - max(map(len, labels)) - 4, _FEWEST_CELLS)
    most = max((value for _, value in values), default=0.0)
    return [
        Bar(name.ljust(longest), _bar(value / most if most > 0 else 0.0, cells), label)
        for name, (_, value), label in zip(names, values, labels, strict=True)
    ]


def _bar(share: float, cells: int) -> str:
    eighths = round(share * cells * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + (_PARTS[eighths % 8] if eighths % 8 else "")
