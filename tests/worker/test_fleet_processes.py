"""A fleet of real worker processes on a real server: nothing is lost, whatever ends, grows or is reloaded."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from queue_backends import BackendOptions, TaskState
from tests.worker.fleet_programs import LIMIT_S, answering, eventually, fleet_program, running, workers_are
from worker.client import connect
from worker.fleet.presence import TTL_S, Workers

STARTED = "agent runtime started"
SHORT_LEASE = BackendOptions(lease_s=2)

HOG = """
from worker import tool

kept = []

@tool(idempotent=True)
def hog() -> str:
    \"\"\"Take a lot of memory.\"\"\"
    kept.append(b"x" * (150 << 20))
    return "done"
"""


async def test_a_reload_changes_settings_and_loses_nothing(queue_url: str, tmp_path: Path) -> None:
    """SIGHUP under work: new processes, new settings and environment, every task answered. Wrong settings, in the file
    or in a tool that it names: the processes stay as they are."""
    variables = tmp_path / "env"
    variables.write_text("AGENT_MAX_CONCURRENT_TASKS=5\n")
    arguments = ("--processes", "2", "--env-file", str(variables))
    async with connect(queue_url, options=SHORT_LEASE) as fleet:
        with fleet_program(tmp_path, queue_url, answering("old", delay_s=0.1), *arguments) as program:
            old = await workers_are(fleet, lambda found: len(found) == 2)
            before = await fleet.submit_many([f"task {n}" for n in range(100)])
            await running(before[0])
            program.write_settings(answering("new"))
            variables.write_text("AGENT_MAX_CONCURRENT_TASKS=7\n")
            program.signal(signal.SIGHUP)
            await program.logged("reloaded")
            for handle in before:
                assert (await handle.result(LIMIT_S)).output in ("old", "new")
            assert (await (await fleet.submit("after")).result(LIMIT_S)).output == "new"
            fresh = await workers_are(fleet, lambda found: len(found) == 2)
            assert not {worker.pid for worker in fresh} & {worker.pid for worker in old}
            assert ({worker.slots for worker in old}, {worker.slots for worker in fresh}) == ({5}, {7})

            program.write_settings({**answering("broken"), "no_such_setting": 1})
            program.signal(signal.SIGHUP)
            (refused,) = await program.logged("reload refused")
            assert "no_such_setting" in refused["error"]
            program.write_settings({**answering("broken"), "python_tools": ["no_such_file.py"]})
            program.signal(signal.SIGHUP)
            await program.logged("reload stopped")
            assert (await (await fleet.submit("still there")).result(LIMIT_S)).output == "new"
            assert {worker.pid for worker in await Workers(fleet.backend.state).all()} >= {w.pid for w in fresh}
            program.signal(signal.SIGTERM)
            assert await program.ended() == 0
        assert await Workers(fleet.backend.state).all() == []


async def test_a_killed_process_is_started_again_and_its_task_is_finished(queue_url: str, tmp_path: Path) -> None:
    """kill -9: its presence has an end, another process takes its place, its task is run again."""
    async with connect(queue_url, options=SHORT_LEASE) as fleet:
        with fleet_program(tmp_path, queue_url, answering("done", delay_s=2), "--processes", "2") as program:
            await workers_are(fleet, lambda found: len(found) == 2)
            handle = await fleet.submit("x")
            victim = await running(handle)
            (pid,) = [worker.pid for worker in await Workers(fleet.backend.state).all() if worker.id == victim]
            os.kill(pid, signal.SIGKILL)
            (note,) = await program.logged("worker process ended and is started again")
            assert (note["pid"], note["exit_code"]) == (pid, -signal.SIGKILL)
            assert 0 < await seconds_left(queue_url, victim) <= TTL_S
            await workers_are(fleet, lambda found: len({w.id for w in found} - {victim}) == 2)
            assert (await handle.result(LIMIT_S)).output == "done"


async def test_processes_drain_when_their_supervisor_is_killed(queue_url: str, tmp_path: Path) -> None:
    """They finish what they have, say goodbye and end."""
    async with connect(queue_url, options=SHORT_LEASE) as fleet:
        with fleet_program(tmp_path, queue_url, answering("done", delay_s=1), "--processes", "2") as program:
            workers = await workers_are(fleet, lambda found: len(found) == 2)
            processes = [psutil.Process(worker.pid) for worker in workers]
            handle = await fleet.submit("x")
            await running(handle)
            program.signal(signal.SIGKILL)
            try:
                await eventually(lambda: True if not any(is_alive(process) for process in processes) else None)
            finally:
                for process in filter(is_alive, processes):
                    process.kill()
            result = await handle.result(1.0)
            assert (result.output, result.error) == ("done", "")
            assert await Workers(fleet.backend.state).all() == []


async def test_a_drained_worker_stays_away(queue_url: str, tmp_path: Path) -> None:
    """`shoal drain`: its task is finished first; nobody takes its place; the last one's end is the fleet's, with 0."""
    async with connect(queue_url, options=SHORT_LEASE) as fleet:
        with fleet_program(tmp_path, queue_url, answering("done", delay_s=2), "--processes", "2") as program:
            await workers_are(fleet, lambda found: len(found) == 2)
            handle = await fleet.submit("x")
            chosen = await running(handle)
            assert await shoal("drain", chosen[:-2], "--queue", queue_url, "--wait") == 0
            assert (await handle.status()).state is TaskState.SUCCEEDED
            (other,) = await Workers(fleet.backend.state).all()
            await program.logged("worker process left")
            assert await shoal("drain", f"{other.host}:{other.pid}", "--queue", queue_url) == 0
            assert await program.ended() == 0
            assert len(program.lines(STARTED)) == 2


async def test_a_process_that_grew_is_replaced_and_loses_nothing(queue_url: str, tmp_path: Path) -> None:
    """Its task outlives the ceiling: it goes on in the old process while the new one is there already."""
    (tmp_path / "tools.py").write_text(HOG)
    growing = answering("done", delay_s=5, tool_calls=({"name": "hog"},))
    settings = {**growing, "python_tools": [str(tmp_path / "tools.py")], "max_memory_mb": 180}
    async with connect(queue_url, options=SHORT_LEASE) as fleet:
        with fleet_program(tmp_path, queue_url, settings) as program:
            await workers_are(fleet, lambda found: len(found) == 1)
            handle = await fleet.submit("x")
            first = await running(handle)
            (note,) = await program.logged("worker process is over its memory ceiling")
            assert note["rss_mb"] > note["max_memory_mb"] == 180
            both = await workers_are(fleet, lambda found: len(found) == 2 and any(each.draining for each in found))
            assert [worker.id for worker in both if worker.draining] == [first]
            assert (await handle.result(LIMIT_S)).output == "done"
            await workers_are(fleet, lambda found: len(found) == 1 and found[0].id != first)


async def test_a_second_signal_does_not_wait(queue_url: str, tmp_path: Path) -> None:
    """A single process with a long grace period and a long task: the task is ready for others at once."""
    settings = {**answering("never", delay_s=600), "grace_s": 600, "timeout_s": 900}
    async with connect(queue_url, options=SHORT_LEASE) as fleet:
        with fleet_program(tmp_path, queue_url, settings) as program:
            handle = await fleet.submit("x")
            await running(handle)
            program.signal(signal.SIGTERM)
            await program.logged("draining")
            program.signal(signal.SIGTERM)
            assert await program.ended() == 0
        assert (await handle.status()).state is TaskState.READY


async def test_a_single_process_starts_anew(queue_url: str, tmp_path: Path) -> None:
    """SIGHUP without a supervisor: it drains, and the same process id goes on with the new settings. Wrong ones change
    nothing."""
    async with connect(queue_url, options=SHORT_LEASE) as fleet:
        with fleet_program(tmp_path, queue_url, answering("old")) as program:
            (first,) = await workers_are(fleet, lambda found: len(found) == 1)
            program.write_settings({"no_such_setting": 1})
            program.signal(signal.SIGHUP)
            await program.logged("reload refused")
            program.write_settings(answering("new"))
            program.signal(signal.SIGHUP)
            await program.logged(STARTED, 2)
            (second,) = await workers_are(fleet, lambda found: len(found) == 1 and found[0].id != first.id)
            assert second.pid == first.pid == program.process.pid
            assert (await (await fleet.submit("x")).result(LIMIT_S)).output == "new"


async def test_a_worker_whose_terminal_closes_drains(queue_url: str, tmp_path: Path) -> None:
    """The same signal, but nobody asked for a reload."""
    config = tmp_path / "shoal.yaml"
    config.write_text('{"agent": {"model": "mock", "provider": "mock"}, "health_port": 0}')
    begin = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    arguments = ["-m", "worker.cli", "worker", "--queue", queue_url, "--config", str(config)]
    master, slave = pty.openpty()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", begin, sys.executable, *arguments],
            stdin=slave,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(slave)
    try:
        async with connect(queue_url) as fleet:
            await workers_are(fleet, lambda found: len(found) == 1)
            os.close(master)
            assert await asyncio.to_thread(process.wait, LIMIT_S) == 0
    finally:
        process.kill()
        process.wait(LIMIT_S)


@pytest.mark.parametrize("arguments", [(), ("--processes", "3")])
async def test_wrong_settings_are_one_message(queue_url: str, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Of one process or of several, though only the processes themselves can see it: exit code 2, said once."""
    with fleet_program(tmp_path, queue_url, {"agent": {"provider": "openai"}}, *arguments) as program:
        assert await program.ended() == 2
        assert program.log.read_text().count("provider 'openai' needs a model") == 1


async def shoal(*arguments: str) -> int:
    """Run a command in a process of its own; return its exit code."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "worker.cli", *arguments)
    return await asyncio.wait_for(process.wait(), LIMIT_S)


async def seconds_left(queue_url: str, worker_id: str) -> float:
    """How long a worker's presence would still be there."""
    import redis.asyncio

    url, _, stream = queue_url.partition("?stream=")
    async with redis.asyncio.Redis.from_url(url) as client:
        left: int = await client.pttl(f"{stream}:state:kv:workers/{worker_id}")
        return left / 1000


def is_alive(process: psutil.Process) -> bool:
    """Whether the process still does something."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
