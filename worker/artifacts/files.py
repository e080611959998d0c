"""Files of a folder that somebody else writes: looked at without following links. All of it blocks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import structlog
from msgspec import Struct

from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.names import checked_name

log = structlog.get_logger(__name__)


class FileMark(Struct, frozen=True):
    """By what it is seen that a file has changed."""

    size: int
    modified_ns: int


class LocalFile(Struct, frozen=True):
    """A regular file as it was when it was looked at. It is opened anew for each read, so nothing has to be closed."""

    path: Path
    inode: int
    mark: FileMark

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    @property
    def size(self) -> int:
        """In bytes."""
        return self.mark.size

    def read(self, offset: int, length: int) -> bytes:
        """Just so many bytes from an offset on. Raises `ArtifactsFailed` if the file is no longer the same."""
        parts: list[bytes] = []
        try:
            descriptor = _opened(self.path)
            try:
                while length and (part := os.pread(descriptor, length, offset)):
                    parts.append(part)
                    offset, length = offset + len(part), length - len(part)
                is_same = _seen(self.path, descriptor) == self
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ArtifactsFailed(f"artifact {self.name!r} cannot be read: {error.strerror or error}") from error
        if length or not is_same:
            raise ArtifactsFailed(f"artifact {self.name!r} has changed while it was read: write files before they end")
        return b"".join(parts)


def look_at(path: Path, most_bytes: int) -> LocalFile:
    """A file that shall be read. Raises `OSError`, and `ArtifactsFailed` for what is larger or no regular file."""
    descriptor = _opened(path)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ArtifactsFailed(f"{path.name!r} is no regular file")
        found = _seen(path, descriptor)
    finally:
        os.close(descriptor)
    if found.size > most_bytes:
        raise too_large(path.name, most_bytes)
    return found


def marks_in(folder: Path) -> dict[str, FileMark]:
    """The regular files right in a folder, by name. Folders, links and names that begin with a dot are passed over; so
    are, with a warning, names that no artifact may have. Empty if there is no such folder."""
    found: dict[str, FileMark] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    state = entry.stat(follow_symlinks=False)
                    found[checked_name(entry.name)] = FileMark(state.st_size, state.st_mtime_ns)
                except FileNotFoundError:
                    continue  # gone meanwhile
                except ArtifactsFailed as error:
                    log.warning("a file is left out of a task's artifacts", error=str(error))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def read_file(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file. Raises `OSError`, and `ArtifactsFailed` for what is larger or no such file."""
    file = look_at(path, most_bytes)
    return file.read(0, file.size)


def too_large(name: str, most_bytes: int) -> ArtifactsFailed:
    """The error for such a file."""
    return ArtifactsFailed(
        f"artifact {name!r} has more than {most_bytes} bytes: make it smaller, or set SHOAL_ARTIFACT_MAX_FILE_BYTES"
    )


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _seen(path: Path, descriptor: int) -> LocalFile:
    state = os.fstat(descriptor)
    return LocalFile(path, state.st_ino, FileMark(state.st_size, state.st_mtime_ns))
