"""Runs of teams, as they stand in the `StateStore`: a header that never changes, a log of events, and a summary for
lists. Whoever wants something from a run goes through here; who drives it is `worker.teams.driver`'s business."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from queue_backends import LogRecord, StateStore
from queue_backends.messages import encode_json
from worker.persistence import persistently
from worker.teams import run_events as event_kinds
from worker.teams.active_runs import ActiveRuns
from worker.teams.errors import BadInput, RunEnded, RunNotFound
from worker.teams.folding import Folding
from worker.teams.inputs import check_input
from worker.teams.memory.keys import forget_run as forget_memory
from worker.teams.ownership import driver_of
from worker.teams.plan import Plan, decode_plan
from worker.teams.run_events import CancelRequested, Event, decode_event, encode_event
from worker.teams.run_header import RunHeader, RunSummary
from worker.teams.run_index import RunIndex
from worker.teams.run_keys import calls_log, driver_key, events_log, header_key, plan_key
from worker.teams.run_lives import DAY_S, ended_life_s, life_s
from worker.teams.run_state import Phase, RunState
from worker.teams.run_summaries import summary_at_start, summary_of
from worker.teams.run_trace import new_trace
from worker.teams.verdicts import cancelled
from worker.teams.wakes import Wakes

if TYPE_CHECKING:
    from worker.settings import Settings

KEEP_DAYS = 30
PAGE = 500
"""Events that are read in one step."""
LOOK_AGAIN_S = 20.0
"""Without any news, a log is read so often all the same."""
LOOK_SOON_S = 0.25
"""When there should be news and are none yet: some stores show a record a little after it was announced."""
_HEADERS = 2000
_PLANS = 200
"""So many are remembered, here and in each worker: a plan may have a hundred times the size of a header."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:()@+-]{0,199}")

_header = msgspec.json.Decoder(RunHeader).decode


class Run(Struct, frozen=True, kw_only=True):
    """A run as it is now."""

    header: RunHeader
    plan: Plan
    state: RunState


class Runs:
    """All runs of a state store. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore, *, keep_s: float = KEEP_DAYS * DAY_S) -> None:
        """What was run is kept for `keep_s` after its end."""
        self.state = state
        self.keep_s = keep_s
        self.active = ActiveRuns(state)
        self.index = RunIndex(state)
        self.wakes = Wakes(state)
        self._headers: dict[str, RunHeader] = {}
        self._plans: dict[str, Plan] = {}

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
        _remember(self._plans, header.plan, plan, _PLANS)
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

    # Reading

    async def header(self, run_id: str) -> RunHeader:
        """What a run is. Raises `RunNotFound`."""
        if (known := self._headers.get(run_id)) is not None:
            return known
        stored = await self.state.get(header_key(run_id))
        if stored is None:
            raise RunNotFound(f"no run {run_id[:200]!r}: it was never started here, or is no longer kept")
        header = _header(stored)
        _remember(self._headers, run_id, header, _HEADERS)
        return header

    async def plan(self, digest: str) -> Plan:
        """A plan by its digest. Raises `RunNotFound` if it is no longer kept."""
        if (known := self._plans.get(digest)) is not None:
            return known
        stored = await self.state.get(plan_key(digest))
        if stored is None:
            raise RunNotFound(f"no plan {digest[:64]!r}: the runs that went by it are no longer kept")
        plan = decode_plan(stored)
        _remember(self._plans, digest, plan, _PLANS)
        return plan

    async def fold(self, run_id: str) -> tuple[Folding, str]:
        """All that the log says of a run, and the log's cursor after it. Raises `RunNotFound`."""
        header = await self.header(run_id)
        folding = Folding(await self.plan(header.plan), header)
        cursor = ""
        while True:
            cursor, events = await self.read_on(run_id, cursor)
            if not events:
                return folding, cursor
            folding.add([event for event in events if event is not None])

    async def read_on(self, run_id: str, cursor: str) -> tuple[str, list[Event | None]]:
        """The events after a cursor, at most a page of them, and the cursor after those. None stands for an event that
        this version does not know."""
        page = await self.state.read_on(events_log(run_id), cursor, limit=PAGE)
        return page.cursor, [decode_event(entry.value) for entry in page.entries]

    async def read(self, run_id: str) -> Run:
        """A run as it is now. Raises `RunNotFound`."""
        folding, _ = await self.fold(run_id)
        return Run(header=folding.header, plan=folding.plan, state=folding.state())

    async def follow(self, run_id: str) -> AsyncIterator[RunState]:
        """The run as it is now, and after each further event; ends after the last one. An outage of the store is
        waited for. Raises `RunNotFound`."""
        async with self.wakes.of(run_id) as woken:
            woken.clear()
            folding, cursor = await persistently(partial(self.fold, run_id), "read a run")
            yield folding.state()
            soon_s = LOOK_SOON_S
            while not folding.is_over:
                was_woken = await _wait(woken, soon_s)
                cursor, events = await persistently(partial(self.read_on, run_id, cursor), "follow a run")
                for event in events:
                    if event is not None:
                        folding.add([event])
                        yield folding.state()
                soon_s = LOOK_SOON_S if was_woken or events else min(2 * soon_s, LOOK_AGAIN_S)

    async def list(
        self,
        *,
        limit: int = 50,
        team: str = "",
        tenant: str | None = None,
        phases: Sequence[Phase] = (),
    ) -> list[RunSummary]:
        """Runs, the newest first, without those that are steps of others. `tenant`: None means every one."""
        return await self.index.list(limit=limit, team=team, tenant=tenant, phases=phases)

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
    """`<team>-<moment>-<random>`: they sort by time. Two that were the same would be one run: hundreds of them may begin
    within a second."""
    name = re.sub(r"[^a-z0-9]+", "-", team.lower()).strip("-")[:40] or "run"
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(5)}"


def _remember(known: dict[str, Any], name: str, value: Any, most: int) -> None:
    known.pop(name, None)
    while len(known) >= most:
        del known[next(iter(known))]
    known[name] = value


async def _wait(woken: asyncio.Event, soon_s: float) -> bool:
    """Until there is news, or it is time to look again."""
    try:
        async with asyncio.timeout(soon_s):
            await woken.wait()
    except TimeoutError:
        return False
    woken.clear()
    return True
