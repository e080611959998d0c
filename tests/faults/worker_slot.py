"""A place for a worker: its process, which is replaced as often as needed, behind a proxy of its own if possible."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tests.faults.loopback import REPOSITORY
from tests.proxies import Proxy

STOP_WITHIN_S = 30.0
UP_WITHIN_S = 10.0
UP = b"agent runtime started"


class Death(Struct, frozen=True):
    """A worker that ended without being told to, or did not end well when it was."""

    at: float
    was_up: bool
    """Whether it had said that it runs."""
    worker: str
    text: str
    exit_code: int


class WorkerSlot:
    """Runs one `shoal worker` at a time. `name` is the present one's: `w2.5` is the fifth in slot 2.

    Every worker tells the provider its name in a header, so that each model call can be laid at somebody's door.
    """

    def __init__(
        self,
        number: int,
        proxy: Proxy | None,
        url: str,
        folder: Path,
        settings: Mapping[str, Any],
        environ: Mapping[str, str],
    ) -> None:
        self.number = number
        self._proxy = proxy
        self.lock = asyncio.Lock()
        """Held during a fault that ends or stops the process: another one waits."""
        self.deaths: list[Death] = []
        self._queue_url = url
        self._folder = folder
        self._settings = settings
        self._environ = {**os.environ, **environ}
        self._generation = 0
        self._process: asyncio.subprocess.Process | None = None
        self._told_to_end: asyncio.subprocess.Process | None = None

    @property
    def proxy(self) -> Proxy:
        """What stands between the worker and the broker."""
        if self._proxy is None:
            raise RuntimeError("this engine's clients cannot be put behind a proxy: leave faults of the network out")
        return self._proxy

    @property
    def name(self) -> str:
        """The present worker's name."""
        return f"w{self.number}.{self._generation}"

    async def start(self) -> None:
        """Start the next worker."""
        self._generation += 1
        config = self._folder / f"{self.name}.yaml"
        agent = {**self._settings["agent"], "options": {"extra_headers": {"x-worker": self.name}}}
        backend = {**self._settings["backend"], "consumer": self.name}
        config.write_bytes(msgspec.json.encode({**self._settings, "agent": agent, "backend": backend}))
        with (self._folder / f"{self.name}.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "worker.cli", "worker", "--queue", self._queue_url),
                env={**self._environ, "SHOAL_CONFIG": str(config)},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )

    async def is_up(self) -> None:
        """Wait until the present worker says that it runs, for a while: one that never does is another's finding."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UP_WITHIN_S):
                while not self._is_up():
                    await asyncio.sleep(0.05)  # a log file has no event to wait for
                await asyncio.sleep(0.05)  # handlers of signals come right after that line

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the present worker; one that has ended gets none."""
        process = self._running()
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._told_to_end = process
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the present worker's end, and kill it if that takes too long; its exit code."""
        process = self._running()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                return await process.wait()
        except TimeoutError:
            self.died(f"did not end within {STOP_WITHIN_S:g} s of SIGTERM", -signal.SIGKILL)
            process.kill()
            return await process.wait()

    def died(self, text: str, exit_code: int) -> None:
        """Note how the present worker ended."""
        self.deaths.append(Death(time.time(), self._is_up(), self.name, text, exit_code))

    async def watch(self) -> None:
        """Start a worker again that ends by itself, and remember that it did; until cancelled."""
        while True:
            process = self._running()
            code = await process.wait()
            if process is self._told_to_end or process is not self._process:
                await asyncio.sleep(0.05)  # somebody is replacing it
                continue
            self.died("ended by itself", code)
            await self.start()

    async def close(self) -> None:
        """End it, whatever its state."""
        if self._process is not None and self._process.returncode is None:
            self._told_to_end = self._process
            self._process.kill()
            await self._process.wait()

    def _is_up(self) -> bool:
        return UP in (self._folder / f"{self.name}.log").read_bytes()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"slot {self.number} has no worker yet: call start() first")
        return self._process
