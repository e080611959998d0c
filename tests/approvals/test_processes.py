"""Real processes: a worker that is killed and a Redis that is restarted, while a task waits for a person."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from queue_backends import TaskState, open_backend
from tests.approvals.conftest import WITHIN_S, Office, calls, says, until
from tests.diary_tools import TOOLS
from tests.e2e.e2e_programs import workers
from tests.servers import Server, fresh_stream

pytestmark = pytest.mark.timeout(120)


def settings(folder: Path) -> dict[str, Any]:
    """A worker with a scripted agent whose `note` has to be approved."""
    tools = folder / "tools.py"
    tools.write_text(TOOLS.format(diary=str(folder / "diary")))
    script = {"scenarios": [{"turns": [calls("note", "x"), says("did: {last_result}")]}]}
    agent = {"model": "scripted", "provider": "scripted", "options": {"script": script}, "approve_tools": ["note"]}
    return {"agent": agent, "backend": {"lease_s": 1}, "python_tools": [str(tools)]}


async def test_killed_worker_and_restarted_server(durable_server: Server, tmp_path: Path) -> None:
    """The worker is killed while the task is parked, the server is restarted, somebody answers while nobody works: the
    next worker makes the call, once, and nothing is asked again."""
    url = durable_server.url(fresh_stream())
    async with await open_backend(url) as backend:
        office = Office(backend, tmp_path / "diary")
        with workers(1, tmp_path, url, settings(tmp_path)) as (worker,):
            handle = await office.fleet.submit("hi")
            [asked] = await office.asked()
            await office.parked(handle)
            worker.signal(signal.SIGKILL)
            worker.wait()
        await asyncio.to_thread(durable_server.restart)
        [again] = await office.asked()
        assert again == asked
        assert (await handle.status()).state is TaskState.DELAYED
        await office.approvals.decide(asked.id, approved=True)
        await until(handle.status, lambda status: status.state is TaskState.READY)
        assert office.done == []
        with workers(1, tmp_path, url, settings(tmp_path)):
            assert (await handle.result(WITHIN_S)).output == "did: noted x"
        assert office.done == ["note x"]
        assert len(await office.approvals.all()) == 1
