"""Artifacts in a folder that all workers share, or the only one has: `file:///data/artifacts`."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.files import read_file


class FileStore:
    """Writes each file under another name first, so that nobody reads half of it. Blocking calls go to a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        """Keep the content and return its `file://` URL. Raises `ArtifactsFailed`."""
        path = self._folder / key
        try:
            await asyncio.to_thread(_write, path, data)
        except OSError as error:
            raise ArtifactsFailed(f"artifact store: cannot write {path}: {error.strerror or error}") from error
        return path.as_uri()

    async def get(self, url: str, most_bytes: int) -> bytes:
        """The content. Raises `ArtifactsFailed`."""
        path = _path_of(url)
        if path is None or not await asyncio.to_thread(self._holds, path):
            raise ArtifactsFailed(f"artifact store: {url!r} is not within file://{self._folder}")
        try:
            return await asyncio.to_thread(read_file, path, most_bytes)
        except OSError as error:
            raise ArtifactsFailed(f"artifact store: cannot read {path}: {error.strerror or error}") from error

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


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
