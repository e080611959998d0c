"""How far somebody has heard a session: for each conversation the message that is next, and its last chunk heard.

As text, for `Last-Event-ID`: `0.3.17,2.1.-`: of conversation 0 everything before message 3, and of that one all up to
chunk 17; of conversation 2 nothing of message 1 yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

_MOST_CHARS = 4096
_ENTRY = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9}|-)")


class Position(Struct, frozen=True):
    """Where somebody is in a conversation."""

    message: int
    """Number of the message that is being heard, or comes next."""
    seq: int = -1
    """The last chunk of it that was heard; -1: none."""


def written(positions: Mapping[int, Position]) -> str:
    """Positions by the conversations' numbers, as text."""
    return ",".join(
        f"{number}.{at.message}.{'-' if at.seq < 0 else at.seq}" for number, at in sorted(positions.items())
    )


def read(text: str) -> dict[int, Position] | None:
    """The positions that `written` wrote; None for a text that is none."""
    if not text:
        return {}
    found: dict[int, Position] = {}
    for part in text[:_MOST_CHARS].split(","):
        entry = _ENTRY.fullmatch(part)
        if entry is None or len(text) > _MOST_CHARS:
            return None
        number, message, seq = entry.groups()
        found[int(number)] = Position(int(message), -1 if seq == "-" else int(seq))
    return found
