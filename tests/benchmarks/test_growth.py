"""Nothing on the hot path grows with the queue's depth or with what has ended: counted, not timed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable

import pytest
import redis

import queue_backends
from providers import register
from providers.scripted import ScriptedProvider
from queue_backends import Ack, Backend, ChunkBatch, ChunkDraft, ChunkType, Task, TaskResult
from tests.benchmarks.meter import GREETINGS, Work, between, read
from tests.benchmarks.remains import leave
from tests.servers import Server
from worker.assembly import open_worker
from worker.client import Fleet
from worker.settings import load_settings

BATCH = 100
BATCHES = 4
MANY = 50_000
MOST_IDLE_COMMANDS_PER_S = 25
WITHIN_S = 30.0
UNBOUNDED = {"KEYS", "SCAN", "HGETALL", "HKEYS", "HVALS", "HSCAN", "SMEMBERS", "SSCAN", "ZSCAN", "SORT", "XINFO"}
ONE_TEXT, DONE = ChunkDraft(type=ChunkType.CONTENT, content="hello"), ChunkDraft(type=ChunkType.DONE, is_final=True)


@pytest.fixture
def client(valkey_server: Server) -> redis.Redis:
    """A look at the server from outside."""
    return redis.Redis(port=valkey_server.port)


@pytest.fixture
async def backend(queue_url: str) -> AsyncIterator[Backend]:
    """A fresh queue."""
    async with await queue_backends.open_backend(queue_url) as opened:
        yield opened


async def _fill(backend: Backend, count: int) -> None:
    for first in range(0, count, 5_000):
        await backend.queue.submit_many([Task(prompt="hello")] * min(5_000, count - first))


async def _one_batch(backend: Backend) -> None:
    """What a worker does with a hundred tasks: pull, renew, publish, commit."""
    deliveries = await backend.queue.pull(BATCH, 5.0)
    assert len(deliveries) == BATCH
    assert await backend.queue.renew(deliveries) == []
    assert await backend.chunks.publish([ChunkBatch(delivery=each, chunks=(ONE_TEXT,)) for each in deliveries]) == []
    outcomes = [
        Ack(delivery=each, result=TaskResult(task_id=each.task.id, output="done", finished_at=1.0), chunks=(DONE,))
        for each in deliveries
    ]
    assert await backend.commit(outcomes) == []


async def _cost(backend: Backend, client: redis.Redis) -> Work:
    """Of the cheapest of several batches: in a dearer one, somebody had a look for expired leases, as is due now and
    then by the clock."""
    found = []
    for _ in range(BATCHES):
        before = read(client)
        await _one_batch(backend)
        found.append(between(before, read(client)))
    return min(found, key=lambda work: (work.commands, work.bytes_in))


def _same(few: Work, many: Work) -> None:
    assert _without_greetings(many) == _without_greetings(few)
    assert many.bytes_in == pytest.approx(few.bytes_in, rel=0.05, abs=200)  # ids have a digit more or less
    assert many.bytes_out == pytest.approx(few.bytes_out, rel=0.05, abs=200)


def _without_greetings(work: Work) -> dict[str, int]:
    """A connection more or less is no matter of the queue's length."""
    return {name: count for name, count in work.calls.items() if name not in GREETINGS}


async def test_a_task_costs_the_same_commands_in_a_long_queue(backend: Backend, client: redis.Redis) -> None:
    """With 10 tasks behind it and with 50,000: the same commands, inside scripts too, and as many bytes."""
    await _fill(backend, BATCH * BATCHES + 10)
    few = await _cost(backend, client)
    await _fill(backend, BATCH * BATCHES + MANY)
    _same(few, await _cost(backend, client))


async def test_a_task_costs_the_same_commands_after_many_others(
    backend: Backend, client: redis.Redis, stream: str
) -> None:
    """With no ended task before it and with the results, streams, journals and records of 50,000."""
    await _fill(backend, 2 * BATCH * BATCHES)
    few = await _cost(backend, client)
    leave(client, MANY, queue=stream)
    _same(few, await _cost(backend, client))


async def test_the_queues_figures_cost_the_same_in_a_long_queue(backend: Backend, client: redis.Redis) -> None:
    """What dashboards and scalers ask for, again and again, is bounded too."""

    async def asked() -> Work:
        await backend.queue.stats()  # connections are there from now on
        before = read(client)
        await backend.queue.stats()
        return between(before, read(client))

    await _fill(backend, 10)
    few = await asked()
    await _fill(backend, MANY)
    _same(few, await asked())


def _settings() -> dict[str, object]:
    register("scripted", ScriptedProvider)
    return {"agent.model": "scripted", "agent.provider": "scripted", "backend.lease_s": 2.0}


async def test_an_idle_worker_sends_few_commands(backend: Backend, client: redis.Redis) -> None:
    """It blocks instead of asking; what it sends all the same is bounded by time."""
    async with open_worker(load_settings({}, file=None, overrides=_settings()), backend):
        await asyncio.sleep(0.5)
        before, began = read(client), time.monotonic()
        await asyncio.sleep(1.5)
        work, seconds = between(before, read(client)), time.monotonic() - began
    assert work.commands <= MOST_IDLE_COMMANDS_PER_S * seconds + 20


async def test_what_a_worker_reads_is_bounded(backend: Backend, client: redis.Redis, stream: str) -> None:
    """Each command of a run's life, inside scripts too, that could read a range has a limit or names one entry. What a
    worker reads once, when it starts, is another matter."""
    async with open_worker(load_settings({}, file=None, overrides=_settings()), backend):
        with client.monitor() as monitor:
            fleet = Fleet(backend)
            tasks = [await fleet.submit("hello") for _ in range(20)]
            for task in tasks:
                await task.result(timeout_s=WITHIN_S)
            client.echo("all has been said")
            said = _until(monitor.next_command, "all has been said")
    ours = [line for line in said if stream in line]
    assert len(ours) > 100
    assert [line for line in ours if not _is_bounded(line)] == []


def _until(next_command: Callable[[], dict[str, str]], end: str) -> list[str]:
    lines: list[str] = []
    while end not in (line := next_command()["command"]):
        lines.append(line)
    return lines


def _is_bounded(line: str) -> bool:
    """Whether a command reads a number of items that does not grow with what is kept."""
    name, _, rest = line.partition(" ")
    words = rest.split()
    match name.upper():
        case "XRANGE" | "XREVRANGE":
            return "COUNT" in words or words[1] == words[2]
        case "XREADGROUP":
            return "COUNT" in words
        case "XPENDING":
            return len(words) > 4 and re.fullmatch(r"\d+", words[-1 if words[-1].isdigit() else -2]) is not None
        case "ZRANGEBYSCORE":
            return "LIMIT" in words
        case "ZRANGE" | "LRANGE":
            return int(words[2]) - int(words[1]) in range(1_000)
        case other:
            return other not in UNBOUNDED


@pytest.mark.parametrize(
    ("line", "bounded"),
    [
        ("XRANGE q - +", False),
        ("XRANGE q 1-0 1-0", True),
        ("xrange q - + COUNT 5", True),
        ("ZRANGE z 0 -1", False),
        ("ZRANGE z 0 0 WITHSCORES", True),
        ("ZRANGEBYSCORE z -inf 5", False),
        ("HGETALL h", False),
        ("XPENDING q g IDLE 100 - + 600", True),
    ],
)
def test_the_judge_of_commands_can_tell(line: str, bounded: bool) -> None:
    """It finds what reads everything."""
    assert _is_bounded(line) is bounded
