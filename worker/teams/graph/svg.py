"""A picture as SVG: it stands by itself, needs no font, script or other file, and is read aloud as a list of its steps.

Everything that comes from a file is escaped: names are whatever somebody wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal
from xml.sax.saxutils import escape, quoteattr

from worker.teams.graph.card import MARK_PAD, Card, card_of
from worker.teams.graph.model import Edge, Graph, Node
from worker.teams.graph.outline import outline
from worker.teams.graph.shapes import ICONS, edge_path
from worker.teams.graph.svg_style import style_of
from worker.teams.graph.wording import clipped_pixels, one_line, pixels

Theme = Literal["auto", "light", "dark"]

_LABEL_PX: Final = 11.0
_LABEL_MOST: Final = 200.0
_MARK_HEIGHT: Final = 18
_LABEL_TOP: Final = 34
_MOST_TOLD: Final = 100
"""So many nodes are listed in the description."""


def as_svg(graph: Graph, theme: Theme = "auto") -> str:
    """The picture. `auto` follows whoever looks at it: light or dark."""
    body = "\n".join(_body(graph))
    size = f'width="{graph.width:g}" height="{graph.height:g}" viewBox="0 0 {graph.width:g} {graph.height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="shoal-graph" role="img" aria-labelledby="graph-title" '
        f'aria-describedby="graph-about" {size}>\n'
        f'<title id="graph-title">{_text(_title(graph))}</title>\n'
        f'<desc id="graph-about">{_text(_about(graph))}</desc>\n'
        f"<style>{style_of(theme)}</style>\n{body}\n</svg>\n"
    )


def _title(graph: Graph) -> str:
    return one_line(graph.name) + (f": {graph.phase.value}" if graph.phase else "")


def _about(graph: Graph) -> str:
    lines = [line for _, _, line in outline(graph)]
    more = [f"and {len(lines) - _MOST_TOLD} more"] if len(lines) > _MOST_TOLD else []
    left_out = [f"{graph.left_out} edges that others imply are not drawn"] if graph.left_out else []
    return "; ".join([*lines[:_MOST_TOLD], *more, *left_out])


def _body(graph: Graph) -> Iterator[str]:
    yield f'<rect class="back" width="{graph.width:g}" height="{graph.height:g}"/>'
    yield (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="tip" d="M0.5 0.8L7 4L0.5 7.2z"/></marker></defs>'
    )
    if not graph.nodes:
        yield '<text class="title" x="24" y="40">no steps</text>'
    for edge in graph.edges:
        yield _edge(edge)
    for node in graph.nodes:
        yield from _node(node, card_of(node))


def _edge(edge: Edge) -> str:
    classes = f"edge {edge.kind}" + (" idle" if edge.is_idle else "")
    return f'<path class="{classes}" d="{edge_path(edge.points)}" marker-end="url(#tip)"/>'


def _node(node: Node, card: Card) -> Iterator[str]:
    phase = f" {node.phase.value.lower()}" if node.phase is not None else ""
    idle = " idle" if node.is_idle else ""
    yield f'<g class="node {node.kind}{phase}{idle}" transform="translate({node.x:g} {node.y:g})">'
    yield f"<title>{_text(_hint(node))}</title>"
    if node.team:
        yield f'<rect class="card behind" x="5" y="5" width="{node.width:g}" height="{node.height:g}" rx="10"/>'
    yield f'<rect class="card" width="{node.width:g}" height="{node.height:g}" rx="10"/>'
    if node.phase is not None:
        yield f'<path class="bar" d="M5 12v{node.height - 24:g}"/>'
        yield f'<path class="icon" transform="translate(15 12)" d="{ICONS[node.phase]}"/>'
    yield _line("title", card.text_x, card.title_y, card.title)
    for text, y in card.lines:
        yield _line("text", card.text_x, y, text)
    if card.facts:
        yield _line("facts", card.text_x, card.facts_y, card.facts)
    for mark in card.marks:
        yield (
            f'<rect class="mark" x="{mark.x:g}" y="{card.marks_y:g}" width="{mark.width:g}" height="{_MARK_HEIGHT}" '
            'rx="9"/>'
        )
        yield _line("mark-text", mark.x + MARK_PAD, card.marks_y + 13, mark.text)
    if node.condition:
        yield _condition(node)
    yield "</g>"


def _condition(node: Node) -> str:
    """A label on the way in, where all edges meet."""
    text = clipped_pixels(f"if {node.condition}", _LABEL_MOST, _LABEL_PX)
    width = round(pixels(text, _LABEL_PX) + 2 * MARK_PAD, 1)
    x = (node.width - width) / 2
    return (
        f'<rect class="label" x="{x:g}" y="-{_LABEL_TOP}" width="{width:g}" height="{_MARK_HEIGHT}" rx="9"/>'
        f'<text class="label-text" text-anchor="middle" x="{node.width / 2:g}" y="-{_LABEL_TOP - 13}">'
        f"{_text(text)}</text>"
    )


def _hint(node: Node) -> str:
    parts = [node.title, node.subtitle, node.phase.value if node.phase else ""]
    parts += [f"if {node.condition}" if node.condition else "", ", ".join(node.marks), node.message]
    return "\n".join(one_line(part) for part in parts if part)


def _line(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class={quoteattr(kind)} x="{x:g}" y="{y:g}">{_text(text)}</text>'


def _text(text: str) -> str:
    """As XML takes it: no markup, and none of the characters that it forbids."""
    return escape("\n".join(one_line(line) for line in text.split("\n")))
