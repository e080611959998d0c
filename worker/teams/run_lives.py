"""How long what belongs to a run is kept."""

from __future__ import annotations

from worker.teams.plan import Plan
from worker.teams.run_header import RunHeader

DAY_S = 86_400.0
LONGEST_LIFE_S = 90 * DAY_S
"""So long a run without a time-out may take before its first events may be forgotten."""


def life_s(plan: Plan, header: RunHeader) -> float:
    """How long what belongs to a run is kept after its last event: its retention, and as long as it may wait between
    two events."""
    waits = sum(step.approval.timeout_s for team in plan.teams for step in team.steps if step.approval is not None)
    return header.keep_s + waits + (plan.find(header.team).timeout_s or LONGEST_LIFE_S)


def ended_life_s(header: RunHeader, ended_at: float) -> float:
    """The same after its end. Its first events are as old as the run, and have to be kept as long as the last one."""
    return header.keep_s + max(0.0, ended_at - header.created_at)
