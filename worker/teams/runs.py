"""Runs of teams, as they stand in the `StateStore`: a header that never changes, a log of events, and a summary for
lists. Whoever wants something from a run goes through here; who drives it is `worker.teams.driver`'s business."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from queue_backends import LogRecord, StateStore
from queue_backends.messages import encode_json
from worker.teams import run_events as event_kinds
from worker.teams.active_runs import ActiveRuns
from worker.teams.errors import BadInput, RunEnded, RunNotFound
from worker.teams.folding import Folding
from worker.teams.inputs import check_input
from worker.teams.memory.keys import forget_run as forget_memory
from worker.teams.ownership import driver_of
from worker.teams.plan import Plan
from worker.teams.run_events import CancelRequested, Event, encode_event
from worker.teams.run_header import RunHeader
from worker.teams.run_keys import calls_log, driver_key, events_log, header_key, plan_key
from worker.teams.run_lives import DAY_S, ended_life_s, life_s
from worker.teams.run_summaries import summary_at_start, summary_of
from worker.teams.run_trace import new_trace
from worker.teams.stored_runs import Run, StoredRuns
from worker.teams.verdicts import cancelled

if TYPE_CHECKING:
    from worker.settings import Settings

__all__ = ["KEEP_DAYS", "Run", "Runs", "new_run_id"]

KEEP_DAYS = 30
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:()@+-]{0,199}")


class Runs(StoredRuns):
    """All runs of a state store. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore, *, keep_s: float = KEEP_DAYS * DAY_S) -> None:
        """What was run is kept for `keep_s` after its end."""
        super().__init__(state)
        self.keep_s = keep_s
        self.active = ActiveRuns(state)

    @classmethod
    def of(cls, settings: Settings, state: StateStore) -> Runs:
        """As the settings say."""
        return cls(state, keep_s=settings.team_runs_retention_days * DAY_S)

    # Beginning

    async def start(
        self,
        plan: Plan,
        given: Mapping[str, Any],
        *,
        run_id: str = "",
        tenant: str = "",
        trigger: str = "",
        parent: tuple[str, str] | None = None,
        max_tokens: int = 0,
        is_local: bool = False,
        labels: Mapping[str, str] | None = None,
        team: str = "",
        traceparent: str = "",
        tracestate: str = "",
    ) -> str:
        """Begin a run of the plan's team (or of another `team` of the plan), and return its id.

        With a `run_id` that exists already nothing is begun: it is returned as it is, whatever else was given.
        Raises `BadInput` if the input does not fit what the team declares.
        """
        wanted = plan.find(team or plan.name)
        run_id = run_id or new_run_id(wanted.name)
        if not traceparent:
            traceparent, tracestate = new_trace(run_id)
        if run_id and not _ID.fullmatch(run_id):
            raise BadInput(f"run id {run_id[:100]!r}: letters, digits and . _ : @ + - ( ) are allowed, at most 200")
        header = RunHeader(
            id=run_id,
            team=wanted.name,
            plan=plan.digest,
            input=check_input(wanted, given),
            tenant=tenant,
            trigger=trigger,
            parent=parent,
            max_tokens=max_tokens,
            is_local=is_local,
            labels=dict(labels or {}),
            created_at=time.time(),
            traceparent=traceparent,
            tracestate=tracestate,
            keep_s=self.keep_s,
        )
        return await self._begin(plan, header)

    async def _begin(self, plan: Plan, header: RunHeader) -> str:
        """The plan first, then the header, then what makes it be driven: after a crash in between, the same start
        again completes it."""
        keep_s = life_s(plan, header)
        await self.state.set(plan_key(header.plan), encode_json(plan), ttl_s=keep_s)
        self.remember_plan(header.plan, plan)
        if not await self.state.compare_and_set(header_key(header.id), None, encode_json(header), ttl_s=keep_s):
            header = await self.header(header.id)
        known = await self.index.summary(header.id)
        if known is None:
            await self.index.write(summary_at_start(header, await self.plan(header.plan)), keep_s=keep_s)
        elif known.phase.is_final:
            return header.id
        if header.parent is None:  # who drives a run drives the runs of its steps as well
            await self.active.put(header.id, is_local=header.is_local)
            await self.index.add(header, keep_s=keep_s)
        return header.id

    # Changing

    async def append(self, run_id: str, event: Event) -> bool:
        """Note what has happened, once. Says whether it was new. Raises `RunNotFound`."""
        return await self.append_all(run_id, [event]) > 0

    async def append_all(self, run_id: str, events: Sequence[Event]) -> int:
        """Note several events in one step; returns how many were new. Raises `RunNotFound`."""
        if not events:
            return 0
        header = await self.header(run_id)
        ended = [event.at for event in events if isinstance(event, event_kinds.RunEnded)]
        keep_s = ended_life_s(header, ended[0]) if ended else life_s(await self.plan(header.plan), header)
        log = events_log(run_id)
        records = [LogRecord(log=log, id=each.id, value=encode_event(each), keep_s=keep_s) for each in events]
        added = await self.state.append_once(records)
        await self.wakes.wake(run_id)
        return added

    async def forget(self, run_id: str) -> None:
        """Delete all that is known of a run that has ended, and of the runs of teams within it. One that is not known
        is no error."""
        try:
            folding, _ = await self.fold(run_id)
        except RunNotFound:
            return
        for step in folding.steps.values():
            for work in step.works.values():
                if work.run_id:
                    await self.forget(work.run_id)
        for child in folding.children.values():
            if folding.is_run(child):
                await self.forget(child.task_id)
        await self.index.forget(run_id)
        await forget_memory(self.state, run_id)
        await self.state.delete_log(events_log(run_id))
        await self.state.delete_log(calls_log(run_id))
        await self.state.delete(driver_key(run_id))
        await self.state.delete(header_key(run_id))
        self._headers.pop(run_id, None)

    def keep_s_of(self, folding: Folding) -> float:
        """How long what is written of a run now is kept."""
        end = folding.end
        return life_s(folding.plan, folding.header) if end is None else ended_life_s(folding.header, end.at)

    async def settle(self, folding: Folding) -> None:
        """A run has ended: from now on it is kept for its retention, and no longer for the time that it might take."""
        keep_s = self.keep_s_of(folding)
        await self.index.write(summary_of(folding), keep_s=keep_s)
        await self.state.set(header_key(folding.header.id), encode_json(folding.header), ttl_s=keep_s)

    async def cancel(self, run_id: str, *, by: str = "", reason: str = "") -> None:
        """Ask a run to end: its driver ends its tasks, those that it delegated and the runs of its steps. A local run
        whose process is gone ends at once: nothing of it is at work any more.

        Raises `RunNotFound`, `RunEnded`."""
        folding, _ = await self.fold(run_id)
        if folding.end is not None:
            raise RunEnded(f"run {run_id} has ended already: {folding.end.phase}")
        header = folding.header
        request = CancelRequested(at=time.time(), by=by, reason=reason)
        await self.append(run_id, request)
        if header.parent is not None:
            return
        if header.is_local and not await self.is_driven(run_id):
            folding.add([request])
            await self._end(folding)
        else:
            await self.active.put(run_id, is_local=header.is_local)

    async def _end(self, folding: Folding) -> None:
        run_id = folding.header.id
        await self.append(run_id, cancelled(folding, time.time()))
        folding, _ = await self.fold(run_id)
        await self.settle(folding)
        await self.active.drop(run_id)

    async def is_driven(self, run_id: str) -> bool:
        """Whether a process that is alive drives it."""
        return bool(await driver_of(self.state, run_id))


def new_run_id(team: str) -> str:
    """`<team>-<moment>-<random>`: they sort by time. Two that were the same would be one run, and hundreds may begin
    within a second."""
    name = re.sub(r"[^a-z0-9]+", "-", team.lower()).strip("-")[:40] or "run"
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(5)}"
