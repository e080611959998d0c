"""A moment of a run as it is told to watchers: in parts, encoded once for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property

from queue_backends.messages import encode_json
from worker.gateway.run_graph import graph_frame, node_view
from worker.gateway.run_views import ChildView, RunHead, StepView
from worker.teams.graph import Graph, layout
from worker.teams.plan import Team
from worker.teams.run_header import RunHeader
from worker.teams.run_state import RunState

Parts = Mapping[str, bytes]

LARGE = 60
"""Steps and children."""


class RunPicture:
    """One state of one run. What nobody asks for is not computed."""

    def __init__(self, header: RunHeader, team: Team, state: RunState, before: Graph | None = None) -> None:
        """`before`: how the run was drawn a moment ago."""
        self.header = header
        self.team = team
        self.state = state
        self.drawn = before
        """How it is drawn, once that is known; until then, how it was."""

    @property
    def is_large(self) -> bool:
        """Whether drawing it takes so long that others should not wait for it."""
        return len(self.state.steps) + len(self.state.children) > LARGE

    @cached_property
    def parts(self) -> Mapping[str, Parts]:
        """Kind -> name -> its JSON. `run` and `graph` have one part each; `steps`, `children` and `nodes` one for each
        of them."""
        self.drawn = graph = layout(self.team, self.state, before=self.drawn)
        return {
            "run": {"": encode_json(RunHead.of(self.header, self.team, self.state))},
            "graph": {"": encode_json(graph_frame(graph))},
            "steps": {step.name: encode_json(StepView.of(step)) for step in self.state.steps},
            "children": {child.task_id: encode_json(ChildView.of(child)) for child in self.state.children},
            "nodes": {node.id: encode_json(node_view(node)) for node in graph.nodes},
        }

    @cached_property
    def digest(self) -> str:
        """Of all parts: who has this has everything, whichever gateway told it."""
        found = hashlib.sha256()
        for kind, parts in self.parts.items():
            for name, raw in parts.items():
                found.update(f"{kind}/{name}/{len(raw)}/".encode())
                found.update(raw)
        return found.hexdigest()[:16]

    def news(self, before: Mapping[str, Parts]) -> Iterator[tuple[str, bytes]]:
        """What differs from what somebody has: kind and JSON. Of lists, the members that are new or have changed."""
        for kind, parts in self.parts.items():
            known = before.get(kind, {})
            changed = [raw for name, raw in parts.items() if known.get(name) != raw]
            if not changed:
                continue
            yield kind, changed[0] if kind in ("run", "graph") else b"[%b]" % b",".join(changed)
