"""Conversations and dying workers: real processes on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend, BackendOptions, ChunkType, Task, open_backend
from tests.sessions.talking import WITHIN_S, kept, texts, until
from worker.sessions.store import Sessions

LEASE_S = 1.0
TOOLS = '''
from worker import tool

@tool(idempotent=True)
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number
'''
SCRIPT = {
    "scenarios": [
        {
            "match": "slowly",
            "turns": [
                {"text": "wait", "tool_calls": [{"name": "double", "arguments": {"number": 21}}]},
                {"text": "it is {last_result} and I say it slowly", "chunk_delay_s": 0.08},
            ],
        },
        {"turns": [{"text": "echo {prompt}"}]},
    ]
}


@pytest.fixture
async def backend(queue_url: str) -> AsyncIterator[Backend]:
    """A fresh queue on the shared server."""
    async with await open_backend(queue_url, BackendOptions(lease_s=LEASE_S)) as opened:
        yield opened


@contextlib.contextmanager
def workers(count: int, folder: Path, url: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Real worker processes with the script."""
    tools, config = folder / "tools.py", folder / "shoal.yaml"
    tools.write_text(TOOLS)
    settings: dict[str, Any] = {
        "agent": {"model": "mock", "provider": "scripted", "options": {"script": SCRIPT}},
        "python_tools": [str(tools)],
        "health_port": 0,
        "log_level": "warning",
        "backend": {"lease_s": LEASE_S},
    }
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "worker.cli", "worker", "--queue", url]
    environment = {**os.environ, "SHOAL_CONFIG": str(config)}
    with (folder / "workers.log").open("wb") as out:
        running = [subprocess.Popen(command, env=environment, stdout=out, stderr=out) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WITHIN_S)
            process.kill()
            process.wait(WITHIN_S)


async def test_kill_9_in_the_middle_of_an_answer(backend: Backend, queue_url: str, tmp_path: Path) -> None:
    """The worker dies while it answers: another goes on; the conversation has each message once, in order, with the
    tool call of the turn that was finished before; and the message that waited is answered after it."""
    sessions = Sessions(backend.state, backend.queue, keep_s=600, tasks_keep_s=600)
    session = await sessions.create(agent="", owner="me")
    [conversation] = session.conversations
    with workers(2, tmp_path, queue_url) as running:
        await sessions.post(session, conversation, Task(prompt="hello"))
        await until(lambda: _has(backend, conversation, 1))
        chat = await sessions.chats.advance(session.id, conversation)
        slow = await sessions.post(session, conversation, Task(prompt="tell me slowly"))
        await sessions.post(session, conversation, Task(prompt="thanks"))
        async with asyncio.timeout(WITHIN_S):
            async for chunk in backend.chunks.subscribe(slow.task_id):
                if chunk.turn == 1 and chunk.type is ChunkType.CONTENT:
                    break
        [status] = await backend.queue.status([slow.task_id])
        victim = next(process for process in running if f"-{process.pid}-" in status.worker)
        victim.kill()
        await until(lambda: _has(backend, conversation, 3))
        exchanges = await kept(backend.state, conversation)
    assert chat.count == 1
    assert [texts(each.messages) for each in exchanges] == [
        ["hello", "echo hello"],
        ["tell me slowly", "wait+call:double", "outcome:42", "it is 42 and I say it slowly"],
        ["thanks", "echo thanks"],
    ]
    assert [each.error for each in exchanges] == ["", "", ""]


async def _has(backend: Backend, conversation: str, count: int) -> bool:
    return len(await kept(backend.state, conversation)) >= count
