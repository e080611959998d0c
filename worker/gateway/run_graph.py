"""The picture of a run or a team, ready to be drawn by a page: places, clipped lines, paths."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from worker.teams.graph.card import card_of
from worker.teams.graph.model import Graph, Node
from worker.teams.graph.shapes import ICONS, edge_path
from worker.teams.graph.wording import clipped_pixels
from worker.teams.run_state import Phase

_CONDITION_PX = 200.0


class MarkView(Struct, frozen=True, kw_only=True):
    """A small label on a card."""

    text: str
    x: float
    width: float


class NodeView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A card."""

    id: str
    kind: str
    name: str
    """The whole title."""
    title: str
    """Clipped to the card."""
    lines: Sequence[tuple[str, float]] = ()
    """Texts and the heights of their base lines."""
    marks: Sequence[MarkView] = ()
    marks_y: float = 0.0
    text_x: float
    title_y: float
    facts_y: float = 0.0
    condition: str = ""
    step: str = ""
    task_id: str = ""
    team: str = ""
    phase: Phase | None = None
    icon: str = ""
    """Path of the phase's sign, in a square of 16."""
    progress: str = ""
    message: str = ""
    tokens: int = 0
    cost_usd: float | None = None
    started_at: float = 0.0
    seconds: float | None = None
    """None while it runs: the page counts from `started_at`."""
    is_idle: bool = False
    x: float
    y: float
    width: float
    height: float


class EdgeView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line from one card to another."""

    source: str
    target: str
    kind: str
    path: str
    is_idle: bool = False


class GraphView(Struct, frozen=True, kw_only=True):
    """A picture."""

    width: float
    height: float
    left_out: int
    nodes: Sequence[NodeView]
    edges: Sequence[EdgeView]


class GraphFrame(Struct, frozen=True, kw_only=True):
    """A picture without what stands on its cards: it changes when somebody delegates, and else never."""

    width: float
    height: float
    nodes: Sequence[str]
    """Ids of the cards that there are."""
    edges: Sequence[EdgeView]


def graph_view(graph: Graph) -> GraphView:
    """All of a picture."""
    return GraphView(
        width=graph.width,
        height=graph.height,
        left_out=graph.left_out,
        nodes=[node_view(node) for node in graph.nodes],
        edges=_edges(graph),
    )


def graph_frame(graph: Graph) -> GraphFrame:
    """What is around the cards."""
    return GraphFrame(
        width=graph.width, height=graph.height, nodes=[node.id for node in graph.nodes], edges=_edges(graph)
    )


def _edges(graph: Graph) -> list[EdgeView]:
    return [
        EdgeView(
            source=edge.source, target=edge.target, kind=edge.kind, path=edge_path(edge.points), is_idle=edge.is_idle
        )
        for edge in graph.edges
    ]


def node_view(node: Node) -> NodeView:
    """One card."""
    card = card_of(node)
    return NodeView(
        id=node.id,
        kind=node.kind,
        name=node.title,
        title=card.title,
        lines=card.lines,
        marks=[MarkView(text=mark.text, x=mark.x, width=mark.width) for mark in card.marks],
        marks_y=card.marks_y,
        text_x=card.text_x,
        title_y=card.title_y,
        facts_y=card.facts_y,
        condition=clipped_pixels(f"if {node.condition}", _CONDITION_PX, 11.0) if node.condition else "",
        step=node.step,
        task_id=node.task_id,
        team=node.team,
        phase=node.phase,
        icon=ICONS[node.phase] if node.phase is not None else "",
        progress=node.progress,
        message=node.message,
        tokens=node.tokens,
        cost_usd=node.cost_usd,
        started_at=node.started_at,
        seconds=node.seconds,
        is_idle=node.is_idle,
        x=node.x,
        y=node.y,
        width=node.width,
        height=node.height,
    )
