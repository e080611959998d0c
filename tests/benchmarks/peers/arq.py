"""arq. Variants: `default` polls every 500 ms, `10ms` every 10 ms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker

from tests.benchmarks.peers import protocol
from tests.benchmarks.peers.protocol import Job


async def noop(ctx: dict[str, Any], text: str) -> str:
    return await protocol.noop(text)


async def nap(ctx: dict[str, Any], text: str) -> str:
    return await protocol.nap(text)


async def stamp(ctx: dict[str, Any], text: str) -> str:
    return await protocol.stamp(text)


class Producer:
    """Submits with `enqueue_job`; arq has no call for several jobs."""

    def __init__(self, url: str, variant: str) -> None:
        self._url = url
        self._pool: ArqRedis

    async def open(self) -> None:
        self._pool = await create_pool(RedisSettings.from_dsn(self._url))

    async def submit(self, job: Job) -> None:
        await self._pool.enqueue_job(*job)

    async def submit_many(self, jobs: Sequence[Job]) -> None:
        await protocol.gather_in_steps(self, jobs, at_once=protocol.AT_ONCE)

    async def close(self) -> None:
        await self._pool.aclose()


async def _run(url: str, variant: str, concurrency: int) -> None:
    worker = Worker(
        functions=[noop, nap, stamp],
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=concurrency,
        poll_delay=0.01 if variant == "10ms" else 0.5,
        log_results=False,
        handle_signals=False,
    )
    protocol.ready()
    await worker.async_run()


def work(url: str, variant: str, concurrency: int) -> None:
    protocol.run_worker(_run(url, variant, concurrency))


if __name__ == "__main__":
    protocol.main(Producer, work)
