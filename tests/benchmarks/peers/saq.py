"""saq, with its Redis queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saq import Queue, Worker  # type: ignore[import-not-found]  # peer's own venv

from tests.benchmarks.peers import protocol
from tests.benchmarks.peers.protocol import Job


async def noop(ctx: dict[str, Any], *, text: str) -> str:
    return await protocol.noop(text)


async def nap(ctx: dict[str, Any], *, text: str) -> str:
    return await protocol.nap(text)


async def stamp(ctx: dict[str, Any], *, text: str) -> str:
    return await protocol.stamp(text)


class Producer:
    """Submits with `enqueue`, twenty calls under way at once: saq's own limit for one queue object."""

    def __init__(self, url: str, variant: str) -> None:
        self._url = url
        self._queue: Any = None

    async def open(self) -> None:
        self._queue = Queue.from_url(self._url)

    async def submit(self, job: Job) -> None:
        await self._queue.enqueue(job[0], text=job[1])

    async def submit_many(self, jobs: Sequence[Job]) -> None:
        await protocol.gather_in_steps(self, jobs, at_once=protocol.AT_ONCE)

    async def close(self) -> None:
        await self._queue.disconnect()


async def _run(url: str, concurrency: int) -> None:
    worker = Worker(Queue.from_url(url), functions=[noop, nap, stamp], concurrency=concurrency)
    protocol.ready()
    await worker.start()


def work(url: str, variant: str, concurrency: int) -> None:
    protocol.run_worker(_run(url, concurrency))


if __name__ == "__main__":
    protocol.main(Producer, work)
