"""Whether providers work, as the last check of each found: one check at a time, for all who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from queue_backends import StateStore
from worker.live_settings import LiveSettings
from worker.provider_directory import HealthReport, ProviderDirectory, ProviderEntry
from worker.settings import Settings

KEPT_S = 15.0
"""A check that is not older is not repeated: it is a real call."""
MOST_AT_ONCE = 8


class Checked(Struct, frozen=True, kw_only=True):
    """What a check found, and when."""

    healthy: bool
    message: str
    took_ms: int
    at: float
    """Unix seconds."""
    details: dict[str, str] = {}


class ProviderChecks:
    """Reads the providers' directory and remembers what checks found."""

    def __init__(
        self, settings: Settings, live: LiveSettings, state: StateStore, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._live = live
        self._state = state
        self._clock = clock
        self._found: dict[str, Checked] = {}
        self._checking = asyncio.Lock()

    def last(self, name: str) -> Checked | None:
        """What the last check of a provider found, if there was one."""
        return self._found.get(name)

    async def entries(self) -> list[ProviderEntry]:
        """All providers there are, sorted by name. Raises `BackendUnavailable`."""
        async with self._directory() as known:
            return [await known.entry(name) for name in await known.names()]

    async def check(self, names: Sequence[str]) -> None:
        """Ask those whose last check is older than `KEPT_S`, all at once, which takes some seconds at most.

        Raises `UnknownProvider`, `BackendUnavailable`.
        """
        async with self._checking:
            now = self._clock()
            due = [name for name in names if name not in self._found or now - self._found[name].at > KEPT_S]
            if not due:
                return
            try:
                await self._ask_all(due)
            except ExceptionGroup as errors:  # the first of them tells what callers have to know
                raise errors.exceptions[0] from errors

    async def _ask_all(self, names: Sequence[str]) -> None:
        room = asyncio.Semaphore(MOST_AT_ONCE)
        async with self._directory() as known, asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(self._ask(known, name, room), name=f"check {name}")

    async def _ask(self, known: ProviderDirectory, name: str, room: asyncio.Semaphore) -> None:
        async with room:
            report = await known.health(name)
        self._found[name] = _checked(report, self._clock())

    def _directory(self) -> AbstractAsyncContextManager[ProviderDirectory]:
        return ProviderDirectory.opened(self._settings, self._live, self._state)


def _checked(report: HealthReport, at: float) -> Checked:
    return Checked(
        healthy=report.healthy, message=report.message, took_ms=report.took_ms, at=at, details=report.details
    )
