"""A worker in this process on the memory backend, whose tools write into a diary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend, BackendOptions, TaskState, open_backend
from tests.diary_tools import TOOLS
from worker.approvals import Approval, Approvals
from worker.assembly import open_worker
from worker.client import Fleet, Handle
from worker.settings import load_settings
from worker.worker import Worker

WITHIN_S = 30.0


class Office:
    """What a test has: the fleet, the questions, and what the tools have done."""

    def __init__(self, backend: Backend, diary: Path) -> None:
        self.backend = backend
        self.fleet = Fleet(backend)
        self.approvals = Approvals(backend.state, wake=backend.queue.wake)
        self._diary = diary

    @property
    def done(self) -> list[str]:
        """Lines of the diary."""
        return self._diary.read_text().splitlines() if self._diary.exists() else []

    async def asked(self, count: int = 1) -> list[Approval]:
        """The open questions, once there are so many."""
        found: list[Approval] = await until(self.approvals.pending, lambda found: len(found) == count)
        return found

    async def parked(self, handle: Handle) -> None:
        """Return once the task lies in the queue."""
        await until(handle.status, lambda status: status.state is TaskState.DELAYED)


async def until(look: Callable[[], Awaitable[Any]], fits: Callable[[Any], bool]) -> Any:
    """What `look` finds, once it fits: for what nothing announces."""
    async with asyncio.timeout(WITHIN_S):
        while not fits(found := await look()):
            await asyncio.sleep(0.01)
        return found


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A memory backend of the test's own."""
    async with await open_backend("memory://", BackendOptions(lease_s=5)) as opened:
        yield opened


@pytest.fixture
def office(backend: Backend, tmp_path: Path) -> Office:
    """Everything but a worker."""
    return Office(backend, tmp_path / "diary")


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parked task looks by itself again and again."""
    monkeypatch.setattr("worker.parking.FIRST_LOOK_S", 0.1)
    monkeypatch.setattr("worker.parking.SHORTEST_S", 0.05)


Working = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
def working(backend: Backend, tmp_path: Path) -> Working:
    """Starts a worker whose agent takes these turns: `async with working(turn, turn, **settings)`."""
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS.format(diary=str(tmp_path / "diary")))

    @asynccontextmanager
    async def start(*turns: dict[str, Any], on: Backend = backend, **settings: Any) -> AsyncIterator[Worker]:
        overrides = {
            "agent.model": "scripted",
            "agent.provider": "scripted",
            "agent.approve_tools": ("note",),
            "agent.options": {"script": {"scenarios": [{"turns": list(turns)}]}},
            "python_tools": (str(tools),),
            "retry_base_s": 0.0,
        }
        loaded = load_settings({}, file=None, overrides={**overrides, **settings})
        async with open_worker(loaded, on) as worker:
            yield worker

    return start


def calls(name: str, *texts: str) -> dict[str, Any]:
    """A turn that calls a tool once for each text, at the same time."""
    return {"tool_calls": [{"name": name, "arguments": {"text": text}} for text in texts]}


def says(text: str) -> dict[str, Any]:
    """A turn that answers."""
    return {"text": text}
