"""What a picture of a team shows: nodes with their places, and the edges between them. It is plain data: terminal, SVG,
Mermaid and the pages draw the same one."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from worker.teams.run_state import Phase

NodeKind = Literal["step", "role", "router", "agent", "child"]
EdgeKind = Literal["needs", "delegates", "delegated", "routes"]

Point = tuple[float, float]


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is done, or somebody who may do it."""

    id: str
    """Unique in the graph."""
    kind: NodeKind
    title: str
    """A name from the file, whatever that is: each form of output escapes it."""
    subtitle: str = ""
    """Who does it, and with which model."""
    step: str = ""
    """The step that it is, or belongs to; empty: none, it is a role that has nothing to do yet."""
    task_id: str = ""
    phase: Phase | None = None
    """None: the picture is of a team, not of a run."""
    condition: str = ""
    """It is skipped unless this template is true."""
    marks: tuple[str, ...] = ()
    """What is special about it: a loop, an approval, a team of its own."""
    team: str = ""
    """The team that fulfils it."""
    progress: str = ""
    """`2 of 5` iterations, `try 2`, `3 of 8 done`."""
    message: str = ""
    """Why it failed or was skipped, or what it is at."""
    tokens: int = 0
    cost_usd: float | None = None
    seconds: float | None = None
    """How long it took, or takes until now; None: it has not begun."""
    started_at: float = 0.0
    """Unix seconds; 0: not yet."""
    is_idle: bool = False
    """Nobody has asked it for anything, and perhaps nobody will."""
    x: float = 0.0
    """Of its left edge, in pixels."""
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    @property
    def middle(self) -> float:
        """Where edges come and go."""
        return self.x + self.width / 2


class Edge(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From what comes first to what comes after it."""

    source: str
    target: str
    kind: EdgeKind = "needs"
    label: str = ""
    """The condition under which it is taken."""
    is_idle: bool = False
    """It may be taken, and was not."""
    points: tuple[Point, ...] = ()
    """Pairs of a beginning and an end: curves lead from the end of one pair to the beginning of the next, and a pair is
    a straight line downwards. The first and the last point lie on the nodes."""


class Graph(Struct, frozen=True, kw_only=True):
    """A team, or a run of it, as a picture."""

    name: str
    mode: Literal["pipeline", "dynamic", "routed"] = "pipeline"
    phase: Phase | None = None
    description: str = ""
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    left_out: int = 0
    """So many edges are not drawn because others imply them."""
    width: float = 0.0
    height: float = 0.0

    def node(self, name: str) -> Node:
        """The node of that id. Raises `KeyError`."""
        for node in self.nodes:
            if node.id == name:
                return node
        raise KeyError(name)
