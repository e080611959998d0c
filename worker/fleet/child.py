"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence

import psutil
import structlog

from worker.fleet import link

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What tells a worker to drain, then to hand everything back. Two numbers, so that the kernel never merges them."""

_LAST_WORDS_S = 1.0

log = structlog.get_logger(__name__)


class Child:
    """A process from its start to its end. `watch` has to run all the while."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self.pid = process.pid
        self.generation = 0
        """It counts up with each reload, so that it tells which settings the process has."""
        self.code: int | None = None
        """Its exit code, negative for a signal; None while it lives."""
        self.is_ready = False
        self.was_drained = False
        """An operator has asked it to leave."""
        self.was_killed = False
        """It did not end in time, or nobody wanted to wait."""
        self.settled = asyncio.Event()
        """It is ready, or has ended before that."""
        self.ended = asyncio.Event()
        self._process = process
        self._line = line
        self._told = 0

    @classmethod
    async def start(cls, command: Sequence[str]) -> Child:
        """Start a process that holds the other end of a fresh line. Raises `OSError`."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    env={**os.environ, link.VARIABLE: str(theirs.fileno())},
                    pass_fds=(theirs.fileno(),),
                    process_group=0,  # a terminal's Ctrl-C must reach it once, through us
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return cls(process, ours)

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to end, by us or by an operator."""
        return bool(self._told) or self.was_drained

    @property
    def rss_bytes(self) -> int:
        """Its resident memory; 0 if it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    async def watch(self, heard: Callable[[Child], None]) -> None:
        """Listen to what it says, until it has ended; `heard` is called after each word. Cancelling this kills it."""
        listening = asyncio.create_task(self._listen(heard), name=f"line to {self.pid}")
        try:
            self.code = await self._process.wait()
            # Its last words may still be on the line, which has ended with it, unless it has forked without an exec.
            await asyncio.wait([listening], timeout=_LAST_WORDS_S)
        except asyncio.CancelledError:
            self.kill()
            await self._process.wait()
            raise
        finally:
            listening.cancel()
            await asyncio.wait([listening])
            self._line.close()
            self.ended.set()
            self.settled.set()

    async def _listen(self, heard: Callable[[Child], None]) -> None:
        loop = asyncio.get_running_loop()
        rest = b""
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._line, 256):
                *words, rest = (rest + data).split(b"\n")
                if link.READY in words:
                    self.is_ready = True
                    self.settled.set()
                self.was_drained = self.was_drained or link.DRAINING in words
                heard(self)

    async def leave(self, limit_s: float) -> None:
        """Let it drain (as on SIGTERM), and return when it has ended; after `limit_s` it is killed."""
        if not self.is_leaving:
            self._tell()
        if not await within(limit_s, self.ended.wait()):
            log.error("worker process did not end in time and is killed", pid=self.pid, waited_s=limit_s)
            self.kill()
            await self.ended.wait()

    def hurry(self) -> None:
        """Make it hand back everything at once."""
        while self._told < len(_SIGNALS):
            self._tell()

    def kill(self) -> None:
        """End it now; its leases will run out."""
        self.was_killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _tell(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(_SIGNALS[self._told])
        self._told += 1


async def within(limit_s: float, event: Awaitable[object]) -> bool:
    """Whether the event came within the time."""
    try:
        async with asyncio.timeout(limit_s):
            await event
    except TimeoutError:
        return False
    return True
