"""Many outcomes in one script call: each is looked at by itself, though they share the commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from queue_backends import Ack, Backend, Checkpoint, Delivery, LogRecord, Priority, QueueError, TaskResult, open_backend
from queue_backends.conformance.support import FINAL, all_chunks, contents, pull_some, submit, text
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.wire import fence_of
from tests.servers import Server

LANES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


@pytest.fixture
async def raw(valkey_server: Server) -> AsyncIterator[Any]:
    """An operator's own connection."""
    client = redis.asyncio.Redis.from_url(valkey_server.url())
    yield client
    await client.aclose()


@pytest.fixture
async def backend(queue_url: str) -> AsyncIterator[Backend]:
    async with await open_backend(queue_url) as opened:
        yield opened


def _ended(delivery: Delivery, *, log: str = "usage") -> Ack:
    record = LogRecord(
        log=log,
        id=delivery.task.id,
        value=delivery.task.id.encode(),
        keep_s=60,
        counters={"day": (amounts := {"calls": 1, "tokens": 5}), "model": amounts, "index": {"day": 1, "model": 1}},
    )
    result = TaskResult(task_id=delivery.task.id, output=delivery.task.prompt)
    return Ack(delivery=delivery, result=result, chunks=(text("said"), FINAL), records=(record,))


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["as they came", "the other way round"])
async def test_each_fence_is_looked_at_by_itself(order: slice, raw: Any, backend: Backend, stream: str) -> None:
    """Given deliveries of all lanes, when some of them were claimed by somebody else, by their own holder again, or
    acknowledged by an operator, then just these are refused, in whatever order they end."""
    for number in range(18):
        await submit(backend, f"task {number}", priority=LANES[number % 3])
    deliveries = await pull_some(backend, 18)
    lanes = Keys(stream).lanes
    taken = [deliveries[position] for position in (1, 4, 8, 11, 13, 16)]
    for number, delivery in enumerate(taken):
        fence = fence_of(delivery)
        lane = lanes[fence.lane - 1]
        if number % 3 == 0:
            await raw.xclaim(lane, GROUP, "somebody-else", 0, [fence.entry])
        elif number % 3 == 1:
            await raw.xclaim(lane, GROUP, fence.consumer, 0, [fence.entry])
        else:
            await raw.xack(lane, GROUP, fence.entry)
    outcomes = [_ended(delivery) for delivery in deliveries][order]

    lost = await backend.commit(outcomes)

    gone = {delivery.task.id for delivery in taken}
    assert {outcome.delivery.task.id for outcome in lost} == gone
    written = [delivery for delivery in deliveries if delivery.task.id not in gone]
    results = await backend.queue.results([delivery.task.id for delivery in deliveries])
    assert [result.output for result in results if result is not None] == [each.task.prompt for each in written]
    for delivery in written:
        assert contents(await all_chunks(backend, delivery.task.id)) == ["said"]
    assert [entry.id for entry in await backend.state.read_log("usage")] == [
        outcome.delivery.task.id for outcome in outcomes if outcome not in lost
    ]
    assert await backend.state.counters("day") == {"calls": 12, "tokens": 60}
    assert await backend.state.counters("model") == {"calls": 12, "tokens": 60}
    assert await backend.state.counters("index") == {"day": 12, "model": 12}


async def test_counter_sets_that_overlap_are_added_up(backend: Backend) -> None:
    """Records that share some of their counter sets and not others count in each of them."""
    for name in ("one", "two"):
        await submit(backend, name)
    first, second = await pull_some(backend, 2)
    steps = [
        Checkpoint(
            delivery=delivery,
            records=tuple(
                LogRecord(
                    log="usage",
                    id=f"{name}/{number}",
                    value=b"\xff\x00no text",
                    keep_s=60,
                    counters={"day": (amounts := {"calls": number}), f"agent:{name}": amounts},
                )
                for number in (1, 2)
            ),
        )
        for name, delivery in (("one", first), ("two", second))
    ]
    assert await backend.commit(steps) == []
    assert await backend.commit(steps) == []
    assert await backend.state.counters("day") == {"calls": 6}
    assert await backend.state.counters("agent:one") == {"calls": 3}
    assert await backend.state.counters("agent:two") == {"calls": 3}
    log = await backend.state.read_log("usage")
    assert [entry.id for entry in log] == ["one/1", "one/2", "two/1", "two/2"]
    assert {entry.value for entry in log} == {b"\xff\x00no text"}


async def test_a_stream_that_is_none_takes_no_count_from_others(raw: Any, backend: Backend, stream: str) -> None:
    """One task's stream is a key of another type: the call fails, and the others, written singly, are counted."""
    for number in range(6):
        await submit(backend, f"task {number}")
    deliveries = await pull_some(backend, 6)
    await raw.set(Keys(stream).chunks(deliveries[3].task.id), "I am no stream")
    outcomes = [_ended(delivery) for delivery in deliveries]
    with pytest.raises(QueueError, match="WRONGTYPE"):
        await backend.commit(outcomes)
    for position, outcome in enumerate(outcomes):
        if position != 3:
            assert await backend.commit([outcome]) == []
    assert await backend.state.counters("day") == {"calls": 5, "tokens": 25}


async def test_more_records_than_a_script_passes_on_at_once(backend: Backend) -> None:
    """Thousands of records of one log go in one step, in their order."""
    count = {"c": {"n": 1}}
    records = [LogRecord(log="long", id=f"{n:05}", value=b"v", keep_s=60, counters=count) for n in range(9000)]
    assert await backend.state.append_once(records) == 9000
    log = await backend.state.read_log("long", limit=10_000)
    assert [entry.id for entry in log] == [record.id for record in records]
    assert await backend.state.counters("c") == {"n": 9000}
