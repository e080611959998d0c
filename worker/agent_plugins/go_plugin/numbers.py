"""Numbers for what we know by names: AI Studio's protocol addresses models, tools and data sources by number."""

from __future__ import annotations

import zlib
from collections.abc import Iterable


def number_of(name: str) -> int:
    """The same for a name on every machine: from 1 to 2³¹-1."""
    return (zlib.crc32(name.encode()) & 0x7FFF_FFFF) or 1


def numbered(names: Iterable[str]) -> dict[int, str]:
    """Names by their numbers; of two that have the same, the later one gets the next that is free."""
    found: dict[int, str] = {}
    for name in names:
        number = number_of(name)
        while number in found:
            number = number % 0x7FFF_FFFF + 1
        found[number] = name
    return found
