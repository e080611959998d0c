"""A worker process that is told to end does so in bounded time, whatever the code that it runs does about it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend, TaskState
from tests.e2e.e2e_programs import WorkerProcess, workers
from worker.client import Fleet, connect

LIMIT_S = 60
GRACE_S = 0.5

pytestmark = pytest.mark.timeout(120)

TOOLS = '''
import asyncio
import pathlib
import threading
import time

from worker import tool

BEGUN = pathlib.Path(__file__).with_suffix(".begun")


@tool
async def swallow() -> str:
    """Catches every cancellation."""
    BEGUN.touch()
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass


@tool
def block() -> str:
    """Holds its thread for good."""
    BEGUN.touch()
    threading.Event().wait()
    return ""


@tool
async def fill_pool() -> str:
    """Holds a thread of the event loop's own pool for good."""
    BEGUN.touch()
    await asyncio.to_thread(threading.Event().wait)
    return ""

'''


def _settings(tools: Path, tool: str) -> dict[str, Any]:
    script = {"scenarios": [{"turns": [{"tool_calls": [{"name": tool, "arguments": {}}]}, {"text": "done"}]}]}
    agent = {"model": "scripted", "provider": "scripted", "options": {"script": script}}
    return {"agent": agent, "python_tools": [str(tools)], "grace_s": GRACE_S, "backend": {"lease_s": 2}}


async def _exit_code(process: WorkerProcess) -> int:
    return await asyncio.to_thread(process.wait)


async def _begun(fleet: Fleet, tools: Path) -> str:
    """The id of a task whose tool is at work."""
    handle = await fleet.submit("go on")
    async with asyncio.timeout(LIMIT_S):
        while not tools.with_suffix(".begun").exists():
            await asyncio.sleep(0.05)
    return handle.id


async def _given_back(backend: Backend, task_id: str) -> TaskState:
    [status] = await backend.queue.status([task_id])
    return status.state


@pytest.mark.parametrize(
    ("tool", "code", "said"),
    [
        ("swallow", 1, "runs that do not end are left behind"),
        ("block", 0, ""),
        ("fill_pool", 1, "a thread does not end and is left behind"),
    ],
)
async def test_what_does_not_end_does_not_keep_the_process(
    queue_url: str, tmp_path: Path, tool: str, code: int, said: str
) -> None:
    """A tool that swallows every cancellation, or blocks a thread: the task is handed back, the log says which one it
    was, and the process ends by itself, long before anybody would have to kill it."""
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS)
    async with connect(queue_url) as fleet:
        with workers(1, tmp_path, queue_url, _settings(tools, tool)) as (process,):
            task_id = await _begun(fleet, tools)
            process.signal(signal.SIGTERM)
            assert await _exit_code(process) == code
        assert await _given_back(fleet.backend, task_id) is TaskState.READY
    lines = process.log.read_text()
    assert said in lines
    if tool == "swallow":
        assert task_id in next(line for line in lines.splitlines() if said in line)


async def test_a_second_signal_leaves_behind_what_swallows_its_cancellation(queue_url: str, tmp_path: Path) -> None:
    """Without any grace."""
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS)
    settings = {**_settings(tools, "swallow"), "grace_s": 3600}
    async with connect(queue_url) as fleet:
        with workers(1, tmp_path, queue_url, settings) as (process,):
            task_id = await _begun(fleet, tools)
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGINT)
            assert await _exit_code(process) == 1
        assert await _given_back(fleet.backend, task_id) is TaskState.READY


HELD_UP = """
import threading
from worker.fleet.last_resort import LastResort

resort = LastResort()
resort.within(3600)
resort.within(0.1)
resort.within(3600)
threading.Thread(target=threading.Event().wait, name="for good").start()
threading.Event().wait()
"""


def test_a_process_that_is_held_up_for_good_is_ended_from_beside_it() -> None:
    """By a thread of its own, at the earliest of the times that were said; it names the threads that there are."""
    ended = subprocess.run([sys.executable, "-c", HELD_UP], capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.returncode == 1
    assert "the process does not end by itself and is ended" in ended.stdout + ended.stderr
    assert "for good" in ended.stdout + ended.stderr


DEFECT = """
import asyncio
import sys
import threading
import worker.cli
import worker.cli.worker
from worker.fleet import last_resort


async def work(*_):
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    raise RuntimeError("a defect")


last_resort.SPARE_S = 0.1
sys.modules["worker.cli.worker"]._work = work
sys.argv = ["shoal", "worker"]
worker.cli.main()
"""


def test_a_defect_ends_a_process_that_nobody_has_told_to_end() -> None:
    """A thread that is blocked for good does not keep it; what is wrong is still said."""
    ended = subprocess.run([sys.executable, "-c", DEFECT], capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.returncode == 1
    assert "a defect" in ended.stdout + ended.stderr
