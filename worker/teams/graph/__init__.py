"""Pictures of teams and their runs: for terminals, as SVG, as Mermaid, and as data for pages."""

from worker.teams.graph.layout import layout
from worker.teams.graph.mermaid import as_mermaid
from worker.teams.graph.model import Edge, Graph, Node
from worker.teams.graph.svg import as_svg
from worker.teams.graph.terminal import as_text

__all__ = ["Edge", "Graph", "Node", "as_mermaid", "as_svg", "as_text", "layout"]
