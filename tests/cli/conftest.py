"""A way to run commands in this process, on a queue of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from providers import register
from providers.scripted import ScriptedProvider
from queue_backends import Backend, open_backend, register_backend
from queue_backends.memory import open_backend as open_memory
from queue_backends.redis import open_backend as open_redis
from tests.cli.cli_harness import Outcome, Shoal
from worker.cli.app import run

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _own_place(queue_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands find a fresh queue in TASK_QUEUE_URL and an empty working directory."""
    register_backend("redis", open_redis)
    register_backend("memory", open_memory)
    for name in ("mock", "scripted"):
        register(name, ScriptedProvider)
    monkeypatch.setenv("TASK_QUEUE_URL", queue_url)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shoal(capsys: pytest.CaptureFixture[str]) -> Shoal:
    """Run a command line: `shoal("tasks", "list")`."""

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run(arguments)
        written = capsys.readouterr()
        return Outcome(code, written.out, written.err)

    return call


@pytest.fixture
def with_backend(queue_url: str) -> Callable[[Callable[[Backend], Awaitable[T]]], T]:
    """Do something with the queue as an engine or a worker would."""

    def do(work: Callable[[Backend], Awaitable[T]]) -> T:
        async def connected() -> T:
            async with await open_backend(queue_url) as backend:
                return await work(backend)

        return asyncio.run(connected())

    return do
