"""Reading runs of teams: their headers, plans and logs, as they stand in the `StateStore`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from queue_backends import StateStore
from worker.persistence import persistently
from worker.teams.errors import RunNotFound
from worker.teams.folding import Folding
from worker.teams.plan import Plan, decode_plan
from worker.teams.run_events import Event, decode_event
from worker.teams.run_header import RunHeader, RunSummary
from worker.teams.run_index import RunIndex
from worker.teams.run_keys import events_log, header_key, plan_key
from worker.teams.run_state import Phase, RunState
from worker.teams.wakes import Wakes

PAGE = 500
"""Events that are read in one step."""
LOOK_AGAIN_S = 20.0
"""Without any news, a log is read so often all the same."""
LOOK_SOON_S = 0.25
"""When there should be news and are none yet: some stores show a record a little after it was announced."""
_HEADERS = 2000
_PLANS = 200
"""So many are remembered, here and in each worker: a plan may have a hundred times the size of a header."""

_header = msgspec.json.Decoder(RunHeader).decode


class Run(Struct, frozen=True, kw_only=True):
    """A run as it is now."""

    header: RunHeader
    plan: Plan
    state: RunState


class StoredRuns:
    """All runs of a state store, to be read. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore) -> None:
        self.state = state
        self.index = RunIndex(state)
        self.wakes = Wakes(state)
        self._headers: dict[str, RunHeader] = {}
        self._plans: dict[str, Plan] = {}

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

    def remember_plan(self, digest: str, plan: Plan) -> None:
        """Spare the store the next question for it."""
        _remember(self._plans, digest, plan, _PLANS)

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
