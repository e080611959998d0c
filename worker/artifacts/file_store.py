"""Artifacts in a folder that all workers share, or the only one has: `file:///data/artifacts`."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.files import LocalFile, look_at
from worker.artifacts.store import PART_BYTES, StoredFile


class FileStore:
    """Writes each file under another name first, so that nobody reads half of it. Blocking calls go to a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    async def put(self, key: str, file: LocalFile, content_type: str) -> str:
        """Keep the file and return its `file://` URL. Raises `ArtifactsFailed`."""
        path, stopped = self._folder / key, threading.Event()
        try:
            await asyncio.to_thread(_copy, file, path, stopped)
        except OSError as error:
            raise ArtifactsFailed(f"artifact store: cannot write {path}: {error.strerror or error}") from error
        finally:
            stopped.set()  # the thread of a caller that is cancelled goes on
        return path.as_uri()

    async def open(self, url: str, most_bytes: int) -> StoredFile:
        """The file, part by part. Raises `ArtifactsFailed`."""
        path = _path_of(url)
        if path is None or not await asyncio.to_thread(self._holds, path):
            raise ArtifactsFailed(f"artifact store: {url!r} is not within file://{self._folder}")
        try:
            file = await asyncio.to_thread(look_at, path, most_bytes)
        except OSError as error:
            raise ArtifactsFailed(f"artifact store: cannot read {path}: {error.strerror or error}") from error

        async def read(offset: int, length: int) -> bytes:
            return await asyncio.to_thread(file.read, offset, length)

        return StoredFile(file.size, await read(0, min(PART_BYTES, file.size)), read)

    def owns(self, url: str) -> bool:
        """Whether the URL, or the bare path that kubeswarm's workers give, is within the folder."""
        path = _path_of(url)
        return path is not None and ".." not in path.parts and self._folder in path.parents

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _holds(self, path: Path) -> bool:
        """Links are followed before it is decided."""
        return self.owns(str(path)) and path.resolve().is_relative_to(self._folder.resolve())


def _path_of(url: str) -> Path | None:
    if url.startswith("/"):
        return Path(url)
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _copy(file: LocalFile, path: Path, stopped: threading.Event) -> None:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as copy:
            for offset in range(0, file.size, PART_BYTES):
                if stopped.is_set():
                    return
                copy.write(file.read(offset, min(PART_BYTES, file.size - offset)))
            copy.flush()
            os.fsync(copy.fileno())
        if not stopped.is_set():
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
