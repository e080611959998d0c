"""A picture for a terminal: boxes and lines, or an indented list where those do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from worker.teams.graph.canvas import DOWN, UP, Canvas, box
from worker.teams.graph.card import facts_of
from worker.teams.graph.channel import Net, nets_between
from worker.teams.graph.layers import Item, Rows, levels_of, rows_of
from worker.teams.graph.model import Graph, Node
from worker.teams.graph.outline import outline
from worker.teams.graph.placing import place
from worker.teams.graph.wording import GLYPHS, cells, clipped_cells, one_line
from worker.teams.run_state import Phase

_MOST_CELLS: Final = 34
"""Of a box."""
_LEAST_CELLS: Final = 13
_GAP: Final = 2
_PASSAGE: Final = 1
_MOST_DRAWN: Final = 150
"""More nodes are a list: nobody finds a way through such a drawing."""
_MOST_IN_ROW: Final = 8
_STYLES: Final = {
    Phase.PENDING: "2",
    Phase.RUNNING: "36",
    Phase.VALIDATING: "36",
    Phase.WAITING: "33",
    Phase.SUCCEEDED: "32",
    Phase.FAILED: "31",
    Phase.SKIPPED: "2",
    Phase.CANCELLED: "31",
}


def as_text(graph: Graph, width: int = 100, colour: bool = False) -> str:
    """The picture, at most `width` cells wide, without a line end at the end. `colour` writes ANSI sequences."""
    if not graph.nodes:
        return "no steps"
    if len(graph.nodes) <= _MOST_DRAWN:
        most = min(_MOST_IN_ROW, _widest(graph))
        for in_row in range(most, min(most, 2) - 1, -1):
            drawn = _drawn(graph, width, in_row, colour)
            if drawn is not None:
                return drawn
    return _listed(graph, width, colour)


def _widest(graph: Graph) -> int:
    levels = levels_of([node.id for node in graph.nodes], [(edge.source, edge.target) for edge in graph.edges])
    counts: dict[int, int] = {}
    for level in levels.values():
        counts[level] = counts.get(level, 0) + 1
    return max(counts.values())


def _listed(graph: Graph, width: int, colour: bool) -> str:
    lines: list[str] = []
    for depth, node, line in outline(graph):
        text = clipped_cells(line, width - 2 * min(depth, 10))
        style = _STYLES[node.phase] if node.phase is not None and colour else ""
        lines.append("  " * min(depth, 10) + (f"\x1b[{style}m{text}\x1b[0m" if style else text))
    if graph.left_out:
        lines.append(f"({graph.left_out} edges that others imply are left out)")
    return "\n".join(lines)


# The drawing


def _drawn(graph: Graph, width: int, in_row: int, colour: bool) -> str | None:
    """None: it does not fit, or its lines would lie on each other."""
    texts = {node.id: _lines(node) for node in graph.nodes}
    widths = {name: _width(lines) for name, lines in texts.items()}
    rows = rows_of(
        [node.id for node in graph.nodes], [(edge.source, edge.target) for edge in graph.edges], most_in_row=in_row
    )
    lefts, total = _columns(rows, widths)
    if total > width:
        return None
    middle = {item: left + _width_of(item, widths) // 2 for item, left in lefts.items()}
    canvas = Canvas(total)
    nodes = {node.id: node for node in graph.nodes}
    y = 0
    for index, row in enumerate(rows.rows):
        height = max((len(texts[item]) + 2 for item in row if isinstance(item, str)), default=1)
        for item in row:
            _item(canvas, item, lefts[item], middle[item], y, height, nodes, texts, widths)
        y += height
        if index + 1 < len(rows.rows):
            after = _gap(canvas, rows, index, middle, widths, texts, nodes, y, height)
            if after is None:
                return None
            y = after
    return canvas.text(colour=colour)


def _width_of(item: Item, widths: Mapping[str, int]) -> int:
    return widths[item] if isinstance(item, str) else _PASSAGE


def _columns(rows: Rows, widths: Mapping[str, int]) -> tuple[dict[Item, int], int]:
    at = place(rows, lambda item: float(_width_of(item, widths)), lambda _left, _right: _GAP)
    lefts: dict[Item, int] = {}
    total = 0
    for row in rows.rows:
        free = 0
        for item in row:
            lefts[item] = max(free, round(at[item] - _width_of(item, widths) / 2))
            free = lefts[item] + _width_of(item, widths) + _GAP
        total = max(total, free - _GAP)
    return lefts, total


def _lines(node: Node) -> list[tuple[str, str]]:
    tone = _STYLES[node.phase] if node.phase is not None else ""
    glyph = f"{GLYPHS[node.phase]} " if node.phase is not None else ""
    found = [(f"{glyph}{one_line(node.title)}", f"1;{tone}" if tone and tone != "2" else "1")]
    if node.condition:
        found.append((f"if {one_line(node.condition)}", "33"))
    if node.subtitle:
        found.append((one_line(node.subtitle), "2"))
    if node.kind == "child" and node.message:
        found.append((one_line(node.message), ""))
    if node.marks:
        found.append((", ".join(map(one_line, node.marks)), "2"))
    if facts := facts_of(node):
        found.append((facts, tone))
    return [(clipped_cells(text, _MOST_CELLS - 4), style) for text, style in found]


def _width(lines: Sequence[tuple[str, str]]) -> int:
    return max(_LEAST_CELLS, max(cells(text) for text, _ in lines) + 4)


def _item(
    canvas: Canvas,
    item: Item,
    left: int,
    middle: int,
    top: int,
    height: int,
    nodes: Mapping[str, Node],
    texts: Mapping[str, list[tuple[str, str]]],
    widths: Mapping[str, int],
) -> None:
    if not isinstance(item, str):
        for y in range(top, top + height):
            canvas.line(middle, y, UP | DOWN, net=0)
        return
    node = nodes[item]
    box(canvas, left, top, widths[item], texts[item], style=_frame_style(node), is_double=bool(node.team))


def _frame_style(node: Node) -> str:
    return "2" if node.is_idle else _STYLES[node.phase] if node.phase is not None else ""


def _gap(
    canvas: Canvas,
    rows: Rows,
    index: int,
    middle: Mapping[Item, int],
    widths: Mapping[str, int],
    texts: Mapping[str, list[tuple[str, str]]],
    nodes: Mapping[str, Node],
    top: int,
    height: int,
) -> int | None:
    """Draw what is between a row and the next; where the next begins. None: it cannot be drawn."""
    upper = set(rows.rows[index])
    links = [link for link in rows.links if link[0] in upper]
    found = nets_between(links, middle, lambda item: widths[item] // 2 - 2 if isinstance(item, str) else 0)
    if found is None:
        return None
    nets, tracks = found
    bottom = top + tracks + 1
    for number, net in enumerate(nets, 1):
        for source, column in zip(net.sources, net.tops, strict=True):
            begin = top
            if isinstance(source, str):
                begin = top - height + len(texts[source]) + 2
                canvas.put(column, begin - 1, "╤" if nodes[source].team else "┬", _frame_style(nodes[source]))
            canvas.line(column, begin, UP, number)
            canvas.vertical(column, begin, top + max(net.track, 0), number)
        _lead(canvas, net, top, bottom, number)
    return bottom + 1 if nets else top


def _lead(canvas: Canvas, net: Net, top: int, bottom: int, number: int) -> None:
    y = top + max(net.track, 0)
    if net.track >= 0:
        canvas.horizontal(y, *net.span, number)
    for column, item in net.bottoms:
        canvas.vertical(column, y, bottom, number)
        canvas.line(column, bottom, DOWN, number)
        if isinstance(item, str):
            canvas.put(column, bottom, "▼", "2")
