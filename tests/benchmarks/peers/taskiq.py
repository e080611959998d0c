"""taskiq with taskiq-redis. Variants: `list` (no acknowledgement) and `stream` (with one)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskiq.api import run_receiver_task  # type: ignore[import-not-found]  # peer's own venv
from taskiq_redis import (  # type: ignore[import-not-found]  # peer's own venv
    ListQueueBroker,
    RedisAsyncResultBackend,
    RedisStreamBroker,
)

from tests.benchmarks.peers import protocol
from tests.benchmarks.peers.protocol import Job


def _broker(url: str, variant: str) -> tuple[Any, dict[str, Any]]:
    kind = RedisStreamBroker if variant == "stream" else ListQueueBroker
    broker = kind(url).with_result_backend(RedisAsyncResultBackend(url, result_ex_time=3600))
    functions = (protocol.noop, protocol.nap, protocol.stamp)
    return broker, {function.__name__: broker.task(function) for function in functions}


class Producer:
    """Submits with `kiq`; taskiq has no call for several jobs."""

    def __init__(self, url: str, variant: str) -> None:
        self._broker, self._tasks = _broker(url, variant)

    async def open(self) -> None:
        await self._broker.startup()

    async def submit(self, job: Job) -> None:
        await self._tasks[job[0]].kiq(job[1])

    async def submit_many(self, jobs: Sequence[Job]) -> None:
        await protocol.gather_in_steps(self, jobs, at_once=protocol.AT_ONCE)

    async def close(self) -> None:
        await self._broker.shutdown()


async def _run(url: str, variant: str, concurrency: int) -> None:
    broker, _ = _broker(url, variant)
    broker.is_worker_process = True
    await broker.startup()
    protocol.ready()
    await run_receiver_task(broker, max_async_tasks=concurrency)


def work(url: str, variant: str, concurrency: int) -> None:
    protocol.run_worker(_run(url, variant, concurrency))


if __name__ == "__main__":
    protocol.main(Producer, work)
