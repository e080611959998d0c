"""The main job with real processes on a real server."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from e2e_programs import workers

from queue_backends import BackendOptions, ChunkType, TaskState
from worker.client import Fleet, Handle, connect
from worker.usage import UsageReport

LIMIT_S = 90

TOOLS = '''
from worker import tool

@tool(idempotent=True)
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number
'''


def agent(*turns: dict[str, Any]) -> dict[str, Any]:
    """A scripted default agent."""
    return {"model": "scripted", "provider": "scripted", "options": {"script": {"scenarios": [{"turns": list(turns)}]}}}


@pytest.mark.timeout(180)
async def test_two_workers_and_a_thousand_tasks_with_tools(queue_url: str, tmp_path: Path) -> None:
    """Every task has its one right result, a gapless chunk sequence with one end, and a record per model call."""
    count = 1000
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS)
    settings = {
        "agent": agent(
            {"text": "let me see", "tool_calls": [{"name": "double", "arguments": {"number": 21}}]},
            {"text": "{prompt} has the answer {last_result}", "usage": {"input_tokens": 11, "output_tokens": 4}},
        ),
        "python_tools": [str(tools)],
        "concurrency": 100,
    }
    async with connect(queue_url) as fleet:
        with workers(2, tmp_path, queue_url, settings):
            handles = await fleet.submit_many([f"task {number}" for number in range(count)])
            async with asyncio.timeout(LIMIT_S):
                for number, handle in enumerate(handles):
                    assert (await handle.result()).output == f"task {number} has the answer 42"
            for handle in handles:
                await assert_stream_is_whole(handle)
            stats = await fleet.backend.queue.stats()
        assert (stats.ready, stats.running, stats.delayed, stats.dead) == (0, 0, 0, 0)
        records = await UsageReport(fleet.backend.state).recent(limit=3 * count)
        assert {record.id for record in records} == {f"{handle.id}:{turn}:0" for handle in handles for turn in (0, 1)}
        (day,) = await UsageReport(fleet.backend.state).by_day()
        assert day.calls == 2 * count


async def assert_stream_is_whole(handle: Handle) -> None:
    """0, 1, 2, … with one tool call, one tool result, and one final chunk at the end."""
    async with asyncio.timeout(10):
        chunks = [chunk async for chunk in handle]
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    kinds = [chunk.type for chunk in chunks]
    assert kinds.count(ChunkType.TOOL_CALL) == kinds.count(ChunkType.TOOL_RESULT) == 1


async def test_sigterm_hands_back_what_does_not_finish(queue_url: str, tmp_path: Path) -> None:
    """The worker exits with 0; the task is ready at once, long before a lease would end, and another worker ends it."""
    slow = {"agent": agent({"text": "at last", "delay_s": 30}), "grace_s": 0}
    async with connect(queue_url, options=BackendOptions(lease_s=300)) as fleet:
        with workers(1, tmp_path, queue_url, slow) as (leaving,):
            handle = await fleet.submit("hi")
            await reached(fleet, handle, TaskState.RUNNING)
            leaving.signal(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.wait) == 0
        assert (await handle.status()).state is TaskState.READY
        with workers(1, tmp_path, queue_url, {"agent": agent({"text": "at last"})}):
            result = await handle.result(LIMIT_S)
    assert (result.output, result.error) == ("at last", "")


async def test_task_of_a_killed_worker_is_finished_by_another(queue_url: str, tmp_path: Path) -> None:
    """kill -9 in the middle: after the lease another worker takes over; one result, one final chunk."""
    settings = {"agent": agent({"text": "slow but sure", "chunk_delay_s": 0.4}), "backend": {"lease_s": 1}}
    async with connect(queue_url) as fleet:
        with workers(2, tmp_path, queue_url, settings) as processes:
            handle = await fleet.submit("hi")
            await reached(fleet, handle, TaskState.RUNNING)
            status = await handle.status()
            victim = next(process for process in processes if f"-{process.pid}-" in status.worker)
            victim.signal(signal.SIGKILL)
            async with asyncio.timeout(LIMIT_S):
                chunks = [chunk async for chunk in handle]
                result = await handle.result()
    assert result.output == "slow but sure"
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    last = chunks[-1].attempt
    text = "".join(chunk.content for chunk in chunks if chunk.attempt == last and chunk.type is ChunkType.CONTENT)
    assert text == "slow but sure"


async def reached(fleet: Fleet, handle: Handle, state: TaskState) -> None:
    """Wait until the task is in a state that nothing announces."""
    async with asyncio.timeout(LIMIT_S):
        while (await handle.status()).state is not state:
            await asyncio.sleep(0.02)
