"""What a run's tasks carry in their `meta`, so that a worker knows whose work it does. `run_name` and `step_name` are
ark's names."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

RUN = "run_name"
STEP = "step_name"
PLAN = "team_plan"
TEAM = "team_name"
ROLE = "team_role"
PARENT = "team_parent"
DEPTH = "team_depth"
PURPOSE = "team_purpose"
INPUTS = "team_inputs"
"""Files that a step is given, as JSON: name -> URL."""
KEYS = "team:"
"""Idempotency keys of a run's own tasks begin with this: whoever else had one taken would answer for the run's step."""
RESERVED = frozenset({PLAN, TEAM, ROLE, PARENT, DEPTH, PURPOSE, INPUTS})
"""Nobody else may set these: the gateway refuses them."""
PLAIN_PURPOSES = frozenset({"check", "compress", "route"})
"""Questions about the work, not the work itself: their model is given no tools."""


class Marks(Struct, frozen=True, kw_only=True):
    """Whose work a task is."""

    run: str
    step: str
    plan: str
    """The plan's digest."""
    team: str
    role: str
    parent: str = ""
    """The task that delegated it; empty: the scheduler made it."""
    depth: int = 0
    """0: a step's own task."""
    purpose: str = "step"
    """`step`, `repair`, `check` (semantic validation), `compress`, `route`, `delegated`, `subtask`, `summary`."""

    def meta(self) -> dict[str, str]:
        """As a task carries it."""
        found = {
            RUN: self.run,
            STEP: self.step,
            PLAN: self.plan,
            TEAM: self.team,
            ROLE: self.role,
            PARENT: self.parent,
            DEPTH: str(self.depth) if self.depth else "",
            PURPOSE: self.purpose,
        }
        return {name: value for name, value in found.items() if value}


def marks_of(meta: Mapping[str, str]) -> Marks | None:
    """What a task carries; None if it is not the work of a team."""
    if PLAN not in meta or ROLE not in meta:
        return None
    depth = meta.get(DEPTH, "0")
    return Marks(
        run=meta.get(RUN, ""),
        step=meta.get(STEP, ""),
        plan=meta[PLAN],
        team=meta.get(TEAM, ""),
        role=meta[ROLE],
        parent=meta.get(PARENT, ""),
        depth=int(depth) if depth.isdecimal() and len(depth) < 10 else 0,
        purpose=meta.get(PURPOSE, "step"),
    )
