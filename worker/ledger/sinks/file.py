"""Usage records as lines of JSON, appended to a file.

The cursor is in `<file>.cursor`, with the size that the file had then: what a crash wrote beyond is cut off at the next
start, and comes again.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from queue_backends import UsageRecord
from worker.errors import BadSetting
from worker.ledger.rows import row_of
from worker.ledger.sinks.sink import SinkUnavailable

_encoder = msgspec.json.Encoder()


class _Place(Struct, frozen=True):
    cursor: str = ""
    size: int = 0
    """Bytes."""


class FileSink:
    """One file, written by one process at a time: it is locked while it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place_path = path.with_name(f"{path.name}.cursor")
        self._file = self._locked()
        try:
            self._place = self._read_place()
            self._file.truncate(self._place.size)
        except OSError as error:
            self._file.close()
            raise BadSetting(f"cannot write {self._path}: {error.strerror}") from error
        except BaseException:
            self._file.close()
            raise

    async def cursor(self) -> str:
        """What the last whole write noted."""
        return self._place.cursor

    async def write(self, records: Sequence[UsageRecord], *, before: str, after: str) -> bool:
        """Append the lines, let them reach the disk, then note the cursor."""
        if before != self._place.cursor:
            return False
        lines = b"".join(_encoder.encode(row_of(each)) + b"\n" for each in records)
        writing = asyncio.ensure_future(asyncio.to_thread(self._write, lines, after))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # a thread cannot be stopped, and the file is closed next
            raise
        return True

    async def close(self) -> None:
        """Unlock the file."""
        self._file.close()

    def _locked(self) -> io.FileIO:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("ab", buffering=0)  # so that closing it writes nothing that a full disk refused
        except OSError as error:
            raise BadSetting(f"cannot write {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise BadSetting(
                f"{self._path} is being written by another process: stop that, or choose a file"
            ) from error
        return file

    def _read_place(self) -> _Place:
        try:
            place = msgspec.json.decode(self._place_path.read_bytes(), type=_Place)
        except FileNotFoundError:
            if self._path.stat().st_size:
                raise BadSetting(
                    f"{self._path} has lines but no {self._place_path.name}: choose another file"
                ) from None
            self._write_place(_Place())  # from now on what is in the file is ours, however little of a line
            return _Place()
        except msgspec.MsgspecError as error:
            raise BadSetting(f"{self._place_path} cannot be read: {error}") from error
        size = self._path.stat().st_size
        if size < place.size:
            raise BadSetting(f"{self._path} has {size} bytes, and had {place.size}: somebody has cut it")
        return place

    def _write(self, lines: bytes, cursor: str) -> None:
        place = _Place(cursor, self._place.size + len(lines))
        try:
            self._file.truncate(self._place.size)  # an earlier write may have broken off
            written = 0
            while written < len(lines):
                written += self._file.write(memoryview(lines)[written:])
            os.fsync(self._file.fileno())
            self._write_place(place)
        except OSError as error:
            raise SinkUnavailable(f"cannot write {self._path}: {error.strerror}") from error
        self._place = place

    def _write_place(self, place: _Place) -> None:
        beside = self._place_path.with_suffix(".cursor.part")
        with beside.open("wb") as file:
            file.write(_encoder.encode(place))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._place_path)


async def open_sink(url: str) -> FileSink:
    """The sink at `file:///path`. Raises `BadSetting`."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if not path or path.endswith("/") or parts.netloc not in ("", "localhost"):
        raise BadSetting(f"{url!r} names no file: write file:///path/usage.jsonl")
    return await asyncio.to_thread(FileSink, Path(path))
