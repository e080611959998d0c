"""The least code that makes Shoal's writes: read a batch, run it, commit what gathered with one script call.

No lease, no fence, no retry, no cancel, no error handling: it marks the limit of a Python client. Variants:

    main   result, acknowledgement, usage record, final chunk, and of these only as much as must be
    all    whatever Shoal writes for such a task, in its own formats: these, a chunk with the text, a journal that ends
           with the task, totals of what was used, when the result expires, and the message that it is there
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis.asyncio as redis

from tests.benchmarks.peers import protocol
from tests.benchmarks.peers.protocol import Job

STREAM, RESULTS, USAGE, GROUP = "reference", "reference-results", "reference-usage", "workers"
SCRIPTS = {variant: Path(__file__).with_name(f"reference_{variant}.lua").read_text() for variant in ("main", "all")}
USED = {"input_tokens": 256, "output_tokens": 256}
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


class Chunk(msgspec.Struct, omit_defaults=True):
    """One entry of a task's stream."""

    task_id: str
    seq: int
    type: str
    content: str = ""
    metadata: dict[str, Any] | None = None
    is_final: bool = False


class Record(msgspec.Struct):
    """What a model call used."""

    id: str
    task_id: str
    provider: str
    model: str
    usage: dict[str, int]
    outcome: str
    started_at: float
    duration_ms: int
    time_to_first_chunk_ms: int


class Entry(msgspec.Struct):
    """A journal's."""

    kind: str
    worker: str
    turn: int
    attempt: int
    usage: Record


class Result(msgspec.Struct):
    """A task's."""

    result: str
    input_tokens: int
    output_tokens: int
    usage: dict[str, int]
    finished_at: float
    stop_reason: str


encode = msgspec.json.Encoder().encode


def main_writes(task: str, text: str, began_at: float) -> tuple[str, ...]:
    """Task id, result, usage record."""
    return task, encode({"output": text}).decode(), '{"input_tokens":1}'


def all_writes(task: str, text: str, began_at: float) -> tuple[str, ...]:
    """Task id, result, content chunk, final chunk, usage record, journal entry."""
    record = Record(f"{task}:0:0", task, "scripted", "replay", USED, "completed", began_at, 0, 0)
    told = {"usage": USED, "cost_usd": None, "stop_reason": "end_turn"}
    written = (
        Result(text, **USED, usage=USED, finished_at=time.time(), stop_reason="end_turn"),
        Chunk(task, 0, "CONTENT", text),
        Chunk(task, 1, "DONE", metadata=told, is_final=True),
        record,
        Entry("model_call", "reference", 0, 0, record),
    )
    return task, *(encode(value).decode() for value in written)


WRITES = {"main": main_writes, "all": all_writes}


class Loop:
    """One connection reads, one commits."""

    def __init__(self, url: str, variant: str, concurrency: int) -> None:
        self._reader = redis.from_url(url, socket_timeout=None)
        self._writer = redis.from_url(url, socket_timeout=None)
        self._commit = self._writer.register_script(SCRIPTS[variant])
        self._writes = WRITES[variant]
        self._free = concurrency
        self._freed, self._finished = asyncio.Event(), asyncio.Event()
        self._done: list[tuple[str, ...]] = []

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
        began_at = time.time()
        result = await JOBS[job](text)
        self._done.append(self._writes(entry, result, began_at))
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
        await Loop(url, variant, concurrency).run()

    protocol.run_worker(run())


if __name__ == "__main__":
    protocol.main(Producer, work)
