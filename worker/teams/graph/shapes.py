"""Lines and signs of a picture, as SVG paths: the standalone picture and the pages draw the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from worker.teams.graph.model import Point
from worker.teams.run_state import Phase

ICONS: Final[Mapping[Phase, str]] = {
    Phase.PENDING: "M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11",
    Phase.RUNNING: "M5 3.2v9.6l8-4.8z",
    Phase.VALIDATING: "M7 2.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9M10.3 10.3l3.4 3.4",
    Phase.WAITING: "M5.5 3.5v9M10.5 3.5v9",
    Phase.SUCCEEDED: "M3 8.5l3.4 3.5l6.6-7.5",
    Phase.FAILED: "M4 4l8 8M12 4l-8 8",
    Phase.SKIPPED: "M3 3.5l4.5 4.5l-4.5 4.5M8.5 3.5l4.5 4.5l-4.5 4.5",
    Phase.CANCELLED: "M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11M4.2 4.2l7.6 7.6",
}
"""In a square of 16."""


def edge_path(points: Sequence[Point]) -> str:
    """A line through the points of an edge: straight within pairs, curved between them."""
    x, y = points[0]
    parts = [f"M{_n(x)} {_n(y)}"]
    for index in range(1, len(points)):
        x, y = points[index]
        if index % 2:
            if y > points[index - 1][1]:
                parts.append(f"V{_n(y)}")
            continue
        before_x, before_y = points[index - 1]
        if x == before_x:
            parts.append(f"V{_n(y)}")
            continue
        bend = (y - before_y) * 0.55
        parts.append(f"C{_n(before_x)} {_n(before_y + bend)} {_n(x)} {_n(y - bend)} {_n(x)} {_n(y)}")
    return "".join(parts)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
