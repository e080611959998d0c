"""Real worker processes that are stopped, frozen and killed."""

from __future__ import annotations

import asyncio
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from queue_backends import BackendOptions, ChunkType, TaskState
from tests.e2e.e2e_programs import workers
from tests.servers import free_port
from worker.client import Fleet, Handle, connect
from worker.usage import UsageReport

LIMIT_S = 60
LEASE_S = 1

pytestmark = pytest.mark.timeout(120)

TOOLS = '''
import os
import time
from pathlib import Path
from worker import tool

@tool
async def block(flag: str) -> str:
    """Hold up the event loop as long as the file is there."""
    while Path(flag).exists():
        time.sleep(0.05)
    return "free"

@tool(idempotent=True)
def die() -> str:
    """End the whole process."""
    os._exit(3)
'''


def settings(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A worker with a scripted default agent and a short lease."""
    script = {"scenarios": [{"turns": list(turns)}]}
    agent = {"model": "scripted", "provider": "scripted", "options": {"script": script}}
    return {"agent": agent, "backend": {"lease_s": LEASE_S}, **more}


async def running(fleet: Fleet, handle: Handle) -> str:
    """The worker that has the task, once one has."""
    async with asyncio.timeout(LIMIT_S):
        while (status := await handle.status()).state is not TaskState.RUNNING:
            await asyncio.sleep(0.02)
    return status.worker


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder for each of two workers that are configured differently."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "other"


async def test_frozen_worker_writes_nothing_when_it_is_back(queue_url: str, folders: tuple[Path, Path]) -> None:
    """Stopped for longer than its lease, it finds its task with another worker: its run ends at once, without a chunk,
    a result or a usage record, long before the answer that it was at would have ended."""
    endless = settings({"text": "stale " * 1000, "chunk_delay_s": 0.1}, grace_s=100, timeout_s=100)
    quick = settings(
        {"text": "fresh and quick", "chunk_delay_s": 0.7, "usage": {"input_tokens": 5, "output_tokens": 3}}
    )
    async with connect(queue_url) as fleet:
        with workers(1, folders[0], queue_url, endless) as (frozen,):
            handle = await fleet.submit("hi")
            former = await running(fleet, handle)
            async with asyncio.timeout(LIMIT_S):
                async for _ in handle:
                    break
            frozen.signal(signal.SIGSTOP)
            with workers(1, folders[1], queue_url, quick):
                async with asyncio.timeout(LIMIT_S):
                    async for chunk in handle:
                        if chunk.content.startswith("fresh"):
                            break
                assert (await handle.status()).worker != former
                frozen.signal(signal.SIGCONT)
                frozen.signal(signal.SIGTERM)
                assert await asyncio.to_thread(frozen.wait) == 0
                result = await handle.result(LIMIT_S)
        async with asyncio.timeout(LIMIT_S):
            chunks = [chunk async for chunk in handle]
        assert (await handle.result()).output == result.output == "fresh and quick"
        assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
        assert [chunk.type for chunk in chunks if chunk.is_final] == [ChunkType.DONE]
        fresh = "".join(chunk.content for chunk in chunks if chunk.attempt == chunks[-1].attempt)
        assert fresh == "fresh and quick"
        assert {chunk.content.strip() for chunk in chunks if chunk.attempt == 0} == {"stale"}
        records = await UsageReport(fleet.backend.state).recent()
    # Whoever took over notes that the other's call was lost; the frozen worker itself has nothing to say.
    assert sorted(record.outcome for record in records) == ["completed", "lost"]


async def test_task_that_kills_its_worker_three_times_is_given_up(queue_url: str, tmp_path: Path) -> None:
    """Each crash counts; the fourth worker does not run it, and result, final chunk and dead letter say why."""
    (tmp_path / "tools.py").write_text(TOOLS)
    deadly = settings({"tool_calls": [{"name": "die"}]}, python_tools=[str(tmp_path / "tools.py")])
    async with connect(queue_url) as fleet:
        handle = await fleet.submit("hi")
        for _ in range(3):
            with workers(1, tmp_path, queue_url, deadly) as (worker,):
                assert await asyncio.to_thread(worker.wait) == 3
        with workers(1, tmp_path, queue_url, deadly):
            result = await handle.result(LIMIT_S)
            async with asyncio.timeout(LIMIT_S):
                chunks = [chunk async for chunk in handle]
        (letter,) = await fleet.backend.queue.dead_letters()
        stats = await fleet.backend.queue.stats()
    assert result.error.startswith("worker lost")
    assert letter.error == result.error
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [(chunk.type, chunk.content) for chunk in chunks if chunk.is_final] == [(ChunkType.ERROR, result.error)]
    assert (stats.ready, stats.running, stats.delayed) == (0, 0, 0)


async def test_worker_that_says_goodbye_leaves_nothing_to_leases(queue_url: str, tmp_path: Path) -> None:
    """After SIGTERM and the grace period its task is ready at once, though its lease would last for minutes."""
    slow = settings({"text": "too slow", "delay_s": 60}, grace_s=0.2) | {"backend": {"lease_s": 600}}
    quick = settings({"text": "taken over"}) | {"backend": {"lease_s": 600}}
    async with connect(queue_url, options=BackendOptions(lease_s=600)) as fleet:
        with workers(1, tmp_path, queue_url, slow) as (leaving,):
            handle = await fleet.submit("hi")
            await running(fleet, handle)
            leaving.signal(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.wait) == 0
        with workers(1, tmp_path, queue_url, quick):
            result = await handle.result(LIMIT_S)
        assert (result.output, result.error) == ("taken over", "")


async def test_worker_with_a_blocked_loop_says_so_and_keeps_its_task(
    queue_url: str, stream: str, tmp_path: Path
) -> None:
    """For several leases: alive, not ready, and the log names the tool and the line; the task is not run twice. The
    metrics page answers too, and shows the queue's figures when the loop turns again."""
    (tmp_path / "tools.py").write_text(TOOLS)
    flag, port = tmp_path / "flag", free_port()
    flag.touch()
    turns: list[dict[str, Any]] = [
        {"tool_calls": [{"name": "block", "arguments": {"flag": str(flag)}}]},
        {"text": "it is {last_result}"},
    ]
    blocked = settings(*turns, python_tools=[str(tmp_path / "tools.py")], health_port=port)
    async with connect(queue_url, options=BackendOptions(lease_s=LEASE_S)) as fleet:
        with workers(1, tmp_path, queue_url, blocked) as (worker,):
            handle = await fleet.submit("hi")
            holder = await running(fleet, handle)
            async with asyncio.timeout(LIMIT_S):
                while "event loop blocked for" not in (page := await asyncio.to_thread(read, port, "readyz")):
                    await asyncio.sleep(0.1)
                assert page.startswith("503")
                assert (await asyncio.to_thread(read, port, "healthz")).startswith("200 event loop blocked for")
                page = await asyncio.to_thread(read, port, "metrics")
                assert ("shoal_worker_running 1" in page, "shoal_queue_" in page) == (True, False)
                while "longer than a lease" not in worker.log.read_text():
                    await asyncio.sleep(0.1)
                assert await fleet.backend.queue.pull(1, 2 * LEASE_S) == []
                assert (await handle.status()).worker == holder
                flag.unlink()
                assert (await handle.result(LIMIT_S)).output == "it is free"
            async with asyncio.timeout(LIMIT_S):
                while await asyncio.to_thread(read, port, "readyz") != "200 ready":
                    await asyncio.sleep(0.1)
                idle = f'shoal_queue_running{{queue="{stream}"}} 0'
                while idle not in await asyncio.to_thread(read, port, "metrics"):
                    await asyncio.sleep(0.1)
        records = await UsageReport(fleet.backend.state).recent()
        log = worker.log.read_text()
    assert sorted(record.id for record in records) == [f"{handle.id}:0:0", f"{handle.id}:1:0"]
    assert f"tool block of {handle.id}" in log
    assert re.search(r'"at": "tools\.py:\d+ block"', log)


def read(port: int, page: str) -> str:
    """Status and body of a health page; empty while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
            return f"{answer.status} {answer.read().decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError:
        return ""
