"""Real workers on PostgreSQL: the main job from end to end, and a worker that is killed in the middle of it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from queue_backends import BackendOptions, ChunkType, TaskState, open_backend
from queue_backends.conformance.support import assert_numbered
from tests.e2e.e2e_programs import workers
from tests.postgresql_servers import PostgresqlServer
from worker.assembly import open_worker
from worker.client import Fleet, connect
from worker.settings import load_settings
from worker.usage import UsageReport

LIMIT_S = 60


def _agent(*turns: dict[str, Any]) -> dict[str, Any]:
    return {"model": "scripted", "provider": "scripted", "options": {"script": {"scenarios": [{"turns": list(turns)}]}}}


async def test_the_main_job(postgresql_server: PostgresqlServer, stream: str) -> None:
    """Two hundred tasks: each has its result, a stream without a gap and with one end, and a usage record; a task that
    was there twice by its key ran once, and one that is cancelled ends as such."""
    script = _agent({"text": "you said {prompt}", "usage": {"input_tokens": 11, "output_tokens": 4}})
    overrides = {f"agent.{name}": value for name, value in script.items()}
    settings = load_settings({}, file=None, overrides={**overrides, "concurrency": 50})
    url = postgresql_server.url(stream)
    async with (
        connect(url) as fleet,
        await open_backend(url, settings.backend) as backend,
        open_worker(settings, backend),
        asyncio.timeout(LIMIT_S),
    ):
        live = asyncio.ensure_future(_text_of(fleet))
        handles = await fleet.submit_many([f"task {number}" for number in range(200)])
        twice = [await fleet.submit("once", idempotency_key="k") for _ in range(2)]
        later = await fleet.submit("later", delay_s=3600)
        for number, handle in enumerate(handles):
            assert (await handle.result()).output == f"you said task {number}"
        assert await live == "you said live"
        assert twice[0].id == twice[1].id
        assert (await twice[0].result()).ok
        await later.cancel()
        assert (await later.status()).state is TaskState.CANCELLED
        for handle in handles[::20]:
            assert_numbered([chunk async for chunk in handle])
        stats = await fleet.backend.queue.stats()
        assert (stats.ready, stats.running, stats.delayed, stats.dead) == (0, 0, 0, 0)
    async with connect(url) as fleet:  # what it had used is written at the latest when a worker has left
        records = await UsageReport(fleet.backend.state).recent(limit=500)
        assert {record.id for record in records} >= {f"{handle.id}:0:0" for handle in [*handles, twice[0]]}
        (day,) = await UsageReport(fleet.backend.state).by_day()
        assert day.calls == 202


async def _text_of(fleet: Fleet) -> str:
    handle = await fleet.submit("live")
    return "".join([part async for part in handle.text()])


@pytest.mark.timeout(120)
async def test_a_killed_worker_loses_nothing(postgresql_server: PostgresqlServer, stream: str, tmp_path: Path) -> None:
    """kill -9 in the middle of an answer: after the lease another worker ends the task; one result, one end, and the
    call that was lost is in the books beside the one that answered."""
    url = postgresql_server.url(stream)
    settings = {"agent": _agent({"text": "slow but sure", "chunk_delay_s": 0.4}), "backend": {"lease_s": 1}}
    async with connect(url, options=BackendOptions(lease_s=1)) as fleet:
        with workers(2, tmp_path, url, settings) as processes:
            handle = await fleet.submit("hi")
            async with asyncio.timeout(LIMIT_S):
                chunks = [await anext(seen := aiter(handle))]
                holder = (await handle.status()).worker
                victim = next(process for process in processes if f"-{process.pid}-" in holder)
                victim.signal(signal.SIGKILL)
                chunks += [chunk async for chunk in seen]
                result = await handle.result()
    assert result.output == "slow but sure"
    assert_numbered(chunks)
    last = chunks[-1].attempt
    assert last > 0
    said = [chunk.content for chunk in chunks if chunk.attempt == last and chunk.type is ChunkType.CONTENT]
    assert "".join(said) == "slow but sure"
