"""Plugins on this machine: the executables in `plugins.dir` are started, kept alive and stopped with the fleet."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from worker.errors import BadSetting
from worker.warded_process import end_warded, next_line, start_warded

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0
"""Who has run for so long is restarted at once when it ends."""
PORT_LINE = b"MIRASTACK_PLUGIN_PORT="

log = structlog.get_logger(__name__)


def executables(folder: Path) -> list[Path]:
    """`<folder>/<any>/<executable>`, in order. Raises `BadSetting` if there is no such folder."""
    if not folder.is_dir():
        raise BadSetting(f"plugins.dir: {str(folder)!r} is no directory")
    found = (path for home in sorted(folder.iterdir()) if home.is_dir() for path in sorted(home.iterdir()))
    return [path.resolve() for path in found if path.is_file() and os.access(path, os.X_OK)]


class ColocatedPlugins:
    """Runs one process per executable. `changes` are variables that each gets on top of ours."""

    def __init__(self, folder: Path, changes: Callable[[], Mapping[str, str]]) -> None:
        self._folder = folder
        self._changes = changes

    async def run(self) -> None:
        """Endless; ends by cancellation, and has ended all of them then."""
        programs = executables(self._folder)
        if not programs:
            log.warning("there is no executable in any folder of plugins.dir", dir=str(self._folder))
        async with asyncio.TaskGroup() as tasks:
            for program in programs:
                tasks.create_task(self._keep_alive(program), name=f"plugin {program.name}")
            await asyncio.Event().wait()

    async def _keep_alive(self, program: Path) -> None:
        delay_s = FIRST_DELAY_S
        while True:
            began = time.monotonic()
            end = await self._run_once(program)
            if time.monotonic() - began >= STEADY_S:
                delay_s = FIRST_DELAY_S
            log.warning("a plugin ended and is started anew", program=str(program), end=end, in_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _run_once(self, program: Path) -> str:
        """Start it and wait for its end; says what that was."""
        process = await start_warded(program, env={**os.environ, **self._changes()})
        log.info("a plugin was started", program=str(program))
        try:
            await self._read(program, process)
            return f"exit code {await process.wait()}"
        finally:
            await asyncio.shield(end_warded(process))

    async def _read(self, program: Path, process: asyncio.subprocess.Process) -> None:
        """Take what it writes on stdout, so that it never waits for us; its log goes to stderr, which is ours."""
        while line := await next_line(process.stdout):
            if line.startswith(PORT_LINE):
                port = line.removeprefix(PORT_LINE).decode(errors="replace").strip()
                log.info("a plugin listens", program=str(program), port=port)
