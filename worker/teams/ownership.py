"""Who drives a run: one process at a time, and another one soon after its death.

A process that drives runs has a name, which lives for `LEASE_S` and is renewed; a run has the name of who drives it. So
the work of staying alive does not grow with the number of runs. That two drive the same run for a moment, when one was
held up for long, does no harm: what they write is written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from types import TracebackType
from typing import Self

import structlog

from queue_backends import BackendUnavailable, QueueError, StateStore
from worker.background import BackgroundWork
from worker.teams.run_keys import DRIVERS, driver_key

LEASE_S = 15.0
KEEP_S = 400 * 86_400.0
"""How long a run keeps the name of its last driver at most: longer than any run lasts."""

log = structlog.get_logger(__name__)


class Hold:
    """A run is ours until it is released, or `lost` is set."""

    def __init__(self, run_id: str, name: str) -> None:
        self.run_id = run_id
        self.name = name
        self.lost = asyncio.Event()


class Ownership:
    """This process among those that drive runs: `async with Ownership(state) as ownership`."""

    def __init__(self, state: StateStore, *, lease_s: float = LEASE_S) -> None:
        self._state = state
        self.lease_s = lease_s
        self.name = ""
        self._held: dict[str, Hold] = {}
        self._keeping = BackgroundWork(self._keep, name="lease of the runs' driver")
        self._good_until = 0.0

    async def __aenter__(self) -> Self:
        """Raises `BackendUnavailable`."""
        await self._appear()
        self._keeping.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up all that is held."""
        await self._keeping.stop()
        with contextlib.suppress(QueueError):
            for run_id in list(self._held):
                await self.release(run_id)
            await self._state.delete(f"{DRIVERS}{self.name}")

    async def take(self, run_id: str) -> Hold | None:
        """The run, if nobody alive drives it, this process included. Raises `BackendUnavailable`."""
        if run_id in self._held:
            return None
        key = driver_key(run_id)
        holder = await self._state.get(key)
        if holder is not None and await self.is_alive(holder.decode()):
            return None
        hold = Hold(run_id, self.name)
        self._held[run_id] = hold
        try:
            if await self._state.compare_and_set(key, holder, hold.name.encode(), ttl_s=KEEP_S):
                return hold
        except BaseException:
            self._held.pop(run_id, None)
            raise
        self._held.pop(run_id, None)
        return None

    async def is_alive(self, name: str) -> bool:
        """Whether the process of that name lives, as far as anybody knows. Raises `BackendUnavailable`."""
        return await self._state.get(f"{DRIVERS}{name}") is not None

    async def holder(self, run_id: str) -> str:
        """The name of the process that drives a run; empty: nobody alive does. Raises `BackendUnavailable`."""
        return await driver_of(self._state, run_id)

    async def release(self, run_id: str) -> None:
        """Somebody else may have it. Raises `BackendUnavailable`; then it is ours until this process is gone."""
        if (hold := self._held.pop(run_id, None)) is not None and not hold.lost.is_set():
            await self._state.compare_and_set(driver_key(run_id), hold.name.encode(), None)

    # Staying alive

    async def _appear(self) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        await self._state.set(f"{DRIVERS}{self.name}", self.name.encode(), ttl_s=self.lease_s)
        self._good_until = asked_at + self.lease_s

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.lease_s / 4)
            asked_at = loop.time()
            try:
                async with asyncio.timeout(self.lease_s / 4):
                    is_ours = await self._renew()
            except (BackendUnavailable, TimeoutError):
                is_ours = loop.time() < self._good_until
            else:
                self._good_until = asked_at + self.lease_s if is_ours else 0.0
            if not is_ours:
                await self._lose()

    async def _renew(self) -> bool:
        name = self.name.encode()
        return await self._state.compare_and_set(f"{DRIVERS}{self.name}", name, name, ttl_s=self.lease_s)

    async def _lose(self) -> None:
        """Others may drive what was ours: stop, and appear under a new name."""
        if self._held:
            log.warning("the lease of this driver was lost, its runs are given up", runs=len(self._held))
        for hold in self._held.values():
            hold.lost.set()
        self._held.clear()
        with contextlib.suppress(BackendUnavailable):
            await self._appear()


async def driver_of(state: StateStore, run_id: str) -> str:
    """The name of the process that drives a run; empty: nobody alive does. Raises `BackendUnavailable`."""
    stored = await state.get(driver_key(run_id))
    if stored is None or await state.get(f"{DRIVERS}{stored.decode()}") is None:
        return ""
    return stored.decode()
