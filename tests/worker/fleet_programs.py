"""A real `shoal worker` process, with one or more worker processes under it, and what it writes to its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from worker.client import Fleet, Handle
from worker.fleet.presence import Presence, Workers

LIMIT_S = 60.0

T = TypeVar("T")


class FleetProgram:
    """One `shoal worker`. Its settings file can be changed while it runs."""

    def __init__(self, folder: Path, queue_url: str, settings: Mapping[str, Any], *arguments: str) -> None:
        self.config = folder / "shoal.yaml"
        self.log = folder / "worker.log"
        self.write_settings(settings)
        command = [sys.executable, "-m", "worker.cli", "worker", "--queue", queue_url, "--log-format", "json"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *arguments],
                env={**os.environ, "SHOAL_CONFIG": str(self.config)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace the settings file; the process notices at its next start."""
        self.config.write_text(json.dumps({"health_port": 0, "backend": {"lease_s": 2}, **settings}))

    def signal(self, number: int) -> None:
        """Send the outermost process a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.to_thread(self.process.wait, LIMIT_S)

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The log lines with this message so far."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if str(record.get("msg", "")).startswith(message):
                    found.append(record)
        return found

    async def logged(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until such a line was written so often."""
        try:
            return await eventually(lambda: found if len(found := self.lines(message)) >= count else None)
        except TimeoutError:
            raise AssertionError(f"no {message!r} in:\n{self.log.read_text(errors='replace')}") from None

    def close(self) -> None:
        """End it and all its processes, whatever they do."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
        self.process.kill()
        self.process.wait(LIMIT_S)


@contextlib.contextmanager
def fleet_program(folder: Path, queue_url: str, settings: Mapping[str, Any], *arguments: str) -> Iterator[FleetProgram]:
    """A `shoal worker` for the length of a block."""
    program = FleetProgram(folder, queue_url, settings, *arguments)
    try:
        yield program
    finally:
        program.close()


def answering(text: str, *, delay_s: float = 0.0, tool_calls: tuple[Mapping[str, Any], ...] = ()) -> dict[str, Any]:
    """Settings with an agent that says `text`, after a while and after some tool calls."""
    turns: list[dict[str, Any]] = [{"tool_calls": list(tool_calls)}] if tool_calls else []
    turns.append({"text": text, "delay_s": delay_s, "usage": {"input_tokens": 100, "output_tokens": 20}})
    script = {"scenarios": [{"turns": turns}]}
    return {"agent": {"model": "scripted", "provider": "scripted", "options": {"script": script}}}


async def eventually(look: Callable[[], T | None]) -> T:
    """Wait for what another process does, which announces nothing."""
    async with asyncio.timeout(LIMIT_S):
        while (found := look()) is None:
            await asyncio.sleep(0.03)
    return found


async def workers_are(fleet: Fleet, fits: Callable[[list[Presence]], bool]) -> list[Presence]:
    """Wait until the list of workers is as it should be."""
    workers = Workers(fleet.backend.state)
    async with asyncio.timeout(LIMIT_S):
        while not fits(found := await workers.all()):
            await asyncio.sleep(0.05)
    return found


async def running(handle: Handle) -> str:
    """Wait until a worker has the task; return the worker's id."""
    async with asyncio.timeout(LIMIT_S):
        while not (status := await handle.status()).worker:
            await asyncio.sleep(0.02)
    return status.worker
