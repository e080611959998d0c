"""What an engine tells is read whole, and compared with what its storage says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from queue_backends import Ack, BackendOptions, LogRecord, TaskResult, TokenUsage, open_backend
from queue_backends.conformance.support import FINAL, pull_one, submit, text
from tests.faults.brokers.redis_keys import RedisKeys
from tests.faults.evidence import Told
from tests.faults.reading import read_told, settled
from tests.servers import Server

USAGE = {"usage:day:2026-11-21": {"calls": 1}, "usage:index": {"usage:day:2026-11-21": 1}}
OPTIONS = BackendOptions()


async def _one_task(url: str) -> str:
    """A task that was run, with all that a run leaves."""
    async with await open_backend(url, OPTIONS) as backend:
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        record = LogRecord(log="usage", id=f"{task_id}:0:0", value=b'{"n": 1}', keep_s=999, counters=USAGE)
        usage = TokenUsage(input_tokens=5, output_tokens=7)
        result = TaskResult(task_id=task_id, output="done", usage=usage, finished_at=time.time())
        assert (
            await backend.commit([Ack(delivery=delivery, result=result, chunks=(text("a"), FINAL), records=(record,))])
            == []
        )
        return task_id


async def test_everything_that_an_engine_tells_is_read(queue_url: str) -> None:
    """Result, stream, books; and that nothing is left over."""
    task_id = await _one_task(queue_url)
    assert await settled(queue_url, OPTIONS, [task_id], within_s=5) == []
    told = await read_told(queue_url, OPTIONS, [task_id])
    assert told.results == {task_id: {"result": "done", "error": "", "input_tokens": 5, "output_tokens": 7}}
    assert [chunk.get("content", "") for chunk in told.streams[task_id]] == ["a", ""]
    assert told.ledger == {f"{task_id}:0:0": {"n": 1}}
    assert told.counters == USAGE
    assert not told.letters
    assert not any(told.left_over.values())


async def test_a_task_without_an_end_is_left_over_and_never_settled(queue_url: str) -> None:
    """It has no result, and the queue says that somebody runs it."""
    async with await open_backend(queue_url, OPTIONS) as backend:
        task_id = await submit(backend)
        await pull_one(backend)
        assert await settled(queue_url, OPTIONS, [task_id], within_s=0.3) == [task_id]
        told = await read_told(queue_url, OPTIONS, [task_id], empty_within_s=0.1)
    assert told.results == {}
    assert told.left_over["running tasks"] == 1


def _other_result(server: redis.Redis, queue: str, task_id: str) -> None:
    server.hset(f"{queue}-results", task_id, '{"result":"other"}')


def _one_more_chunk(server: redis.Redis, queue: str, task_id: str) -> None:
    chunk = f'{{"task_id":"{task_id}","seq":2,"type":"CONTENT"}}'
    server.xadd(f"{queue}:chunks:{task_id}", {"chunk": chunk}, id="3-0")


def _misplaced_chunk(server: redis.Redis, queue: str, task_id: str) -> None:
    chunk = f'{{"task_id":"{task_id}","seq":2,"type":"CONTENT"}}'
    server.xadd(f"{queue}:chunks:{task_id}", {"chunk": chunk}, id="9-0")


def _stream_of_nobody(server: redis.Redis, queue: str, task_id: str) -> None:
    server.xadd(f"{queue}:chunks:nobody", {"chunk": '{"task_id":"nobody","seq":0,"type":"CONTENT"}'}, id="1-0")


def _no_stream(server: redis.Redis, queue: str, task_id: str) -> None:
    server.delete(f"{queue}:chunks:{task_id}")


def _counted_again(server: redis.Redis, queue: str, task_id: str) -> None:
    server.hincrby(f"{queue}:state:counters:usage:index", "usage:day:2026-11-21", 1)


def _no_record(server: redis.Redis, queue: str, task_id: str) -> None:
    server.delete(f"{queue}:state:log:usage")


def _letter(server: redis.Redis, queue: str, task_id: str) -> None:
    server.xadd(f"{queue}-dead", {"task_id": task_id, "error": "poison"})


CHANGES: list[tuple[Callable[[redis.Redis, str, str], None], str]] = [
    (_other_result, "result "),
    (_one_more_chunk, "2 were told"),
    (_misplaced_chunk, "wrong place: 9-0"),
    (_stream_of_nobody, "chunks of nobody"),
    (_no_stream, "are not kept"),
    (_counted_again, "counters usage:index"),
    (_no_record, "usage record"),
    (_letter, "dead letters"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[change.__name__.strip("_") for change, _ in CHANGES])
async def test_each_contradiction_is_found(
    change: Callable[[redis.Redis, str, str], None], words: str, queue_url: str, valkey_server: Server, stream: str
) -> None:
    """The keys say what was told; and when one of them is changed, no longer."""
    task_id = await _one_task(queue_url)
    told = await read_told(queue_url, OPTIONS, [task_id])
    with redis.Redis(port=valkey_server.port) as server:
        assert _contradictions(server, stream, told) == []
        change(server, stream, task_id)
        (found, *_) = _contradictions(server, stream, told)
    assert words in found


def _contradictions(server: redis.Redis, stream: str, told: Told) -> list[Any]:
    return list(RedisKeys(server, stream).inside(told).told_otherwise)
