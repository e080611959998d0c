"""The plans that this process works by: read from the state store once, kept as long as they are in use."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

from worker.persistence import persistently
from worker.teams.errors import PlanNotFound, RunNotFound
from worker.teams.marks import Marks
from worker.teams.plan import Plan

MOST_PLANS = 200
MOST_RUNS = 10_000
"""Runs of which it is remembered whose they are, and which plan they go by."""


class RunHead(Protocol):
    """What of a run's header matters here."""

    @property
    def plan(self) -> str:
        """The digest of its plan."""
        ...

    @property
    def tenant(self) -> str:
        """Whose run it is."""
        ...


class Plans(Protocol):
    """Where plans and headers of runs are kept: `worker.teams.runs.Runs`."""

    async def plan(self, digest: str) -> Plan:
        """Raises a `TeamError` if there is none of that digest."""
        ...

    async def header(self, run_id: str) -> RunHead:
        """Raises `RunNotFound`."""
        ...


class PlansInUse:
    """Plans by their digest. Those used last are kept, at most `most`; loads of the same one are made once."""

    def __init__(self, runs: Plans, *, most: int = MOST_PLANS) -> None:
        self._runs = runs
        self._most = most
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}
        self._heads: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """Run -> its plan's digest and its tenant. They never change."""

    def known(self, digest: str) -> Plan | None:
        """The plan, if it is at hand."""
        plan = self._plans.get(digest)
        if plan is not None:
            self._plans.move_to_end(digest)
        return plan

    async def load(self, digest: str) -> Plan:
        """The plan, from the store if it is not at hand; a store that is away is waited for, as long as the caller
        lives. Raises `PlanNotFound`."""
        if (plan := self.known(digest)) is not None:
            return plan
        lock = self._loading.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                return self.known(digest) or self._keep(digest, await self._read(digest))
        finally:
            if not lock.locked():
                self._loading.pop(digest, None)

    async def admit(self, marks: Marks, tenant: str) -> Plan:
        """The plan of a task with these marks, once it is certain that the task may go by it: its run has that plan,
        and belongs to the task's tenant. Raises `PlanNotFound`, which says the same of somebody else's run as of none.
        """
        if await self._head(marks.run) != (marks.plan, tenant):
            raise PlanNotFound(f"run {marks.run[:100]!r} has no plan {marks.plan[:40]!r}: it is not kept, or not yours")
        return await self.load(marks.plan)

    async def _read(self, digest: str) -> Plan:
        try:
            return await persistently(lambda: self._runs.plan(digest), "read a team's plan")
        except RunNotFound as error:
            raise PlanNotFound(
                f"no plan {digest[:40]!r} is kept here: the run is older than the store keeps it, or this worker's "
                "SHOAL_STATE_URL is another store than the scheduler's"
            ) from error

    async def _head(self, run_id: str) -> tuple[str, str]:
        head = self._heads.get(run_id)
        if head is None:
            try:
                found = await persistently(lambda: self._runs.header(run_id), "read a run's header")
            except RunNotFound as error:
                raise PlanNotFound(
                    f"no run {run_id[:100]!r} is kept here: it is older than the store keeps it, or this worker's "
                    "SHOAL_STATE_URL is another store than the scheduler's"
                ) from error
            head = self._heads[run_id] = (found.plan, found.tenant)
            if len(self._heads) > MOST_RUNS:
                self._heads.popitem(last=False)
        return head

    def _keep(self, digest: str, plan: Plan) -> Plan:
        self._plans[digest] = plan
        if len(self._plans) > self._most:
            self._plans.popitem(last=False)
        return plan
