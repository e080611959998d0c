"""How a node is written on its card: each line clipped to the card's width."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from worker.teams.graph.model import Node
from worker.teams.graph.wording import clipped_pixels, cost_text, pixels, seconds_text, tokens_text

WIDTH: Final = 216.0
PAD: Final = 14.0
ICON: Final = 24.0
"""Of the phase, with its gap; a card without a phase has none."""
TITLE_PX: Final = 14.0
TEXT_PX: Final = 12.0
SMALL_PX: Final = 11.0
_BOLD: Final = 1.08
MARK_PAD: Final = 7.0
MARK_GAP: Final = 5.0
_TOP: Final = 25.0
_LINE: Final = 17.0
_MARKS: Final = 25.0
_BOTTOM: Final = 12.0


class Mark(Struct, frozen=True):
    """A small label."""

    text: str
    x: float
    """From the card's left edge."""
    width: float


class Card(Struct, frozen=True, kw_only=True):
    """A node's lines, and where they stand; `y` is of the base line, from the card's top edge."""

    title: str
    lines: tuple[tuple[str, float], ...]
    """Texts with their `y`."""
    facts: str
    """Progress, tokens, seconds, cost."""
    facts_y: float
    marks: tuple[Mark, ...]
    marks_y: float
    """Of the labels' upper edge."""
    text_x: float
    title_y: float
    height: float


def card_of(node: Node) -> Card:
    """The card of a node."""
    text_x = PAD + (ICON if node.phase is not None else 0.0)
    room = WIDTH - text_x - PAD
    y = _TOP
    lines: list[tuple[str, float]] = []
    if node.subtitle:
        y += _LINE
        lines.append((clipped_pixels(node.subtitle, room, TEXT_PX), y))
    if node.kind == "child" and node.message:
        y += _LINE
        lines.append((clipped_pixels(node.message, room, TEXT_PX), y))
    facts_y = 0.0
    if node.phase is not None:
        y += _LINE
        facts_y = y
    marks = _marks(node, text_x)
    marks_y = y + 8.0
    return Card(
        title=clipped_pixels(node.title, room, TITLE_PX * _BOLD),
        lines=tuple(lines),
        facts=clipped_pixels(facts_of(node), room, TEXT_PX),
        facts_y=facts_y,
        marks=marks,
        marks_y=marks_y,
        text_x=text_x,
        title_y=_TOP,
        height=y + _BOTTOM + (_MARKS if marks else 0.0),
    )


def facts_of(node: Node) -> str:
    """What a run has told of it: the phase in a word if it has no figures yet."""
    if node.phase is None:
        return ""
    parts = [node.progress] if node.progress else []
    if node.tokens:
        parts.append(tokens_text(node.tokens))
    if node.seconds is not None:
        parts.append(seconds_text(node.seconds))
    if node.cost_usd:
        parts.append(cost_text(node.cost_usd))
    return " · ".join(parts) or ("not used" if node.is_idle else node.phase.value)


def _marks(node: Node, left: float) -> tuple[Mark, ...]:
    found: list[Mark] = []
    x = left
    for text in node.marks:
        shown = clipped_pixels(text, 120.0, SMALL_PX)
        width = round(pixels(shown, SMALL_PX) + 2 * MARK_PAD, 1)
        if x + width > WIDTH - PAD / 2:
            break
        found.append(Mark(shown, x, width))
        x += width + MARK_GAP
    return tuple(found)
