"""A team may say how many of its ended runs are kept."""

from __future__ import annotations

from worker.teams.plan import Team
from worker.teams.run_index import MOST_LISTED
from worker.teams.run_state import Phase
from worker.teams.runs import Runs


async def prune(runs: Runs, team: Team) -> list[str]:
    """Forget the oldest ended runs of a team beyond those that it keeps; returns which."""
    if not (team.successful_runs_kept or team.failed_runs_kept):
        return []
    ended = await runs.list(limit=MOST_LISTED, team=team.name, phases=[Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED])
    good = [run.id for run in ended if run.phase is Phase.SUCCEEDED]
    bad = [run.id for run in ended if run.phase is not Phase.SUCCEEDED]
    gone = good[team.successful_runs_kept :] if team.successful_runs_kept else []
    gone += bad[team.failed_runs_kept :] if team.failed_runs_kept else []
    for run_id in gone:
        await runs.forget(run_id)
    return gone
