"""The files of all tasks of one worker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from queue_backends import StateStore, Task
from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.names import place_of
from worker.artifacts.opening import open_store
from worker.artifacts.room import LazyRoom
from worker.artifacts.stores import Stores
from worker.artifacts.task_artifacts import TaskArtifacts
from worker.persistence import persistently
from worker.settings.artifacts import ENDINGS, ArtifactSettings
from worker.teams.marks import INPUTS, PLAIN_PURPOSES, Marks
from worker.teams.plan import Role, Team
from worker.tools.shared_folders import NO_FOLDERS, SharedFolders

TRANSFERS_AT_ONCE = 4
"""Each holds a part of a file in memory."""


class Artifacts:
    """Begins the account of each task's files. Which files a task has made is noted in the state store, under
    `artifacts/<task id>`: whoever goes on with the task finds it there."""

    def __init__(
        self,
        settings: ArtifactSettings,
        stores: Stores,
        room: LazyRoom,
        state: StateStore,
        *,
        keep_s: float,
        shared_folder: Path | None,
        for_ark: bool,
        folders: SharedFolders = NO_FOLDERS,
    ) -> None:
        """`keep_s`: how long the notes are needed; `shared_folder`: where the only task at a time may write, too;
        `folders`: what programs are told of where tasks write."""
        self.settings = settings
        self.shared_folder = shared_folder
        self.transfers = asyncio.Semaphore(TRANSFERS_AT_ONCE)
        self.has_own = stores.of(None) is not None
        """Whether all tasks have a store, and not those alone whose team names one."""
        self.folders = folders
        self._stores = stores
        self._room = room
        self._state = state
        self._keep_s = keep_s
        self._for_ark = for_ark

    async def begin(
        self, task: Task, marks: Marks | None, *, is_first: bool, team: Team | None = None, role: Role | None = None
    ) -> TaskArtifacts | None:
        """For one delivery of a task, with its inputs at hand; None if there is no store for its files. Raises
        `ArtifactsFailed`, and `BadSetting` for a folder that cannot be written."""
        store = self._stores.of(team)
        if store is None:
            return None
        kept = {} if is_first else await self._kept(task.id)
        place = place_of(task, marks, for_ark=self._for_ark)
        folder = (await self._room.opened()).folder_of(secrets.token_hex(8))
        found = TaskArtifacts(self, store, task.id, place, folder, kept, saved_as=self._saved_as(marks, role))
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

    async def fetch(self, url: str, path: Path) -> None:
        """Get a file that a task is given. Raises `ArtifactsFailed`."""
        store = self._stores.owner(url)
        if store is None:
            raise ArtifactsFailed(f"input artifact {url!r} is not in this worker's store: see AGENT_ARTIFACT_STORE_URL")
        async with self.transfers:
            file = await store.open(url, self.settings.max_file_bytes)
            await asyncio.to_thread(path.write_bytes, b"")
            async for part in file.parts():
                await asyncio.to_thread(_append, path, part)

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
        return {name: url for name, url in given.items() if self._stores.owner(url) is not None}

    def _saved_as(self, marks: Marks | None, role: Role | None) -> str:
        """A check's verdict, or what compresses an output, is no step's answer."""
        if marks is not None and marks.purpose in PLAIN_PURPOSES:
            return ""
        saved = (role.save_output if role is not None else "") or self.settings.save_output
        return f"output{ENDINGS[saved]}" if saved else ""

    async def _kept(self, task_id: str) -> dict[str, str]:
        return _noted(await persistently(lambda: self._state.get(_key(task_id)), "read a task's artifacts"))


@asynccontextmanager
async def open_artifacts(
    settings: ArtifactSettings, state: StateStore, *, keep_s: float, is_alone: bool, for_ark: bool
) -> AsyncIterator[Artifacts]:
    """As the settings say. Without a store of its own, a worker keeps the files of teams that name one. `is_alone`: the
    worker has one task at a time, so the folder that all share is its task's, as ark has it. Raises `BadSetting`."""
    async with AsyncExitStack() as stack:
        own = open_store(settings.store_url, timeout_s=settings.timeout_s) if settings.store_url else None
        stores = Stores(own, timeout_s=settings.timeout_s)
        stack.push_async_callback(stores.aclose)
        shared = Path(settings.dir)
        room = LazyRoom(shared, stack)
        folders = NO_FOLDERS
        if own is not None:
            opened, only = await room.opened(), shared if is_alone else None  # an error is told at the start
            folders = SharedFolders(roots=(opened.root, *([shared] if is_alone else [])), of_the_only_task=only)
        yield Artifacts(
            settings,
            stores,
            room,
            state,
            keep_s=keep_s,
            shared_folder=shared if is_alone and own is not None else None,
            for_ark=for_ark,
            folders=folders,
        )


def _append(path: Path, part: bytes) -> None:
    with path.open("ab") as file:
        file.write(part)


def _noted(value: bytes | None) -> dict[str, str]:
    return {} if value is None else msgspec.json.decode(value, type=dict[str, str])


def _key(task_id: str) -> str:
    return f"artifacts/{task_id}"
