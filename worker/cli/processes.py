"""Several worker processes under one: started, restarted when they die, drained together."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from worker.cli.failures import OK, USAGE

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_STEADY_S = 60.0
"""After so long a life, the next death counts as the first."""

log = structlog.get_logger(__name__)


def worker_commands(arguments: Sequence[str], *, processes: int, health_port: int) -> list[list[str]]:
    """The command line of each process: ours, with one process, and health ports counted up from `health_port`."""
    command = [sys.executable, "-m", "worker.cli", *arguments, "--processes", "1", "--health-port"]
    return [[*command, str(health_port + index if health_port else 0)] for index in range(processes)]


async def supervise(commands: Sequence[Sequence[str]]) -> int:
    """Keep one process a command alive until SIGTERM or SIGINT, then let all of them drain; return an exit code.

    The first signal is passed on as SIGTERM, and so is a second one, which makes them hand everything back at once. A
    process that ends with the code for wrong settings is not restarted: all are stopped and that code is returned.
    """
    group = _Group()
    with group.signals():
        async with asyncio.TaskGroup() as tasks:
            watched = [
                tasks.create_task(group.keep(command), name=f"process {n}") for n, command in enumerate(commands)
            ]
    return max(task.result() for task in watched)


class _Group:
    def __init__(self) -> None:
        self._running: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While the body runs, SIGTERM and SIGINT stop the group instead of this process."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Tell all to drain, and restart none."""
        self._stopping.set()
        for process in self._running:
            process.send_signal(signal.SIGTERM)

    async def keep(self, command: Sequence[str]) -> int:
        """Run the command, again and again, until the group stops; return its last exit code (0 after a signal)."""
        wait_s = _FIRST_WAIT_S
        while True:
            started_at = time.monotonic()
            code = await self._run(command)
            if code == USAGE:
                self.stop()
            if self._stopping.is_set():
                return max(code, OK)
            if time.monotonic() - started_at > _STEADY_S:
                wait_s = _FIRST_WAIT_S
            log.warning("worker process ended and is started again", exit_code=code, wait_s=wait_s)
            if await self._stopped_within(wait_s):
                return OK
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def _run(self, command: Sequence[str]) -> int:
        # A process group of its own: a terminal's Ctrl-C must reach it once, through us.
        process = await asyncio.create_subprocess_exec(*command, process_group=0)
        self._running.add(process)
        if self._stopping.is_set():  # while it was being started
            process.send_signal(signal.SIGTERM)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        finally:
            self._running.discard(process)

    async def _stopped_within(self, wait_s: float) -> bool:
        try:
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True
