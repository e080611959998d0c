"""A worker's memory, measured from outside: many runs that say much, on a broker that stops answering for a while."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_backends import Backend, Task, open_backend
from tests.servers import Server, valkey_program
from worker.tools.outputs import OutputStore

TASKS, STREAMED_MB, OUTPUT_MB = (float(text) for text in os.environ.get("SHOAL_TEST_FLOOD", "400,0.5,1").split(","))
"""How many tasks, and what each produces. The figures of docs/streaming.md are those of 1000,10,10."""
PER_TASK_KIB = 130
"""100 of these are what the model was shown of the tool's output: it stays in the conversation."""
SHARED_KIB = 40_000
"""What all runs together may have on the way to the broker, in all forms that it takes."""
FROZEN_S = 2.0
LIMIT_S = 100.0 if TASKS * STREAMED_MB < 1000 else 3000.0


@pytest.fixture
def server() -> Any:
    """A Valkey of its own, to be frozen."""
    program = valkey_program()
    assert program is not None
    with Server(program) as started:
        yield started


@pytest.fixture
async def backend(server: Server) -> AsyncIterator[Backend]:
    """The queue as an engine sees it."""
    async with await open_backend(server.url("flood")) as opened:
        yield opened


@pytest.mark.timeout(LIMIT_S + 20)
async def test_memory_is_bounded(server: Server, backend: Backend) -> None:
    """Hundreds of runs at once, each producing more than a worker could hold of all, with a broker that hangs in the
    middle: all succeed, and the worker's memory grows by a bounded amount."""
    command = [sys.executable, "-m", "tests.worker.flood_program", server.url("flood"), str(int(min(TASKS, 1000)))]
    command += [str(int(STREAMED_MB * 1_000_000)), str(int(OUTPUT_MB * 1_000_000))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        try:
            ready_kib = report(process)["ready_kib"]
            ids = await backend.queue.submit_many([Task(prompt="go") for _ in range(int(TASKS))])
            async for _ in backend.chunks.subscribe(ids[-1]):
                break  # the last one has begun, so all have
            with server.frozen():
                time.sleep(FROZEN_S)
            results = [await backend.queue.wait(task_id, LIMIT_S) for task_id in ids]
            process.terminate()
            peak_kib = report(process)["peak_kib"]
        finally:
            process.kill()
    outputs = OutputStore(backend.state, keep_s=1, max_chars=0)
    kept = [await outputs.of(task_id).kept() for task_id in ids]
    with redis.Redis.from_url(server.url()) as raw:
        held_mib = raw.info("memory")["used_memory"] / 2**20
    said = (
        f"{TASKS:.0f} tasks of {STREAMED_MB:g} MB streamed and {OUTPUT_MB:g} MB of tool output: worker "
        f"{ready_kib / 1024:.0f} MiB at first, {peak_kib / 1024:.0f} MiB at most; server {held_mib:.0f} MiB at the end"
    )
    print(said)
    assert [result.output for result in results] == ["done"] * int(TASKS)
    assert kept == [{"call_0": 65_536}] * int(TASKS)
    assert peak_kib - ready_kib < SHARED_KIB + PER_TASK_KIB * TASKS, said


def report(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """The next line that the worker writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the worker process has ended"
    found: dict[str, int] = json.loads(line)
    return found
