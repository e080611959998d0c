"""A team, or a run of it, as a picture: who stands where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from worker.teams.graph.card import WIDTH, card_of
from worker.teams.graph.contents import contents_of
from worker.teams.graph.layers import Item, Pair, Rows, rows_of, split_cycles, without_implied
from worker.teams.graph.model import Edge, Graph, Node
from worker.teams.graph.placing import place
from worker.teams.plan import Team
from worker.teams.run_state import RunState

IN_ROW: Final = 6
"""What is wider becomes several rows, so that a picture fits a page; large ones have longer rows."""
MOST_EDGES: Final = 1500
"""Of more edges, those are left out that longer ways imply."""
MARGIN: Final = 24.0
GAP: Final = 28.0
ROW_GAP: Final = 48.0
LABEL_ROW_GAP: Final = 64.0
_PASSAGE: Final = 8.0
_PASSAGE_GAP: Final = 12.0
_GRID: Final = 4.0


def layout(
    team: Team, state: RunState | None = None, *, now: float | None = None, before: Graph | None = None
) -> Graph:
    """The picture of a team; with a state, of that run of it, children that were delegated included.

    `now` (Unix seconds) is until when the seconds of running steps count; None: they show none. The same team and state
    give the same picture. `before`, a picture of the same run, saves the work if everything stands where it stood.
    """
    contents = contents_of(team, state, now)
    nodes, edges, left_out = drawable(contents.nodes, contents.edges)
    if before is not None and _stand_alike(before, nodes, edges):
        return _drawn_anew(before, nodes, state)
    return _arranged(team, state, nodes, edges, left_out)


def _stand_alike(before: Graph, nodes: Sequence[Node], edges: Sequence[Edge]) -> bool:
    return (
        [node.id for node in nodes] == [node.id for node in before.nodes]
        and [card_of(node).height for node in nodes] == [node.height for node in before.nodes]
        and [replace(edge, points=()) for edge in before.edges] == list(edges)
    )


def _drawn_anew(before: Graph, nodes: Sequence[Node], state: RunState | None) -> Graph:
    placed = tuple(
        replace(node, x=old.x, y=old.y, width=old.width, height=old.height)
        for node, old in zip(nodes, before.nodes, strict=True)
    )
    return replace(before, phase=state.phase if state else None, nodes=placed)


def _arranged(team: Team, state: RunState | None, nodes: Sequence[Node], edges: Sequence[Edge], left_out: int) -> Graph:
    ids = [node.id for node in nodes]
    rows = rows_of(ids, [(edge.source, edge.target) for edge in edges], most_in_row=in_row(len(ids)))
    at = _snapped(place(rows, lambda item: WIDTH if isinstance(item, str) else _PASSAGE, _gap))
    heights = {node.id: card_of(node).height for node in nodes}
    labelled = {edge.target for edge in edges if edge.label} | {node.id for node in nodes if node.condition}
    tops, bottoms, bottom = _tops(rows, heights, labelled)
    row_of = {item: index for index, row in enumerate(rows.rows) for item in row}
    placed = tuple(
        replace(
            node,
            x=round(MARGIN + at[node.id] - WIDTH / 2, 1),
            y=tops[row_of[node.id]],
            width=WIDTH,
            height=heights[node.id],
        )
        for node in nodes
    )
    by_id = {node.id: node for node in placed}
    right = max((at[item] + (WIDTH if isinstance(item, str) else _PASSAGE) / 2 for item in at), default=0.0)
    return Graph(
        name=team.name,
        mode=team.mode,
        phase=state.phase if state else None,
        description=team.description,
        nodes=placed,
        edges=tuple(_routed(edge, rows, at, by_id, tops, bottoms) for edge in edges),
        left_out=left_out,
        width=round(right + 2 * MARGIN, 1),
        height=bottom + MARGIN,
    )


def in_row(nodes: int) -> int:
    """How many cards of that many may stand beside each other."""
    return max(IN_ROW, math.isqrt(nodes // 2))


def _snapped(at: Mapping[Item, float]) -> dict[Item, float]:
    """On a grid: lines that are all but upright become so."""
    return {item: _GRID * round(middle / _GRID) for item, middle in at.items()}


def _gap(left: Item, right: Item) -> float:
    return GAP if isinstance(left, str) and isinstance(right, str) else _PASSAGE_GAP


def drawable(
    nodes: Sequence[Node], edges: Sequence[Edge], *, most_edges: int = MOST_EDGES
) -> tuple[tuple[Node, ...], tuple[Edge, ...], int]:
    """Nodes and the edges that lead downwards, and how many implied ones were left out. An edge that leads back becomes
    a mark on the node that it leaves."""
    ids = [node.id for node in nodes]
    by_pair: dict[Pair, Edge] = {(edge.source, edge.target): edge for edge in reversed(edges)}
    found, back = split_cycles(ids, [(edge.source, edge.target) for edge in edges])
    downwards = set(found)
    down = [pair for pair in dict.fromkeys((edge.source, edge.target) for edge in edges) if pair in downwards]
    titles = {node.id: node.title for node in nodes}
    returns: dict[str, list[str]] = {}
    for source, target in back:
        returns.setdefault(source, []).append(f"back to {titles[target]}")
    marked = tuple(
        replace(node, marks=(*node.marks, *returns[node.id])) if node.id in returns else node for node in nodes
    )
    kept = without_implied(ids, down) if len(down) > most_edges else down
    return marked, tuple(by_pair[pair] for pair in kept), len(down) - len(kept)


def _tops(rows: Rows, heights: Mapping[str, float], labelled: set[str]) -> tuple[list[float], list[float], float]:
    """Upper and lower edges of the rows, and where the last one ends."""
    tops: list[float] = []
    bottoms: list[float] = []
    y = MARGIN
    for index, row in enumerate(rows.rows):
        has_label = any(item in labelled for item in row if isinstance(item, str))
        if index or has_label:
            y += (LABEL_ROW_GAP if has_label else ROW_GAP) if index else LABEL_ROW_GAP - ROW_GAP + 8.0
        tops.append(y)
        y += max((heights[item] for item in row if isinstance(item, str)), default=8.0)
        bottoms.append(y)
    return tops, bottoms, y


def _routed(
    edge: Edge,
    rows: Rows,
    at: Mapping[Item, float],
    nodes: Mapping[str, Node],
    tops: Sequence[float],
    bottoms: Sequence[float],
) -> Edge:
    path = rows.paths[edge.source, edge.target]
    source, target = nodes[edge.source], nodes[edge.target]
    first = tops.index(source.y)
    x = source.middle
    points = [(x, source.y + source.height), (x, bottoms[first])]
    for row, item in enumerate(path[1:-1], first + 1):
        middle = round(MARGIN + at[item], 1)
        points += [(middle, tops[row]), (middle, bottoms[row])]
    points += [(target.middle, target.y), (target.middle, target.y)]
    return replace(edge, points=tuple(points))
