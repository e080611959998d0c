"""Several processes under one: restarted when they die, stopped together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from worker.cli import processes
from worker.cli.processes import supervise, worker_commands

STEADY = "import signal; print('up', file=open({path!r}, 'a')); signal.pause()"
CRASHING = "import os, signal; print('up', file=open({path!r}, 'a')); os._exit(9)"
MISCONFIGURED = "import sys; sys.exit(2)"


def program(text: str, path: Path) -> list[str]:
    """A command that runs this Python program, which notes its starts in `path`."""
    return [sys.executable, "-c", text.format(path=str(path))]


async def starts(path: Path, count: int) -> None:
    """Wait until the program at work there has started so often."""
    async with asyncio.timeout(30):
        while not path.exists() or len(path.read_text().splitlines()) < count:
            await asyncio.sleep(0.02)


async def test_all_are_stopped_by_one_signal(tmp_path: Path) -> None:
    """SIGTERM to the parent ends every process, and then the parent, with 0."""
    paths = [tmp_path / "a", tmp_path / "b"]
    running = asyncio.create_task(supervise([program(STEADY, path) for path in paths]))
    for path in paths:
        await starts(path, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 30) == 0


async def test_one_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again, until the group is stopped."""
    monkeypatch.setattr(processes, "_FIRST_WAIT_S", 0.01)
    running = asyncio.create_task(supervise([program(CRASHING, tmp_path / "a")]))
    await starts(tmp_path / "a", 3)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(running, 30)


async def test_wrong_settings_stop_all(tmp_path: Path) -> None:
    """Starting again cannot help; the exit code tells."""
    commands = [program(STEADY, tmp_path / "a"), program(MISCONFIGURED, tmp_path / "b")]
    assert await asyncio.wait_for(supervise(commands), 30) == 2


def test_each_process_gets_its_own_health_port() -> None:
    """Ports count up; 0 stays 0, any free one."""
    ends = [command[-4:] for command in worker_commands(["worker"], processes=2, health_port=8080)]
    assert ends == [["--processes", "1", "--health-port", "8080"], ["--processes", "1", "--health-port", "8081"]]
    assert [command[-1] for command in worker_commands(["worker"], processes=2, health_port=0)] == ["0", "0"]
