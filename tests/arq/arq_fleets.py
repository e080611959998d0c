"""Shoal workers in this process whose model is a function of the test's, and workers of arq's own beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from arq import ArqRedis, Worker, func

import providers
from providers import AgentConfig, CallTool, ChunkFn, ToolSpec
from queue_backends import BackendOptions, ChunkType, Task, TokenUsage, open_backend
from queue_backends.arq import deserializer, serializer
from worker.assembly import open_worker
from worker.client import Fleet
from worker.settings import load_settings

LIMIT_S = 30.0

Answering = Callable[[Task], Awaitable[str]]


@asynccontextmanager
async def shoal_worker(url: str, answer: Answering, *, lease_s: float = 30.0, **settings: Any) -> AsyncIterator[Fleet]:
    """A worker that answers each task with what `answer` returns."""
    name = f"answers-{id(answer):x}"

    class Provider:
        async def run_task(
            self, config: AgentConfig, task: Task, tools: list[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
        ) -> tuple[str, TokenUsage]:
            text = await answer(task)
            await chunk_fn(ChunkType.CONTENT, text)
            return text, TokenUsage(input_tokens=7, output_tokens=3)

    Provider.name = name  # type: ignore[attr-defined]  # part of the protocol, different for each
    providers.register(name, Provider)  # type: ignore[arg-type]  # a class with the protocol's shape
    overrides = {"agent.model": "m", "agent.provider": name, "retry_base_s": 0.0, "max_retries": 0, **settings}
    loaded = load_settings({}, file=None, overrides=overrides)
    loaded = msgspec.structs.replace(loaded, backend=BackendOptions(lease_s=lease_s))
    async with await open_backend(url, loaded.backend) as backend, open_worker(loaded, backend):
        yield Fleet(backend)


@asynccontextmanager
async def arq_worker(
    pool: ArqRedis, queue: str, run_task: Callable[..., Awaitable[Any]], **settings: Any
) -> AsyncIterator[Worker]:
    """A worker of arq's own on a queue, which reads and writes JSON."""
    worker = Worker(
        functions=[func(run_task, name="run_task")],  # type: ignore[arg-type]  # arq's protocol wants positional ctx
        queue_name=queue,
        redis_pool=pool,
        handle_signals=False,
        poll_delay=0.05,
        allow_abort_jobs=True,
        job_serializer=serializer,
        job_deserializer=deserializer,
        **settings,
    )
    running = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        running.cancel()
        await asyncio.wait([running])
        for task in list(worker.tasks.values()):
            task.cancel()
        if worker.tasks:
            await asyncio.wait(list(worker.tasks.values()))


async def echo(task: Task) -> str:
    """Answers with the prompt."""
    return f"you said {task.prompt}"
