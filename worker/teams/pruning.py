"""A team may say how many of its ended runs are kept."""

from __future__ import annotations

from worker.teams.plan import Team
from worker.teams.run_index import MOST_LISTED
from worker.teams.run_state import Phase
from worker.teams.runs import Runs


async def prune(runs: Runs, team: Team, tenant: str) -> list[str]:
    """Forget the oldest ended runs of a tenant's team beyond those that it keeps; returns which."""
    if not (team.successful_runs_kept or team.failed_runs_kept):
        return []
    ended = await runs.list(
        limit=MOST_LISTED, team=team.name, tenant=tenant, phases=[Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED]
    )
    good = [run.id for run in ended if run.phase is Phase.SUCCEEDED]
    bad = [run.id for run in ended if run.phase is not Phase.SUCCEEDED]
    gone = good[team.successful_runs_kept :] if team.successful_runs_kept else []
    gone += bad[team.failed_runs_kept :] if team.failed_runs_kept else []
    forgotten = [run_id for run_id in gone if not await runs.active.has(run_id)]  # else its end is still being told
    for run_id in forgotten:
        await runs.forget(run_id)
    return forgotten
