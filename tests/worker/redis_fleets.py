"""Workers in this process on a real server, and rivals that would take any task whose lease has run out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

import providers
from providers import AgentConfig, CallTool, ChunkFn, ToolSpec
from queue_backends import BackendOptions, Delivery, Task, TokenUsage, open_backend
from worker.assembly import open_worker
from worker.client import Fleet
from worker.settings import load_settings
from worker.side_loop import SideLoop
from worker.worker import Worker

LIMIT_S = 20

RunTask = Callable[[Task, CallTool, ChunkFn], Any]


def provider_of(name: str, run: RunTask) -> str:
    """Register a provider that runs tasks with this coroutine function, which returns the answer; gives its name."""

    class Provider:
        async def run_task(
            self, config: AgentConfig, task: Task, tools: list[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
        ) -> tuple[str, TokenUsage]:
            return await run(task, call_tool, chunk_fn), TokenUsage(input_tokens=1, output_tokens=1)

    Provider.name = name  # type: ignore[attr-defined]  # part of the protocol, different for each
    providers.register(name, Provider)  # type: ignore[arg-type]  # a class with the protocol's shape
    return name


@asynccontextmanager
async def worker_on(url: str, *, lease_s: float = 30.0, **settings: Any) -> AsyncIterator[tuple[Fleet, Worker]]:
    """A worker on the queue of this URL; `lease_s` may be shorter than a setting allows."""
    overrides = {"agent.model": "scripted", "agent.provider": "scripted", "retry_base_s": 0.0, **settings}
    loaded = load_settings({}, file=None, overrides=overrides)
    loaded = msgspec.structs.replace(loaded, backend=BackendOptions(lease_s=lease_s))
    async with await open_backend(url, loaded.backend) as backend, open_worker(loaded, backend) as worker:
        yield Fleet(backend), worker


@asynccontextmanager
async def rival(url: str, lease_s: float) -> AsyncIterator[list[Delivery]]:
    """Pulls all the time, whatever happens in this thread's loop; gives the list of what it got, and keeps it."""
    got: list[Delivery] = []
    pulls = asyncio.Semaphore(0)
    home = asyncio.get_running_loop()

    async def pull_all() -> None:
        async with await open_backend(url, BackendOptions(lease_s=lease_s)) as backend:
            while True:
                home.call_soon_threadsafe(pulls.release)
                got.extend(await backend.queue.pull(10, 1.0))
                if got:
                    await backend.queue.renew(got)

    async with SideLoop("rival") as side:
        pulling = asyncio.create_task(side.run(pull_all()))
        try:
            async with asyncio.timeout(LIMIT_S):
                await pulls.acquire()
            yield got
        finally:
            pulling.cancel()
            await asyncio.wait([pulling])
