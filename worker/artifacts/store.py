"""What keeps artifacts."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from worker.artifacts.files import LocalFile, too_large

PART_BYTES = 8 * 1024 * 1024
"""So much of a file is in memory at once, on its way up or down. Cloud Storage wants a multiple of 256 KiB, and S3 at
least 5 MiB."""
OF_UNKNOWN_TYPE = "application/octet-stream"
_TYPES = {".md": "text/markdown", ".yaml": "application/yaml", ".yml": "application/yaml"}
"""What not every Python knows."""


class StoredFile:
    """A file of a store, whose first part has been read already."""

    def __init__(self, size: int, first: bytes, read: Callable[[int, int], Awaitable[bytes]]) -> None:
        """`read` gives the bytes from an offset on, so many at most, and raises `ArtifactsFailed`."""
        self.size = size
        self._first = first
        self._read = read

    async def parts(self) -> AsyncIterator[bytes]:
        """The content, part by part. Raises `ArtifactsFailed`, also if the file is replaced meanwhile."""
        part, offset = self._first, 0
        while part:
            yield part
            offset += len(part)
            part = await self._read(offset, min(PART_BYTES, self.size - offset)) if offset < self.size else b""


class ArtifactStore(Protocol):
    """Keeps files under keys such as `<run>/<step>/<name>`, and finds them by the URL that it gave.

    What a whole exchange may take is the caller's to bound. A file that does not come whole, because something fails or
    the caller is cancelled, leaves nothing behind.
    """

    async def put(self, key: str, file: LocalFile, content_type: str) -> str:
        """Keep the file and return its URL. What the key had before is replaced. Raises `ArtifactsFailed`."""
        ...

    async def open(self, url: str, most_bytes: int) -> StoredFile:
        """The file of a URL that `owns` accepts. Raises `ArtifactsFailed`, for more bytes than allowed too."""
        ...

    def owns(self, url: str) -> bool:
        """Whether the URL names a place within this store; no other is ever read."""
        ...

    async def aclose(self) -> None:
        """Give up connections."""
        ...


def content_type_of(name: str) -> str:
    """By the ending of a file's name."""
    kind, encoding = mimetypes.guess_type(name)
    known = next((kind for ending, kind in _TYPES.items() if name.lower().endswith(ending)), kind)
    return OF_UNKNOWN_TYPE if known is None or encoding is not None else known


def within(url: str, base: str) -> bool:
    """Whether a URL begins with `base`, which ends in `/`, and stays there."""
    rest = url.removeprefix(base)
    return url.startswith(base) and bool(rest) and all(part not in ("", ".", "..") for part in rest.split("/"))


def checked_size(url: str, size: int, most_bytes: int) -> int:
    """The size of a stored file. Raises `ArtifactsFailed` if it is more than allowed."""
    if size > most_bytes:
        raise too_large(url.rpartition("/")[2], most_bytes)
    return size
