"""How those who follow runs learn that there is something new: one watch for all of a process, as long as anybody
follows."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator

from queue_backends import BackendUnavailable, StateChange, StateStore
from worker.following import Following
from worker.teams.run_keys import WAKE_TTL_S, WAKES, WAKES_HELLO

WATCH_WITHIN_S = 10.0


class Wakes:
    """Wakes whoever waits for a run's next event."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._following: Following | None = None
        self._followers = 0

    async def wake(self, run_id: str) -> None:
        """Tell all processes that something has happened to a run. What is lost of it costs its followers a little
        time, no event."""
        with contextlib.suppress(BackendUnavailable):
            await self._state.set(f"{WAKES}{run_id}", secrets.token_hex(4).encode(), ttl_s=WAKE_TTL_S)

    @contextlib.asynccontextmanager
    async def of(self, run_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever something has happened to the run, and when it may have."""
        woken = asyncio.Event()
        self._waiting.setdefault(run_id, set()).add(woken)
        self._followers += 1
        try:
            await self._watch()
            yield woken
        finally:
            self._waiting[run_id].discard(woken)
            if not self._waiting[run_id]:
                del self._waiting[run_id]
            self._followers -= 1
            if not self._followers and self._following is not None:
                following, self._following = self._following, None
                await following.stop()

    async def _watch(self) -> None:
        if self._following is None:
            self._following = Following(
                self._state, WAKES, WAKES_HELLO, what="events of runs", changed=self._heard, keep=self._keep
            )
            self._following.start()
        with contextlib.suppress(TimeoutError):  # the store is away: who follows looks again by himself
            async with asyncio.timeout(WATCH_WITHIN_S):
                await self._following.loaded()

    def _heard(self, change: StateChange) -> None:
        for woken in self._waiting.get(change.key.removeprefix(WAKES), ()):
            woken.set()

    async def _keep(self) -> None:
        for waiting in self._waiting.values():  # the watch has begun, maybe anew: something may have been missed
            for woken in waiting:
                woken.set()
        if self._following is not None:
            self._following.has_read()
        await asyncio.Event().wait()
