"""Lists of runs for many who watch them: each is told that something has changed, and asks again.

The feed tells of a version (`tell`), at most once a tick. All who ask for the same list because of it share one look,
so that a list costs the store the same however many have it open. Who asks without a version has one of his own.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from queue_backends import QueueError, StateChange
from worker.background import BackgroundWork
from worker.teams.run_header import RunSummary
from worker.teams.run_keys import summary_key
from worker.teams.run_state import Phase
from worker.teams.runs import Runs

MOST_LOOKS: Final = 32
FRESH_S: Final = 5.0
"""A shared look is no older: what the store announces to nobody, such as a process that died, shows after that time."""
MOST_TENANTS: Final = 10_000
RETRY_S: Final = 1.0

log = structlog.get_logger(__name__)

_ListKey = tuple[int, int, str, str | None, tuple[Phase, ...]]


class _Whose(Struct, frozen=True):
    """What of a summary says who may hear of it."""

    tenant: str = ""
    parent: tuple[str, str] | None = None


class _Look:
    """A list, and when it was looked up."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.found: list[RunSummary] = []
        self.until = 0.0
        """By the monotonic clock."""


_whose = msgspec.json.Decoder(_Whose).decode


class RunChanges(BackgroundWork):
    """Entered (`async with`), it hears of all runs that begin, go on and end."""

    def __init__(self, runs: Runs) -> None:
        super().__init__(self._follow, name="changes of runs")
        self._runs = runs
        self._newest = time.time_ns() // 1_000_000  # no other gateway's, and none from before a restart
        self._of_tenants: dict[str, int] = {}
        self._oldest = self._newest
        self._told: dict[str, int] = {}
        self._looks: OrderedDict[_ListKey, _Look] = OrderedDict()

    def tell(self, tenant: str) -> int:
        """The version to tell those who see a tenant's runs (empty: all runs): another one if something has changed."""
        version = self._of_tenants.get(tenant, self._oldest) if tenant else self._newest
        self._told[tenant] = version
        return version

    async def list(
        self, version: int, *, limit: int, team: str, tenant: str | None, phases: Sequence[Phase]
    ) -> list[RunSummary]:
        """As `Runs.list`, for somebody who was told of a version; 0: for anybody. Raises `BackendUnavailable`."""
        if not version or version not in (self._told.get(tenant or ""), self._told.get("")):
            return await self._runs.list(limit=limit, team=team, tenant=tenant, phases=phases)
        look = self._look_for((version, limit, team, tenant, tuple(phases)))
        async with look.lock:
            if time.monotonic() >= look.until:
                look.found = await self._runs.list(limit=limit, team=team, tenant=tenant, phases=phases)
                look.until = time.monotonic() + FRESH_S
            return look.found

    def _look_for(self, key: _ListKey) -> _Look:
        look = self._looks.setdefault(key, _Look())
        self._looks.move_to_end(key)
        while len(self._looks) > MOST_LOOKS:
            self._looks.popitem(last=False)
        return look

    async def _follow(self) -> None:
        while True:
            try:
                async for change in self._runs.state.watch(summary_key("")):
                    self._heard(change)
            except QueueError as error:
                log.debug("changes of runs are not heard, it is tried again", error=str(error))
            await asyncio.sleep(RETRY_S)
            self._all_changed()

    def _heard(self, change: StateChange) -> None:
        if change.value is None:  # nobody knows any more whose it was
            self._all_changed()
            return
        whose = _whose(change.value)
        if whose.parent is not None:  # lists do not show it
            return
        self._newest += 1
        if whose.tenant:
            self._of_tenants[whose.tenant] = self._newest
        if len(self._of_tenants) > MOST_TENANTS:
            self._all_changed()

    def _all_changed(self) -> None:
        self._newest += 1
        self._oldest = self._newest
        self._of_tenants.clear()
        self._told.clear()
