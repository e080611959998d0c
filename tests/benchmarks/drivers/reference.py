"""The least code that makes the main writes: read a batch, run it, commit what gathered with one script call.

No lease, no fence, no retry, no cancel, no journal, no error handling: it marks the limit of a Python client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis.asyncio as redis

from tests.benchmarks.peers import protocol
from tests.benchmarks.peers.protocol import Job

STREAM, RESULTS, USAGE, GROUP = "reference", "reference-results", "reference-usage", "workers"
SCRIPT = Path(__file__).with_suffix(".lua").read_text()
JOBS = {"noop": protocol.noop, "nap": protocol.nap, "stamp": protocol.stamp}


class Producer:
    """XADD, several in one pipeline."""

    def __init__(self, url: str, variant: str) -> None:
        self._client = redis.from_url(url, socket_timeout=None)

    async def open(self) -> None:
        await self._client.ping()

    async def submit(self, job: Job) -> None:
        await self._client.xadd(STREAM, {"job": job[0], "prompt": job[1]})

    async def submit_many(self, jobs: Sequence[Job]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for name, text in jobs:
            pipe.xadd(STREAM, {"job": name, "prompt": text})
        await pipe.execute()

    async def close(self) -> None:
        await self._client.aclose()


class Loop:
    """One connection reads, one commits."""

    def __init__(self, url: str, concurrency: int) -> None:
        self._reader = redis.from_url(url, socket_timeout=None)
        self._writer = redis.from_url(url, socket_timeout=None)
        self._commit = self._writer.register_script(SCRIPT)
        self._free = concurrency
        self._freed, self._finished = asyncio.Event(), asyncio.Event()
        self._done: list[tuple[str, str, str]] = []

    async def run(self) -> None:
        await self._reader.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        protocol.ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pull(group))
            group.create_task(self._settle())

    async def _pull(self, group: asyncio.TaskGroup) -> None:
        while True:
            while not self._free:
                self._freed.clear()
                await self._freed.wait()
            reply: Any = await self._reader.xreadgroup(GROUP, "one", {STREAM: ">"}, count=self._free, block=5000)
            for _, entries in reply or ():
                self._free -= len(entries)
                for entry, fields in entries:
                    group.create_task(self._work(entry.decode(), fields[b"job"].decode(), fields[b"prompt"].decode()))

    async def _work(self, entry: str, job: str, text: str) -> None:
        result = msgspec.json.encode({"output": await JOBS[job](text)}).decode()
        self._done.append((entry, result, '{"input_tokens":1}'))
        self._finished.set()

    async def _settle(self) -> None:
        while True:
            await self._finished.wait()
            self._finished.clear()
            batch, self._done = self._done, []
            await self._commit(keys=[STREAM, RESULTS, USAGE], args=[msgspec.msgpack.encode((GROUP, batch))])
            self._free += len(batch)
            self._freed.set()


def work(url: str, variant: str, concurrency: int) -> None:
    """Run the loop for good."""

    async def run() -> None:
        await Loop(url, concurrency).run()

    protocol.run_worker(run())


if __name__ == "__main__":
    protocol.main(Producer, work)
