"""Drives runs to their end: `await Driver(backend, runs).drive(run_id)`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from queue_backends import Backend
from worker.approvals import Approvals
from worker.persistence import persistently
from worker.teams.around import Around, Resting
from worker.teams.asking import has_answer
from worker.teams.errors import RunBusy
from worker.teams.ownership import LEASE_S, Hold, Ownership
from worker.teams.pruning import prune
from worker.teams.run_driver import RunDriver
from worker.teams.run_spans import RunSpans
from worker.teams.run_state import RunState
from worker.teams.runs import Run, Runs
from worker.teams.scheduling import decide

OnEnd = Callable[[Run], Awaitable[None]]
"""Told of each run that has ended. After a crash in the middle it is told again: what it does follows from the run's id
and is done once."""

log = structlog.get_logger(__name__)


class HeldUp(RunBusy):
    """This process did not renew its lease in time: anybody may have the run now."""


class Driver:
    """Drives runs, one after the other or many at once; whoever else drives the same run is left alone."""

    def __init__(
        self,
        backend: Backend,
        runs: Runs,
        *,
        on_end: OnEnd | None = None,
        ownership: Ownership | None = None,
        spans: RunSpans | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        """Without an `ownership`, each drive has one of its own, with that lease."""
        self._around = Around(
            backend=backend, runs=runs, approvals=Approvals(backend.state, wake=backend.queue.wake), spans=spans
        )
        self._runs = runs
        self._on_end = on_end
        self._ownership = ownership
        self._lease_s = lease_s

    async def drive(self, run_id: str) -> RunState:
        """Drive a run to its end. Raises `RunNotFound`, and `RunBusy` if somebody else drives it, or has taken it over
        because this process was held up: a laptop that slept, say. If nobody has, it goes on."""
        try:
            state = await self.drive_on(run_id, may_rest=False)
        except HeldUp:
            log.warning("this process was held up, and takes its run again", run=run_id)
            return await persistently(lambda: self.drive(run_id), "take a run again")
        assert isinstance(state, RunState)  # noqa: S101 - it was not allowed to rest
        return state

    async def drive_on(self, run_id: str, *, may_rest: bool) -> RunState | Resting:
        """As `drive`; with `may_rest`, it returns as soon as the run waits for nothing but people."""
        async with self._held(run_id) as hold:
            driving = asyncio.create_task(self._drive(run_id, may_rest=may_rest), name=f"run {run_id}")
            losing = asyncio.create_task(hold.lost.wait(), name=f"hold of run {run_id}")
            try:
                await asyncio.wait([driving, losing], return_when=asyncio.FIRST_COMPLETED)
            finally:
                losing.cancel()
                if not driving.done():
                    driving.cancel()
                await asyncio.wait([driving, losing])
                if not driving.cancelled():
                    driving.exception()  # seen, though nobody may be told of it any more
            if driving.cancelled():
                raise HeldUp(f"run {run_id} may have been taken over: this process was held up for too long")
            return driving.result()

    async def _drive(self, run_id: str, *, may_rest: bool) -> RunState | Resting:
        found = await RunDriver(self._around, run_id).drive(may_rest=may_rest)
        if isinstance(found, Resting):
            header = await self._runs.header(run_id)
            await persistently(
                lambda: self._runs.active.put(
                    run_id, is_local=header.is_local, rests_until=found.until, waits_for=found.waits_for
                ),
                "let a run rest",
            )
            if await persistently(lambda: self._has_news(run_id), "look at a resting run"):
                await persistently(lambda: self._runs.active.put(run_id, is_local=header.is_local), "wake a run")
        else:
            await self._ended(run_id)
        return found

    async def _has_news(self, run_id: str) -> bool:
        """Whether something has happened to it before all knew that it rests."""
        folding, _ = await self._runs.fold(run_id)
        if decide(folding, time.time()):
            return True
        asked = [fold.asked for fold in folding.steps.values() if fold.asked is not None and fold.decided is None]
        return await has_answer(self._around.approvals, asked)

    async def _ended(self, run_id: str) -> None:
        """What follows from a run's end. Until all of it was done, the run counts as active."""
        run = await persistently(lambda: self._runs.read(run_id), "read a run that has ended")
        if run.header.parent is not None:
            return
        if self._on_end is not None:
            await self._on_end(run)
        await persistently(lambda: prune(self._runs, run), "forget old runs")
        await persistently(lambda: self._runs.active.drop(run_id), "finish a run")

    @asynccontextmanager
    async def _held(self, run_id: str) -> AsyncIterator[Hold]:
        ownership = self._ownership
        if ownership is None:
            async with Ownership(self._runs.state, lease_s=self._lease_s) as own, _hold(own, run_id) as hold:
                yield hold
        else:
            async with _hold(ownership, run_id) as hold:
                yield hold


@asynccontextmanager
async def _hold(ownership: Ownership, run_id: str) -> AsyncIterator[Hold]:
    hold = await ownership.take(run_id)
    if hold is None:
        raise RunBusy(f"run {run_id} is driven by somebody else: follow it, or wait until that process is gone")
    try:
        yield hold
    finally:
        await ownership.release(run_id)
