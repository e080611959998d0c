"""A team as a Mermaid flowchart: what renders in Markdown on code hosts and in documentation.

Syntax: https://mermaid.js.org/syntax/flowchart.html. Nodes have ids of our own, since names may be anything, keywords
such as `end` included; texts stand in double quotes, with entity codes for what has a meaning there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from worker.teams.graph.card import facts_of
from worker.teams.graph.contents import contents_of
from worker.teams.graph.layout import drawable
from worker.teams.graph.model import Edge, Node
from worker.teams.graph.wording import GLYPHS, one_line
from worker.teams.plan import Team
from worker.teams.run_state import RunState

_MOST_CHARS: Final = 120
_MOST_EDGES: Final = 450
"""Renderers refuse more than 500."""
_PLAIN: Final = frozenset(" .,:!?()+-=/≤·…○●◆‖✓✗»⊘_'")
_SHAPES: Final = {
    "step": ("[", "]"),
    "role": ("([", "])"),
    "router": ("{{", "}}"),
    "agent": ("([", "])"),
    "child": ("(", ")"),
}
_ARROWS: Final = {"needs": "-->", "delegates": "-.->", "delegated": "==>", "routes": "-.->"}
_CLASSES: Final = {
    "pending": "stroke-dasharray:4 3",
    "running": "stroke:#1c5fc7,stroke-width:3px",
    "validating": "stroke:#1c5fc7,stroke-width:3px,stroke-dasharray:6 3",
    "waiting": "stroke:#855400,stroke-width:3px",
    "succeeded": "stroke:#14724a,stroke-width:2px",
    "failed": "stroke:#b3261e,stroke-width:3px",
    "skipped": "stroke-dasharray:2 4",
    "cancelled": "stroke:#b3261e,stroke-dasharray:2 4",
}


def as_mermaid(team: Team, state: RunState | None = None, *, now: float | None = None) -> str:
    """The flowchart of a team; with a state, of that run of it."""
    contents = contents_of(team, state, now)
    nodes, edges, _ = drawable(contents.nodes, contents.edges, most_edges=_MOST_EDGES)
    return "\n".join(_lines(team, nodes, edges)) + "\n"


def _lines(team: Team, nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> Iterator[str]:
    ids = {node.id: f"n{number}" for number, node in enumerate(nodes, 1)}
    yield "flowchart TD"
    yield f"    %% {''.join(character for character in team.name if character.isalnum() or character in ' ._-')[:80]}"
    labelled = {edge.target for edge in edges if edge.label}
    for node in nodes:
        left, right = _SHAPES[node.kind] if not node.team else ("[[", "]]")
        style = f":::{node.phase.value.lower()}" if node.phase is not None else ""
        yield f'    {ids[node.id]}{left}"{_label(node, says_when=node.id not in labelled)}"{right}{style}'
    for edge in edges:
        label = f'|"{mermaid_text(f"if {edge.label}")}"|' if edge.label else ""
        yield f"    {ids[edge.source]} {_ARROWS[edge.kind]}{label} {ids[edge.target]}"
    for name in dict.fromkeys(node.phase.value.lower() for node in nodes if node.phase is not None):
        yield f"    classDef {name} {_CLASSES[name]}"


def _label(node: Node, *, says_when: bool) -> str:
    glyph = f"{GLYPHS[node.phase]} " if node.phase is not None else ""
    condition = f"if {node.condition}" if node.condition and says_when else ""
    lines = [f"{glyph}{node.title}", node.subtitle, condition, ", ".join(node.marks), facts_of(node)]
    return "<br/>".join(mermaid_text(line) for line in lines if line)


def mermaid_text(text: str) -> str:
    """A text as it may stand between double quotes: letters, digits and harmless signs as they are, others as entity
    codes, so that neither Mermaid's syntax, nor its Markdown, nor HTML is in it."""
    text = one_line(text)
    text = text if len(text) <= _MOST_CHARS else text[: _MOST_CHARS - 1] + "…"
    return "".join(_coded(character) for character in text)


def _coded(character: str) -> str:
    if character in _PLAIN or (character.isalnum() and character.isascii()) or ord(character) > 0x2FFF:
        return character
    return character if character.isalpha() else f"#{ord(character)};"
