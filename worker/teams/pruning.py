"""A team may say how many of its ended runs are kept.

Runs of a tenant's team that have ended stand in two logs, those that succeeded and the others, in the order of their
ends. A mark says how far all of them have been forgotten, so that a run's end costs a few reads, however many runs have
ended before it.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends import LogRecord
from queue_backends.messages import encode_json
from worker.teams.run_header import RunSummary
from worker.teams.run_index import MOST_LISTED
from worker.teams.run_lives import DAY_S
from worker.teams.run_state import Phase
from worker.teams.runs import Run, Runs

MOST_AT_ONCE = 100
"""So many are forgotten at the end of one run; of more, the others at the ends that follow."""
LIST_AGAIN_S = 7 * DAY_S
"""So often all runs are looked through for those that ended unnoticed: before the team had a limit, or under a version
that kept no logs of ends."""
_ENDS = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


class _Mark(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a team's logs of ends have been worked off: a cursor of each."""

    good: str = ""
    bad: str = ""
    listed_at: float = 0.0
    """When all runs were last looked through. Unix seconds."""


_mark = msgspec.json.Decoder(_Mark).decode


def _moments(summary: RunSummary) -> tuple[float, float]:
    return summary.ended_at, summary.created_at


async def prune(runs: Runs, run: Run) -> list[str]:
    """A run has ended: forget the oldest ended ones of its tenant's team beyond those that it keeps; returns which."""
    team = run.plan.find(run.header.team)
    if not (team.successful_runs_kept or team.failed_runs_kept):
        return []
    return await _Ends(runs, run).forget_oldest(good=team.successful_runs_kept, bad=team.failed_runs_kept)


class _Ends:
    """The ends of the runs of one tenant's team.

    Two processes may work them off at once: what both forget is forgotten, and a mark that was put back makes the next
    one look at a few that are gone.
    """

    def __init__(self, runs: Runs, run: Run) -> None:
        self._runs = runs
        self._run = run
        self._keep_s = run.header.keep_s
        # quoted, so that no tenant and team read like another tenant's
        self._place = f"team-ends/{quote(run.header.tenant, safe='')}/{quote(run.header.team, safe='')}"

    async def forget_oldest(self, *, good: int, bad: int) -> list[str]:
        """All but so many of each sort; 0: none of it. Returns which were forgotten."""
        stored = await self._runs.state.get(self._place)
        mark = _Mark() if stored is None else _mark(stored)
        if time.time() - mark.listed_at > LIST_AGAIN_S:
            mark = replace(mark, listed_at=time.time())
            await self._note_all()
        await self._note([(self._run.header.id, self._run.state.phase)])
        forgotten_good, good_cursor = await self._work_off("good", mark.good, good)
        forgotten_bad, bad_cursor = await self._work_off("bad", mark.bad, bad)
        mark = replace(mark, good=good_cursor, bad=bad_cursor)
        if (now := encode_json(mark)) != stored:
            await self._runs.state.set(self._place, now, ttl_s=self._keep_s + LIST_AGAIN_S)
        return forgotten_good + forgotten_bad

    async def _note_all(self) -> None:
        """Every run of the list that has ended, the oldest first; but those whose end is still being told, which will
        be noted then."""
        header = self._run.header
        found = await self._runs.list(limit=MOST_LISTED, team=header.team, tenant=header.tenant, phases=_ENDS)
        held = await asyncio.gather(*(self._runs.active.has(each.id) for each in found))
        told = [each for each, is_held in zip(found, held, strict=True) if not is_held]
        await self._note([(each.id, each.phase) for each in sorted(told, key=_moments)])

    async def _note(self, ended: list[tuple[str, Phase]]) -> None:
        """Those that are noted already stay where they are."""
        await self._runs.state.append_once(
            [
                LogRecord(
                    log=self._log("good" if phase is Phase.SUCCEEDED else "bad"),
                    id=run_id,
                    value=run_id.encode(),
                    keep_s=self._keep_s + LIST_AGAIN_S,
                )
                for run_id, phase in ended
            ]
        )

    async def _work_off(self, sort: str, cursor: str, kept: int) -> tuple[list[str], str]:
        """Which were forgotten, and the cursor behind them."""
        if not kept:
            return [], cursor
        state, log = self._runs.state, self._log(sort)
        page = await state.read_on(log, cursor, limit=kept + MOST_AT_ONCE)
        surplus = [entry.id for entry in page.entries[: max(0, len(page.entries) - kept)]]
        gone = [run_id for run_id in surplus if not await self._runs.active.has(run_id)]  # else its end is being told
        for run_id in gone:
            await self._runs.forget(run_id)
        passed = next((number for number, run_id in enumerate(surplus) if run_id not in gone), len(surplus))
        if passed:
            cursor = (await state.read_on(log, cursor, limit=passed)).cursor
        return gone, cursor

    def _log(self, sort: str) -> str:
        return f"{self._place}/{sort}"
