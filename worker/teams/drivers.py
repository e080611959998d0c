"""Drives the fleet's runs, in each replica of the gateway: `async with RunDrivers(backend, runs)`.

New runs are heard of at once, through a watch on the active ones. Those of a replica that has died are found when its
name has vanished, which takes as long as its lease. A run that waits only for people is in nobody's hands: it costs an
entry in a dictionary.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import structlog

from queue_backends import Backend, BackendUnavailable, StateChange
from worker.approvals import PREFIX as APPROVALS
from worker.approvals.answers import HELLO as APPROVALS_HELLO
from worker.approvals.answers import decode_approval
from worker.background import BackgroundWork
from worker.following import Following
from worker.teams.active_runs import decode_active
from worker.teams.driver import Driver, OnEnd
from worker.teams.errors import RunBusy, RunNotFound
from worker.teams.ownership import LEASE_S, Ownership
from worker.teams.run_keys import ACTIVE, DRIVERS
from worker.teams.run_spans import RunSpans
from worker.teams.runs import Runs
from worker.teams.waiting_runs import WaitingRuns

MOST_AT_ONCE = 200
RECONCILE_S = 300.0
"""All active runs are read anew so often, in case that a watch has lost one."""
AGAIN_S = 5.0
"""A run that could not be driven, for whatever reason, is tried again after so long."""
ORPHAN_S = 3600.0
"""An active run without a header was forgotten, or its start was cut off so long ago."""
LOOK_FOR_DEAD_S = 4.0
"""It is looked so often whether those who drive other runs still do."""
_AT_ONCE = 100

log = structlog.get_logger(__name__)


class RunDrivers:
    """Drives whatever run of the fleet nobody else drives, at most `most` at a time, from enter to exit."""

    def __init__(
        self,
        backend: Backend,
        runs: Runs,
        *,
        on_end: OnEnd | None = None,
        spans: RunSpans | None = None,
        most: int = MOST_AT_ONCE,
        lease_s: float = LEASE_S,
    ) -> None:
        """`on_end` is told of each run that has ended; see `OnEnd`."""
        self._state = backend.state
        self._runs = runs
        self._most = most
        self._ownership = Ownership(backend.state, lease_s=lease_s)
        self._driver = Driver(backend, runs, on_end=on_end, ownership=self._ownership, spans=spans)
        self._waiting = WaitingRuns()
        self._changed: set[str] = set()
        """Runs that the watch has told of since the last reading of all of them began."""
        self._held_by: dict[str, str] = {}
        """Run -> the process that drives it, if that is another one."""
        self._driving: set[str] = set()
        self._woken = asyncio.Event()
        self._main = BackgroundWork(self._run, name="drivers of runs")
        self._followings = [
            self._following(ACTIVE, "active runs", self._run_changed, self._keep_runs),
            self._following(APPROVALS, "answers that runs wait for", self._approval_changed, self._keep_answers),
            self._following(DRIVERS, "drivers of runs", self._driver_changed, self._keep_drivers),
        ]

    def _following(
        self, prefix: str, what: str, changed: Callable[[StateChange], None], keep: Callable[[], Awaitable[None]]
    ) -> Following:
        hello = APPROVALS_HELLO if prefix == APPROVALS else f"{prefix}~hello"
        return Following(self._state, prefix, hello, what=what, changed=changed, keep=keep)

    @property
    def name(self) -> str:
        """This process, as runs have it."""
        return self._ownership.name

    @property
    def driving(self) -> frozenset[str]:
        """The runs in its hands at this moment."""
        return frozenset(self._driving)

    async def __aenter__(self) -> Self:
        """Raises `BackendUnavailable`."""
        await self._ownership.__aenter__()
        for following in self._followings:
            following.start()
        self._main.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave all runs to others, at once: what is under way goes on in its workers."""
        await self._main.stop()
        for following in self._followings:
            await following.stop()
        await self._ownership.__aexit__(kind, error, trace)

    # What is known

    def _run_changed(self, change: StateChange) -> None:
        run_id = change.key.removeprefix(ACTIVE)
        self._changed.add(run_id)
        self._held_by.pop(run_id, None)
        if change.value is None:
            self._waiting.drop(run_id)
        else:
            self._waiting.put(decode_active(change.value))
        self._woken.set()

    async def _keep_runs(self) -> None:
        while True:
            await self._read_runs()
            self._followings[0].has_read()
            self._woken.set()
            await asyncio.sleep(RECONCILE_S * random.uniform(0.75, 1.25))  # noqa: S311 - so that not all read at once

    async def _read_runs(self) -> None:
        """What the watch tells meanwhile is newer than what is read: a run that begins during the reading may not be
        found by it."""
        self._changed.clear()
        self._held_by.clear()  # who is there may have let go of one: it is tried to take each of them again
        found = {run.id: run async for run in self._runs.active.all()}
        for run_id in self._waiting.known() - found.keys() - self._changed:
            self._waiting.drop(run_id)
        for run_id, run in found.items():
            if run_id not in self._changed and run_id not in self._driving:
                self._waiting.put(run)
        await self._look_for_answers(self._waiting.asked())

    def _approval_changed(self, change: StateChange) -> None:
        if _is_answered(change.value):
            self._waiting.answered(change.key.removeprefix(APPROVALS))
            self._woken.set()

    async def _keep_answers(self) -> None:
        await self._look_for_answers(self._waiting.asked())  # the watch was away: some may have been missed
        self._followings[1].has_read()
        self._woken.set()
        await asyncio.Event().wait()

    async def _look_for_answers(self, approval_ids: Sequence[str]) -> None:
        for start in range(0, len(approval_ids), _AT_ONCE):
            page = approval_ids[start : start + _AT_ONCE]
            values = await asyncio.gather(*(self._state.get(f"{APPROVALS}{each}") for each in page))
            for each, value in zip(page, values, strict=True):
                if _is_answered(value):
                    self._waiting.answered(each)

    def _driver_changed(self, change: StateChange) -> None:
        if change.value is None:
            self._is_gone(change.key.removeprefix(DRIVERS))

    async def _keep_drivers(self) -> None:
        """A process that dies tells nobody: its name is looked for."""
        while True:
            for name in set(self._held_by.values()):
                if not await self._ownership.is_alive(name):
                    self._is_gone(name)
            self._followings[2].has_read()
            await asyncio.sleep(min(self._ownership.lease_s / 4, LOOK_FOR_DEAD_S))

    def _is_gone(self, name: str) -> None:
        """Its runs are nobody's."""
        for run_id in [run_id for run_id, holder in self._held_by.items() if holder == name]:
            del self._held_by[run_id]
            self._woken.set()

    # What is done

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as drives:
            while True:
                self._woken.clear()
                now = time.time()
                moment = self._waiting.next_moment(now)
                for run_id in self._wanted():
                    self._driving.add(run_id)
                    drives.create_task(self._drive(run_id), name=f"drive of run {run_id}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if moment is None else max(0.0, moment - now) + 0.01):
                        await self._woken.wait()

    def _wanted(self) -> list[str]:
        room = self._most - len(self._driving)
        found: list[str] = []
        for run_id in self._waiting.ready:
            if len(found) >= room:
                break
            if run_id not in self._driving and run_id not in self._held_by:
                found.append(run_id)
        return found

    async def _drive(self, run_id: str) -> None:
        known = self._waiting.ready.get(run_id)
        try:
            await self._driver.drive_on(run_id, may_rest=True)
            if self._waiting.ready.get(run_id) is known:  # what it is now comes by the watch in a moment
                self._waiting.later(run_id, time.time() + AGAIN_S)
        except RunBusy:
            await self._belongs_to_another(run_id)
        except RunNotFound:
            await self._has_no_header(run_id)
        except BackendUnavailable:
            self._waiting.later(run_id, time.time() + AGAIN_S)
        except Exception:  # whatever it is, the other runs go on, and the next try may do better
            log.exception("a run could not be driven, trying again later", run=run_id)
            self._waiting.later(run_id, time.time() + AGAIN_S)
        finally:
            self._driving.discard(run_id)
            self._woken.set()

    async def _belongs_to_another(self, run_id: str) -> None:
        with contextlib.suppress(BackendUnavailable):
            if holder := await self._ownership.holder(run_id):
                self._held_by[run_id] = holder
                if not await self._ownership.is_alive(holder):  # it left before we would have noticed
                    self._is_gone(holder)
                return
        self._waiting.later(run_id, time.time() + AGAIN_S)

    async def _has_no_header(self, run_id: str) -> None:
        run = self._waiting.ready.get(run_id)
        if run is not None and run.put_at < time.time() - ORPHAN_S:
            with contextlib.suppress(BackendUnavailable):
                await self._runs.active.drop(run_id)
        self._waiting.later(run_id, time.time() + AGAIN_S)


def _is_answered(value: bytes | None) -> bool:
    """Whether nobody has to wait for that question any more; one that cannot be read is looked at by its run."""
    found = None if value is None else decode_approval(value)
    return found is None or found.decided
