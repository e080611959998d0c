"""The folders in which tasks write their files: one of each process, with one of each task in it.

A process holds a lock (`flock`) beside its folder for as long as it lives. Whoever starts later removes the folders
whose lock nobody holds: their processes have crashed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from worker.errors import BadSetting

PLACE = ".shoal"
"""In `AGENT_ARTIFACT_DIR`, beside what others write there."""
_LOCK = ".lock"

log = structlog.get_logger(__name__)


class Room:
    """The folder of this process."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._useless: asyncio.Queue[Path] = asyncio.Queue()

    def folder_of(self, delivery: str) -> Path:
        """For one delivery of a task; it does not exist yet."""
        return self.root / delivery

    def discard(self, folder: Path) -> None:
        """The task has ended: the folder is removed soon."""
        self._useless.put_nowait(folder)

    async def clean(self) -> None:
        """Remove what was discarded. Runs until it is cancelled."""
        while True:
            folder = await self._useless.get()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class LazyRoom:
    """The room of this process, made when it is first needed."""

    def __init__(self, shared: Path, stack: contextlib.AsyncExitStack) -> None:
        """`stack` removes it at the end."""
        self._shared = shared
        self._stack = stack
        self._opening = asyncio.Lock()
        self._room: Room | None = None

    async def opened(self) -> Room:
        """The room. Raises `BadSetting`."""
        async with self._opening:
            if self._room is None:
                self._room = await self._stack.enter_async_context(open_room(self._shared))
            return self._room

    def discard(self, folder: Path) -> None:
        """A folder of it is no longer needed."""
        if self._room is not None:
            self._room.discard(folder)


@asynccontextmanager
async def open_room(shared: Path) -> AsyncIterator[Room]:
    """A room in the shared folder, which is made if need be; removed at the end. Raises `BadSetting`."""
    with contextlib.ExitStack() as stack:
        try:
            folder = await asyncio.to_thread(stack.enter_context, _own_folder(shared / PLACE))
        except OSError as error:
            raise BadSetting(
                f"artifacts.dir (AGENT_ARTIFACT_DIR) is {str(shared)!r}: cannot write there: {error.strerror or error}"
            ) from error
        room = Room(folder)
        cleaning = asyncio.create_task(room.clean(), name="artifact folders")
        try:
            yield room
        finally:
            cleaning.cancel()
            await asyncio.wait([cleaning])
            await asyncio.to_thread(stack.close)


@contextmanager
def _own_folder(place: Path) -> Iterator[Path]:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(place)
    folder = place / secrets.token_hex(8)
    lock = _locked(folder.with_suffix(_LOCK))
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(_LOCK).unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path) -> int:
    """The lock's descriptor. It is taken again if a sweep has removed the file between its making and its locking."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def _sweep(place: Path) -> None:
    """Remove the folders of processes that are no more."""
    for path in place.glob(f"*{_LOCK}"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # gone, or another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
            log.info("removed the artifact folder of a process that has crashed", folder=str(path.with_suffix("")))
        except OSError:
            pass  # its process lives
        finally:
            os.close(descriptor)
