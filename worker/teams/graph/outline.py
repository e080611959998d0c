"""A graph in words, as an indented list: what a screen reader reads, and what a terminal shows that is too narrow for a
drawing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from worker.teams.graph.card import facts_of
from worker.teams.graph.layers import levels_of
from worker.teams.graph.model import Graph, Node
from worker.teams.graph.wording import GLYPHS, one_line

_VERBS = {"needs": "after", "delegates": "may be asked by", "delegated": "asked by", "routes": "chosen by"}


def outline(graph: Graph) -> Iterator[tuple[int, Node, str]]:
    """Each node once, those that come first before the others: its depth, itself, and a line about it."""
    titles = {node.id: node.title for node in graph.nodes}
    before: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for edge in graph.edges:
        before[edge.target].append((edge.kind, titles[edge.source]))
    levels = levels_of([node.id for node in graph.nodes], [(edge.source, edge.target) for edge in graph.edges])
    for node in sorted(graph.nodes, key=lambda each: levels[each.id]):
        yield levels[node.id], node, line_of(node, before[node.id])


def line_of(node: Node, before: list[tuple[str, str]]) -> str:
    """All that is known of a node, on one line."""
    parts = [one_line(node.title)]
    if node.subtitle:
        parts.append(f"({one_line(node.subtitle)})")
    if node.phase is not None:
        parts.insert(0, GLYPHS[node.phase])
        told = facts_of(node)
        parts.append(node.phase.value if told in (node.phase.value, "") else f"{node.phase.value}: {told}")
    if node.condition:
        parts.append(f"if {one_line(node.condition)}")
    if node.marks:
        parts.append(f"[{', '.join(map(one_line, node.marks))}]")
    if before:
        names = [one_line(title) for _, title in before]
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        parts.append(f"{_VERBS[before[0][0]]} {shown}")
    return " ".join(parts)
