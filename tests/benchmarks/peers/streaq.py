"""streaq."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from streaq import Worker  # type: ignore[import-not-found]  # peer's own venv

from tests.benchmarks.peers import protocol
from tests.benchmarks.peers.protocol import Job


def _worker(url: str, concurrency: int) -> tuple[Any, dict[str, Any]]:
    worker = Worker(redis_url=url, concurrency=concurrency, handle_signals=False)
    return worker, {
        function.__name__: worker.task(function) for function in (protocol.noop, protocol.nap, protocol.stamp)
    }


class Producer:
    """Submits several jobs with `enqueue_many`, a pipeline."""

    def __init__(self, url: str, variant: str) -> None:
        self._worker, self._tasks = _worker(url, 1)
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        await self._stack.enter_async_context(self._worker)

    async def submit(self, job: Job) -> None:
        await self._tasks[job[0]].enqueue(job[1])

    async def submit_many(self, jobs: Sequence[Job]) -> None:
        await self._worker.enqueue_many([self._tasks[name].enqueue(text) for name, text in jobs])

    async def close(self) -> None:
        await self._stack.aclose()


async def _run(url: str, concurrency: int) -> None:
    worker, _ = _worker(url, concurrency)
    protocol.ready()
    await worker.run_async()


def work(url: str, variant: str, concurrency: int) -> None:
    protocol.run_worker(_run(url, concurrency))


if __name__ == "__main__":
    protocol.main(Producer, work)
