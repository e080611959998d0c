"""The files of one task: where its tools write them, and how they come into the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.files import FileMark, look_at, marks_in, too_large
from worker.artifacts.names import checked_name
from worker.artifacts.store import ArtifactStore, content_type_of

if TYPE_CHECKING:
    from worker.artifacts.artifacts import Artifacts

INPUTS = "inputs"
"""The folder, in a task's own, of what it was given."""


class TaskArtifacts:
    """What tools have of it: `context.artifacts`.

    A file is stored when the tool call that has written it ends, before the call counts as made: a task that another
    worker goes on with has all files of the calls that it does not repeat.
    """

    def __init__(
        self,
        around: Artifacts,
        store: ArtifactStore,
        task_id: str,
        place: str,
        folder: Path,
        kept: Mapping[str, str],
        *,
        saved_as: str = "",
    ) -> None:
        """`place` is where its files stand in the store; `kept` what earlier deliveries have made: name -> URL, empty
        if it could not be stored. `saved_as`: the file that its answer becomes; empty: none."""
        self._around = around
        self._store = store
        self._saved_as = saved_as
        self._task_id = task_id
        self._place = place
        self._folder = folder
        self._kept = dict(kept)
        self._seen: dict[Path, dict[str, FileMark]] = {}
        """Folder -> files in it that are stored, or were there before."""
        self._storing = asyncio.Lock()
        self.has_folder = False
        """Whether there is anything to remove."""

    @property
    def folder(self) -> Path:
        """Where the task's tools write files, each right in it; made when first asked for. What is in folders in it,
        links, and files whose name begins with a dot are not stored. Removed when the task has ended."""
        if not self.has_folder:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.has_folder = True
        return self._folder

    @property
    def inputs(self) -> Mapping[str, Path]:
        """The files that the task was given, by name."""
        if not self.has_folder:
            return {}
        given = self._folder / INPUTS
        return {name: given / name for name in marks_in(given)}

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file; it is stored when the tool call ends. Blocks: for tools that run in a thread.

        Raises `ArtifactsFailed` for a name that no file may have, or too much data.
        """
        path, content = self.folder / checked_name(name), data.encode() if isinstance(data, str) else data
        if len(content) > self._around.settings.max_file_bytes:
            raise too_large(name, self._around.settings.max_file_bytes)
        path.write_bytes(content)
        return path

    async def save(self, name: str, data: bytes | str) -> str:
        """Write a file and store it at once; its URL. Raises `ArtifactsFailed`."""
        await asyncio.to_thread(self.write, name, data)
        await self.keep_new()
        return self._kept[name]

    async def keep_new(self) -> None:
        """Store what is new in the folder, or has changed. Raises `ArtifactsFailed`; what was stored until then is."""
        if not self.has_folder and self._around.shared_folder is None:
            return
        async with self._storing:
            before = dict(self._kept)
            try:
                if self.has_folder:
                    await self._keep_new_of(self._folder)
                if self._around.shared_folder is not None:
                    await self._keep_new_of(self._around.shared_folder)
            except ArtifactsFailed:
                await self._around.note_kept(self._task_id, self._kept)
                raise
            if before != self._kept:
                await self._around.note_kept(self._task_id, self._kept)

    async def finish(self, output: str) -> Mapping[str, str]:
        """The run has answered: all its files, name -> URL, in the order of their names.

        Raises `ArtifactsFailed` if one of them is not stored, be it one that an earlier delivery has made: its call is
        not repeated.
        """
        if self._saved_as:
            await asyncio.to_thread(self.write, self._saved_as, output)
        await self.keep_new()
        if missing := [name for name, url in self._kept.items() if not url]:
            raise ArtifactsFailed(f"an earlier attempt has made {', '.join(sorted(missing))}, and could not store it")
        return dict(sorted(self._kept.items()))

    async def pass_over(self, folder: Path) -> None:
        """What is in a folder now is not the task's."""
        self._seen[folder] = await asyncio.to_thread(marks_in, folder)

    async def fetch(self, inputs: Mapping[str, str]) -> None:
        """Get files that the task is given, name -> URL, into its folder. Raises `ArtifactsFailed`."""
        given = self.folder / INPUTS
        for name, url in inputs.items():
            path = given / checked_name(name)
            await asyncio.to_thread(path.parent.mkdir, mode=0o700, exist_ok=True)
            await self._around.fetch(url, path)

    async def _keep_new_of(self, folder: Path) -> None:
        found = await asyncio.to_thread(marks_in, folder)
        seen = self._seen.setdefault(folder, {})
        for name, mark in found.items():
            if seen.get(name) == mark:
                continue
            if name not in self._kept and len(self._kept) >= self._around.settings.max_files:
                raise ArtifactsFailed(
                    f"artifact {name!r} is one more than the {self._around.settings.max_files} files that a task may "
                    "make: see SHOAL_ARTIFACT_MAX_FILES"
                )
            self._kept[name] = ""
            self._kept[name] = await self._stored(folder / name)
            seen[name] = mark

    async def _stored(self, path: Path) -> str:
        async with self._around.transfers:
            try:
                file = await asyncio.to_thread(look_at, path, self._around.settings.max_file_bytes)
            except OSError as error:
                raise ArtifactsFailed(f"artifact {path.name!r} cannot be read: {error.strerror or error}") from error
            return await self._store.put(f"{self._place}/{path.name}", file, content_type_of(path.name))
