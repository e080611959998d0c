"""Takes what a subprocess writes to its standard error, so that it neither fills a disk nor spams the terminal."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Self, TextIO

_KEPT_BYTES = 4096


class StderrTail:
    """A pipe whose write end goes to the subprocess; the last few kilobytes are kept. Use it with `async with`."""

    def __init__(self) -> None:
        self._kept = b""
        self._read_fd = -1
        self._writer: TextIO | None = None

    @property
    def writer(self) -> TextIO:
        """The write end, to be handed to the subprocess."""
        if self._writer is None:
            raise RuntimeError("the pipe is not open: use StderrTail with `async with`")
        return self._writer

    def text(self) -> str:
        """The last lines that were written, at most a few kilobytes."""
        return self._kept.decode("utf-8", "replace").strip()

    async def __aenter__(self) -> Self:
        self._read_fd, write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._writer = os.fdopen(write_fd, "w")
        asyncio.get_running_loop().add_reader(self._read_fd, self._take)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._read_fd)
        self._take()
        os.close(self._read_fd)
        if self._writer is not None:
            self._writer.close()

    def _take(self) -> None:
        try:
            data = os.read(self._read_fd, 65_536)
        except BlockingIOError:
            return
        self._kept = (self._kept + data)[-_KEPT_BYTES:]
