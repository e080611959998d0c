"""dramatiq with its Redis broker and result backend, eight threads as by default."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

import dramatiq  # type: ignore[import-not-found]  # peer's own venv
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]  # peer's own venv
from dramatiq.results import Results  # type: ignore[import-not-found]  # peer's own venv
from dramatiq.results.backends import RedisBackend  # type: ignore[import-not-found]  # peer's own venv

from tests.benchmarks.peers import protocol
from tests.benchmarks.peers.protocol import RESULT, Job


def noop(text: str) -> str:
    return RESULT


def stamp(text: str) -> str:
    protocol.report_start(text)
    return RESULT


def _broker(url: str) -> tuple[Any, dict[str, Any]]:
    broker = RedisBroker(url=url)
    broker.add_middleware(Results(backend=RedisBackend(url=url), store_results=True))
    dramatiq.set_broker(broker)
    return broker, {function.__name__: dramatiq.actor(function, broker=broker) for function in (noop, stamp)}


class Producer:
    """Submits with `send`, which blocks; dramatiq has no call for several jobs."""

    def __init__(self, url: str, variant: str) -> None:
        self._broker, self._actors = _broker(url)

    async def open(self) -> None:
        """Connects with the first message."""

    async def submit(self, job: Job) -> None:
        self._actors[job[0]].send(job[1])

    async def submit_many(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            await self.submit(job)

    async def close(self) -> None:
        await asyncio.to_thread(self._broker.close)


def work(url: str, variant: str, concurrency: int) -> None:
    broker, _ = _broker(url)
    worker = dramatiq.Worker(broker, worker_threads=8)
    worker.start()
    protocol.ready()
    signal.pause()


if __name__ == "__main__":
    protocol.main(Producer, work)
