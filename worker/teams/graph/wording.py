"""Words and figures on a picture, and how much room they take."""

from __future__ import annotations

import unicodedata
from typing import Final

from worker.teams.run_state import Phase

GLYPHS: Final = {
    Phase.PENDING: "○",
    Phase.RUNNING: "●",
    Phase.VALIDATING: "◆",
    Phase.WAITING: "‖",
    Phase.SUCCEEDED: "✓",
    Phase.FAILED: "✗",
    Phase.SKIPPED: "»",
    Phase.CANCELLED: "⊘",
}
"""One cell each, in any font that has box drawing; no emoji."""

_EMS: Final = (
    (frozenset("ijl.,:;|!' "), 0.34),
    (frozenset('tfr()[]/\\-`"·'), 0.43),
    (frozenset("mwMW@%—…<>=+~≤≥✓✗"), 0.96),
)
"""Widths in a broad font, DejaVu Sans: in others there is room to spare."""


def one_line(text: str) -> str:
    """Without line ends, control characters and what turns the direction of writing."""
    return " ".join("".join(character if _is_plain(character) else " " for character in text).split())


def _is_plain(character: str) -> bool:
    return character == "\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn")


def cells(text: str) -> int:
    """How many cells of a terminal it takes."""
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or character in "\u200d\ufe0e\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clipped_cells(text: str, most: int) -> str:
    """Its beginning, as far as it fits into so many cells."""
    text = one_line(text)
    if cells(text) <= most:
        return text
    kept, used = [], 0
    for character in text:
        used += _cells_of(character)
        if used > most - 1:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…" if most > 0 else ""


def pixels(text: str, size: float) -> float:
    """About how wide it is in a proportional font of that size; rather too much than too little."""
    return sum(_ems(character) for character in text) * size


def _ems(character: str) -> float:
    for characters, ems in _EMS:
        if character in characters:
            return ems
    if _cells_of(character) != 1:
        return _cells_of(character) * 0.55
    return 0.74 if character.isupper() else 0.63


def clipped_pixels(text: str, most: float, size: float) -> str:
    """Its beginning, as far as it fits into so many pixels."""
    text = one_line(text)
    if pixels(text, size) <= most:
        return text
    kept, used = [], pixels("…", size)
    for character in text:
        used += _ems(character) * size
        if used > most:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def tokens_text(tokens: int) -> str:
    """`940 tok`, `12.3k tok`, `1.2M tok`."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if tokens >= 0.9995 * size:
            return f"{tokens / size:.3g}{unit} tok"
    return f"{tokens} tok"


def seconds_text(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def cost_text(cost_usd: float) -> str:
    """`$0`, `$0.0012`, `$3.40`."""
    if cost_usd == 0:
        return "$0"
    return f"${cost_usd:.2g}" if cost_usd < 0.01 else f"${cost_usd:.2f}"
