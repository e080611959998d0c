"""What a list shows of a run, from what is known of it."""

from __future__ import annotations

from worker.teams.folding import Folding
from worker.teams.plan import Plan
from worker.teams.run_header import RunHeader, RunSummary


def summary_at_start(header: RunHeader, plan: Plan) -> RunSummary:
    """Of a run of which nothing is known yet."""
    return summary_of(Folding(plan, header))


def summary_of(folding: Folding) -> RunSummary:
    """What a list shows of a run."""
    header, state = folding.header, folding.state()
    return RunSummary(
        id=header.id,
        team=header.team,
        phase=state.phase,
        reason=state.reason,
        message=state.message,
        tenant=header.tenant,
        trigger=header.trigger,
        parent=header.parent,
        is_local=header.is_local,
        labels=header.labels,
        plan=header.plan,
        steps=len(state.steps),
        steps_ended=sum(step.phase.is_final for step in state.steps),
        usage=state.usage,
        cost_usd=state.cost_usd,
        created_at=state.created_at,
        started_at=state.started_at,
        ended_at=state.ended_at,
    )
