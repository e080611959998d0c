"""The files of all tasks of one worker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from queue_backends import StateStore, Task
from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.names import place_of
from worker.artifacts.opening import open_store
from worker.artifacts.room import Room, open_room
from worker.artifacts.store import ArtifactStore
from worker.artifacts.task_artifacts import TaskArtifacts
from worker.persistence import persistently
from worker.settings.artifacts import ArtifactSettings
from worker.teams.marks import INPUTS, Marks

TRANSFERS_AT_ONCE = 4
"""Each holds a whole file in memory."""


class Artifacts:
    """Begins the account of each task's files. Which files a task has made is noted in the state store, under
    `artifacts/<task id>`: whoever goes on with the task finds it there."""

    def __init__(
        self,
        settings: ArtifactSettings,
        store: ArtifactStore,
        room: Room,
        state: StateStore,
        *,
        keep_s: float,
        shared_folder: Path | None,
        for_ark: bool,
    ) -> None:
        """`keep_s`: how long the notes are needed; `shared_folder`: where the only task at a time may write, too."""
        self.settings = settings
        self.store = store
        self.shared_folder = shared_folder
        self.transfers = asyncio.Semaphore(TRANSFERS_AT_ONCE)
        self._room = room
        self._state = state
        self._keep_s = keep_s
        self._for_ark = for_ark

    async def begin(self, task: Task, marks: Marks | None, *, is_first: bool) -> TaskArtifacts:
        """For one delivery of a task, with its inputs at hand. Raises `ArtifactsFailed`."""
        kept = {} if is_first else await self._kept(task.id)
        place = place_of(task, marks, for_ark=self._for_ark)
        found = TaskArtifacts(self, task.id, place, self._room.folder_of(secrets.token_hex(8)), kept)
        try:
            if self.shared_folder is not None:
                await found.pass_over(self.shared_folder)
            if inputs := {**self.settings.inputs, **self._given(task)}:
                await found.fetch(inputs)
        except BaseException:
            self.end(found)
            raise
        return found

    def end(self, artifacts: TaskArtifacts) -> None:
        """The delivery is over: its folder goes."""
        if artifacts.has_folder:
            self._room.discard(artifacts.folder)

    async def read(self, url: str) -> bytes:
        """A file that a task is given. Raises `ArtifactsFailed`."""
        if not self.store.owns(url):
            raise ArtifactsFailed(f"input artifact {url!r} is not in this worker's store: see AGENT_ARTIFACT_STORE_URL")
        async with self.transfers:
            return await self.store.get(url, self.settings.max_file_bytes)

    async def note_kept(self, task_id: str, kept: Mapping[str, str]) -> None:
        """Remember what a task has made, for whoever goes on with it. Whoever has just lost the task may still note
        something: what others have noted stays."""
        await persistently(lambda: self._add_kept(_key(task_id), kept), "note a task's artifacts")

    async def _add_kept(self, key: str, kept: Mapping[str, str]) -> None:
        is_noted = False
        while not is_noted:
            before = await self._state.get(key)
            value = msgspec.json.encode({**_noted(before), **kept})
            is_noted = await self._state.compare_and_set(key, before, value, ttl_s=self._keep_s)

    def _given(self, task: Task) -> dict[str, str]:
        """What the step of a team's run hands over. What workers of others have stored elsewhere stays there: the
        model is told where."""
        value = task.meta.get(INPUTS, "")
        given = msgspec.json.decode(value, type=dict[str, str]) if value else {}
        return {name: url for name, url in given.items() if self.store.owns(url)}

    async def _kept(self, task_id: str) -> dict[str, str]:
        return _noted(await persistently(lambda: self._state.get(_key(task_id)), "read a task's artifacts"))


@asynccontextmanager
async def open_artifacts(
    settings: ArtifactSettings, state: StateStore, *, keep_s: float, is_alone: bool, for_ark: bool
) -> AsyncIterator[Artifacts | None]:
    """As the settings say; None if there is no store. `is_alone`: the worker has one task at a time, so the folder
    that all share is its task's, as ark has it. Raises `BadSetting`."""
    if not settings.store_url:
        yield None
        return
    store = open_store(settings.store_url, timeout_s=settings.timeout_s)
    shared = Path(settings.dir)
    try:
        async with open_room(shared) as room:
            yield Artifacts(
                settings,
                store,
                room,
                state,
                keep_s=keep_s,
                shared_folder=shared if is_alone else None,
                for_ark=for_ark,
            )
    finally:
        await store.aclose()


def _noted(value: bytes | None) -> dict[str, str]:
    return {} if value is None else msgspec.json.decode(value, type=dict[str, str])


def _key(task_id: str) -> str:
    return f"artifacts/{task_id}"
