"""Lists of runs, the newest first. A page costs a bounded number of reads, and is right after crashes too: a summary
that says that its run has ended is final, and any other is checked against the end of the run's log."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from queue_backends import LogRecord, StateStore
from queue_backends.messages import encode_json
from worker.teams.ownership import driver_of
from worker.teams.run_events import RunEnded, decode_event
from worker.teams.run_header import RunHeader, RunSummary
from worker.teams.run_keys import INDEX, events_log, summary_key, team_index, tenant_index
from worker.teams.run_state import Phase

MOST_LISTED = 1000
MOST_LOOKED_AT = 5000
"""When only some phases are wanted, so many of the newest runs are looked through."""
AT_ONCE = 100
SOME_GONE = 50
YOUNG_S = 5.0
"""Nobody may drive a run yet that has just begun."""
"""Of a page, so many runs may have been forgotten before a larger one is read."""

_summary = msgspec.json.Decoder(RunSummary).decode


class RunIndex:
    """Which runs there are."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    async def add(self, header: RunHeader, *, keep_s: float) -> None:
        """Have it in the lists from now on."""
        logs = [INDEX, team_index(header.team), *([tenant_index(header.tenant)] if header.tenant else [])]
        await self._state.append_once(
            [LogRecord(log=log, id=header.id, value=header.id.encode(), keep_s=keep_s) for log in logs]
        )

    async def write(self, summary: RunSummary, *, keep_s: float) -> None:
        """What lists show of a run from now on."""
        await self._state.set(summary_key(summary.id), encode_json(summary), ttl_s=keep_s)

    async def forget(self, run_id: str) -> None:
        """Have it in no list any more."""
        await self._state.delete(summary_key(run_id))

    async def summary(self, run_id: str) -> RunSummary | None:
        """What a list shows of a run; None if it is in none."""
        stored = await self._state.get(summary_key(run_id))
        return None if stored is None else await self._checked(_summary(stored))

    async def _checked(self, summary: RunSummary) -> RunSummary:
        """Its driver may have died between the run's last event and the summary of it."""
        if summary.phase.is_final:
            return summary
        newest = await self._state.read_log(events_log(summary.id), limit=1, newest_first=True)
        end = decode_event(newest[0].value) if newest else None
        if not isinstance(end, RunEnded):
            return replace(summary, is_interrupted=await self._is_interrupted(summary))
        return replace(
            summary,
            phase=end.phase,
            reason=end.reason,
            message=end.message,
            usage=end.usage,
            cost_usd=end.cost_usd,
            steps_ended=summary.steps,
            ended_at=end.at,
        )

    async def _is_interrupted(self, summary: RunSummary) -> bool:
        if not summary.is_local or summary.parent is not None or time.time() - summary.created_at < YOUNG_S:
            return False
        return not await driver_of(self._state, summary.id)

    async def list(
        self, *, limit: int, team: str, tenant: str | None, phases: Sequence[Phase]
    ) -> builtins.list[RunSummary]:
        """The newest runs first."""
        limit = max(0, min(limit, MOST_LISTED))
        log = team_index(team) if team else tenant_index(tenant) if tenant else INDEX
        is_narrowed = bool(phases) or tenant == "" or (bool(team) and tenant is not None)
        for most in (MOST_LOOKED_AT,) if is_narrowed else (limit + SOME_GONE, MOST_LOOKED_AT):
            entries = await self._state.read_log(log, limit=most, newest_first=True)
            found = await self._summaries([entry.id for entry in entries], limit, tenant, phases)
            if len(found) == limit or len(entries) < most:  # else more have been forgotten than expected
                break
        return found

    async def _summaries(
        self, run_ids: Sequence[str], limit: int, tenant: str | None, phases: Sequence[Phase]
    ) -> builtins.list[RunSummary]:
        found: builtins.list[RunSummary] = []
        for start in range(0, len(run_ids), AT_ONCE):
            if len(found) >= limit:
                break
            page = await asyncio.gather(*map(self.summary, run_ids[start : start + AT_ONCE]))
            found += [each for each in page if each is not None and _fits(each, tenant, phases)]
        return found[:limit]


def _fits(summary: RunSummary, tenant: str | None, phases: Sequence[Phase]) -> bool:
    return (tenant is None or summary.tenant == tenant) and (not phases or summary.phase in phases)
