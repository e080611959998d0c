"""Runs on their way to all who watch them: one subscription of the store for each run, whatever the number of watchers.

Nothing is kept for a watcher: it is given the newest state when it asks, so that a slow one skips what was in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self, cast

from queue_backends import BackendUnavailable
from worker.gateway.run_picture import RunPicture
from worker.teams.plan import Team
from worker.teams.run_header import RunHeader
from worker.teams.run_state import RunState
from worker.teams.runs import Runs

RETRY_S = 0.5
PACE_S = 0.1
PACE_OF_STEP_S = 0.001
"""No watcher is told more often than that: a run of many short steps would else be drawn for every single event."""


class _Watched:
    """A run that somebody watches."""

    def __init__(self, runs: Runs, header: RunHeader) -> None:
        self.header = header
        self.watchers = 0
        self.picture: RunPicture | None = None
        self.error: Exception | None = None
        self.has_ended = False
        self.changed = asyncio.Event()
        self._runs = runs

    async def draw(self) -> None:
        """Follow the run until its end."""
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001 - whatever it is, the watchers are told of it
            self.error = error
        self.has_ended = True
        self.tell()

    def tell(self) -> None:
        """Let all who wait look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def _follow(self) -> None:
        team = (await self._runs.plan(self.header.plan)).find(self.header.team)
        while True:
            try:
                return await self._follow_states(team)
            except BackendUnavailable:
                if self.picture is None:
                    raise
                await asyncio.sleep(RETRY_S)

    async def _follow_states(self, team: Team) -> None:
        states = cast("AsyncGenerator[RunState, None]", self._runs.follow(self.header.id))
        async with aclosing(states):
            async for state in states:
                drawn = self.picture.drawn if self.picture is not None else None
                self.picture = RunPicture(self.header, team, state, drawn)
                self.tell()


class RunHub:
    """All runs that are watched through this gateway: `async with RunHub(runs) as hub`."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._watched: dict[str, _Watched] = {}
        self._tasks: dict[_Watched, asyncio.Task[None]] = {}
        self.is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all streams, and give up the subscriptions."""
        self.is_closed = True
        for watched in self._watched.values():
            watched.tell()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def watched(self) -> tuple[str, ...]:
        """The runs that somebody watches now."""
        return tuple(self._watched)

    async def follow(self, header: RunHeader) -> AsyncGenerator[RunPicture, None]:
        """The run as it is, and again whenever it has changed; ends after its end. Raises what reading it raises."""
        watched = self._join(header)
        last: RunPicture | None = None
        try:
            while not self.is_closed:
                changed = watched.changed
                if watched.picture is not None and watched.picture is not last:
                    last = watched.picture
                    if last.is_large:
                        await asyncio.to_thread(lambda picture: picture.parts, last)
                    yield last
                    if not watched.has_ended:
                        await asyncio.sleep(PACE_S + len(last.state.steps) * PACE_OF_STEP_S)
                elif watched.error is not None:
                    raise watched.error
                elif watched.has_ended:
                    return
                else:
                    await changed.wait()
        finally:
            self._leave(watched)

    def _join(self, header: RunHeader) -> _Watched:
        watched = self._watched.get(header.id)
        if watched is None or watched.has_ended:
            watched = self._watched[header.id] = _Watched(self._runs, header)
            task = asyncio.create_task(watched.draw(), name=f"watch of run {header.id}")
            self._tasks[watched] = task
            task.add_done_callback(lambda _, of=watched: self._tasks.pop(of, None))  # type: ignore[misc]  # bound now
        watched.watchers += 1
        return watched

    def _leave(self, watched: _Watched) -> None:
        watched.watchers -= 1
        if watched.watchers:
            return
        if (task := self._tasks.get(watched)) is not None:
            task.cancel()
        if self._watched.get(watched.header.id) is watched:
            del self._watched[watched.header.id]
