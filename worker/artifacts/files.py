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
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ArtifactsFailed(f"{path.name!r} is no regular file")
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise too_large(path.name, most_bytes)
    return data


def too_large(name: str, most_bytes: int) -> ArtifactsFailed:
    """The error for such a file."""
    return ArtifactsFailed(
        f"artifact {name!r} has more than {most_bytes} bytes: make it smaller, or set SHOAL_ARTIFACT_MAX_FILE_BYTES"
    )
