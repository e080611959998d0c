"""The wire, as an ark operator and other raw Redis clients see it: nothing here but redis-py on one side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from queue_backends import (
    Ack,
    Backend,
    BackendOptions,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Dead,
    Delivery,
    Priority,
    Retry,
    Task,
    TaskResult,
    TaskState,
    TokenUsage,
    open_backend,
)
from tests.servers import Server

LIMIT_S = 10


@pytest.fixture
async def raw(valkey_server: Server) -> AsyncIterator[Any]:
    """An operator's own connection."""
    client = redis.asyncio.Redis.from_url(valkey_server.url(), decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def backend(queue_url: str) -> AsyncIterator[Backend]:
    async with await open_backend(queue_url) as opened:
        yield opened


def final(kind: ChunkType = ChunkType.DONE, text: str = "") -> ChunkDraft:
    return ChunkDraft(type=kind, content=text, is_final=True)


def _batch(delivery: Delivery, *chunks: ChunkDraft) -> ChunkBatch:
    return ChunkBatch(delivery=delivery, chunks=chunks)


async def one(backend: Backend) -> Delivery:
    (delivery,) = await backend.queue.pull(1, LIMIT_S)
    return delivery


async def test_plain_entry_from_before_the_first_worker_is_a_task(raw: Any, queue_url: str, stream: str) -> None:
    """`XADD … prompt hi` is all it takes, also when no group exists yet; unknown fields are meta."""
    entry = await raw.xadd(stream, {"prompt": "hi", "run_name": "r1", "traceparent": "00-ab-cd-01"})
    async with await open_backend(queue_url) as backend:
        delivery = await one(backend)
    task = delivery.task
    assert (task.id, task.prompt, task.meta, task.traceparent) == (entry, "hi", {"run_name": "r1"}, "00-ab-cd-01")


async def test_result_is_arks_json_first(raw: Any, backend: Backend, stream: str) -> None:
    """`HGET <queue>-results <id>` begins with ark's fields in ark's order; an acknowledged entry is gone."""
    entry = await raw.xadd(stream, {"prompt": "hi"})
    delivery = await one(backend)
    usage = TokenUsage(input_tokens=12, output_tokens=3)
    result = TaskResult(task_id=entry, output="Hello", usage=usage, artifacts={"b": "2", "a": "1"})
    assert await backend.commit([Ack(delivery=delivery, result=result, chunks=(final(),))]) == []
    text = await raw.hget(f"{stream}-results", entry)
    assert text.startswith('{"result":"Hello","input_tokens":12,"output_tokens":3,"artifacts":{"a":"1","b":"2"}')
    assert await raw.xlen(stream) == 0
    assert (await raw.xpending(stream, "agent-workers"))["pending"] == 0


async def test_stream_key_receives_the_text_and_ends_in_eof(raw: Any, backend: Backend, stream: str) -> None:
    """ark's list: text only, `__EOF__` last, 300 seconds to live."""
    await raw.xadd(stream, {"prompt": "hi", "stream_key": f"chunks:{stream}"})
    delivery = await one(backend)
    text = ChunkDraft(type=ChunkType.CONTENT, content="Hel")
    thought = ChunkDraft(type=ChunkType.THINKING, content="hm")
    await backend.chunks.publish([_batch(delivery, text, thought)])
    more = ChunkDraft(type=ChunkType.CONTENT, content="lo")
    await backend.commit([Ack(delivery=delivery, result=TaskResult(task_id="x"), chunks=(more, final()))])
    assert await raw.lrange(f"chunks:{stream}", 0, -1) == ["Hel", "lo", "__EOF__"]
    assert 0 < await raw.ttl(f"chunks:{stream}") <= 300


async def test_stream_key_that_is_no_list_harms_nobody(raw: Any, backend: Backend, stream: str) -> None:
    """A task names a key of another type: its chunks and its end are written all the same."""
    await raw.set(f"{stream}-text", "I am no list")
    await raw.xadd(stream, {"prompt": "hi", "stream_key": f"{stream}-text"})
    delivery = await one(backend)
    await backend.chunks.publish([_batch(delivery, ChunkDraft(type=ChunkType.CONTENT, content="a"))])
    result = TaskResult(task_id=delivery.task.id, output="a")
    assert await backend.commit([Ack(delivery=delivery, result=result, chunks=(final(),))]) == []
    assert [chunk.content async for chunk in backend.chunks.subscribe(delivery.task.id)] == ["a", ""]
    assert await raw.get(f"{stream}-text") == "I am no list"


async def test_chunks_are_a_channel_and_a_stream_of_the_same_name(raw: Any, backend: Backend, stream: str) -> None:
    """A plain SUBSCRIBE sees each chunk as JSON with rising seq; XRANGE replays the same."""
    entry = await raw.xadd(stream, {"prompt": "hi"})
    delivery = await one(backend)
    name = f"{stream}:chunks:{entry}"
    subscriber = raw.pubsub()
    await subscriber.subscribe(name)
    await subscriber.get_message(timeout=LIMIT_S)
    await backend.chunks.publish([_batch(delivery, ChunkDraft(type=ChunkType.CONTENT, content="héllo"))])
    await backend.commit([Ack(delivery=delivery, result=TaskResult(task_id=entry), chunks=(final(),))])
    live = [json.loads((await subscriber.get_message(timeout=LIMIT_S))["data"]) for _ in range(2)]
    kept = [(entry_id, json.loads(fields["chunk"])) for entry_id, fields in await raw.xrange(name)]
    await subscriber.aclose()
    assert live == [
        {"task_id": entry, "seq": 0, "type": "CONTENT", "content": "héllo"},
        {"task_id": entry, "seq": 1, "type": "DONE", "is_final": True},
    ]
    assert kept == [("1-0", live[0]), ("2-0", live[1])]


async def test_retry_is_a_new_entry_of_the_same_chain(raw: Any, backend: Backend, stream: str) -> None:
    """ark's fields: attempt, original_task_id, all meta; the result stands under the first id."""
    first = await raw.xadd(stream, {"prompt": "hi", "step_name": "s"})
    await backend.commit([Retry(delivery=await one(backend), error="x")])
    ((second, fields),) = await raw.xrange(stream)
    assert second != first
    assert (fields["attempt"], fields["original_task_id"], fields["step_name"]) == ("1", first, "s")
    again = await one(backend)
    assert (again.task.id, again.task.attempt) == (first, 1)
    await backend.queue.ack(again, TaskResult(task_id=again.task.id, output="ok"))
    assert json.loads(await raw.hget(f"{stream}-results", first))["result"] == "ok"


async def test_dead_letter_has_arks_fields(raw: Any, backend: Backend, stream: str) -> None:
    """`<queue>-dead` and the result both tell the error."""
    entry = await raw.xadd(stream, {"prompt": "hi"})
    delivery = await one(backend)
    await backend.commit([Dead(delivery=delivery, result=TaskResult(task_id=entry, error="boom"), chunks=(final(),))])
    fields = {name: await _dead_field(raw, stream, name) for name in ("task_id", "prompt", "error", "attempt")}
    assert fields == {"task_id": entry, "prompt": "hi", "error": "boom", "attempt": "1"}
    stored = json.loads(await raw.hget(f"{stream}-results", entry))
    assert (stored["result"], stored["error"], stored["input_tokens"]) == ("", "boom", 0)


async def test_operators_own_cancel_is_noticed_at_the_next_renewal(raw: Any, backend: Backend, stream: str) -> None:
    """XDEL, XACK, HSET by an ark operator: the lease is lost, and consumers get their final chunk."""
    entry = await raw.xadd(stream, {"prompt": "hi"})
    delivery = await one(backend)
    await backend.chunks.publish([_batch(delivery, ChunkDraft(type=ChunkType.CONTENT, content="a"))])
    await raw.xdel(stream, entry)
    await raw.xack(stream, "agent-workers", entry)
    await raw.hset(
        f"{stream}-results", entry, '{"result":"","error":"run cancelled","input_tokens":0,"output_tokens":0}'
    )
    assert await backend.queue.renew([delivery]) == [delivery]
    chunks = [chunk async for chunk in backend.chunks.subscribe(entry)]
    assert [(chunk.seq, chunk.type, chunk.content) for chunk in chunks] == [
        (0, ChunkType.CONTENT, "a"),
        (1, ChunkType.ERROR, "run cancelled"),
    ]
    late = await backend.commit([Ack(delivery=delivery, result=TaskResult(task_id=entry, output="late"))])
    assert len(late) == 1
    assert (await backend.queue.results([entry]))[0] == TaskResult(task_id=entry, error="run cancelled")


async def test_unreadable_entries_go_to_the_dead_letters(raw: Any, backend: Backend, stream: str) -> None:
    """Garbage never stops the loop: each bad entry has its reason, and the good one behind them is delivered."""
    bad = [
        {"text": "no prompt"},
        {"prompt": "x", "priority": "urgent"},
        {"prompt": "x", "history": "{not json"},
        {"prompt": "x", "attempt": "many"},
        {"prompt": b"\xff\xfe"},
        {"prompt": "  "},
    ]
    ids = [await raw.xadd(stream, fields) for fields in bad]
    good = await raw.xadd(stream, {"prompt": "fine"})
    deliveries = await backend.queue.pull(10, LIMIT_S)
    assert [delivery.task.id for delivery in deliveries] == [good]
    letters = {letter.task_id: letter.error for letter in await backend.queue.dead_letters()}
    assert set(letters) == set(ids)
    assert "no field 'prompt'" in letters[ids[0]]
    assert "urgent" in letters[ids[1]]
    assert all(await backend.queue.results(ids))


async def test_group_that_vanishes_is_made_again_from_the_beginning(raw: Any, backend: Backend, stream: str) -> None:
    """NOGROUP, as after FLUSHALL: what is in the stream is still delivered."""
    await backend.queue.submit(Task(prompt="one"))
    await raw.xgroup_destroy(stream, "agent-workers")
    assert (await one(backend)).task.prompt == "one"


async def test_every_key_of_a_finished_task_has_a_cap_or_a_lifetime(raw: Any, backend: Backend, stream: str) -> None:
    """After the work only capped or expiring keys are left, whatever way each task took."""
    await backend.queue.submit_many(
        [Task(prompt="a", priority=Priority.HIGH, idempotency_key="k"), Task(prompt="b"), Task(prompt="c")]
    )
    await backend.queue.submit(Task(prompt="d"), run_at=1)
    for delivery in await backend.queue.pull(10, LIMIT_S):
        await backend.commit([Retry(delivery=delivery, error="x")])
    for delivery in await backend.queue.pull(10, LIMIT_S):
        result = TaskResult(task_id=delivery.task.id, output="ok")
        await backend.commit([Ack(delivery=delivery, result=result, chunks=(final(),))])
    bounded = {stream, f"{stream}:high", f"{stream}:low"}  # streams that are empty now
    expiring_by_field = {f"{stream}-results", f"{stream}:results-expiry"}
    for key in [key async for key in raw.scan_iter(f"{stream}*")]:
        if key in bounded:
            assert await raw.xlen(key) == 0
        elif key not in expiring_by_field:
            assert await raw.pttl(key) != -1, key  # -2: it has gone by now


async def test_results_disappear_after_their_retention(raw: Any, queue_url: str, stream: str) -> None:
    """Old results are removed by later commits, a bounded number at a time."""
    async with await open_backend(queue_url, BackendOptions(result_retention_s=0.0)) as backend:
        for number in range(3):
            task_id = await backend.queue.submit(Task(prompt=str(number)))
            await backend.queue.ack(await one(backend), TaskResult(task_id=task_id, output="ok"))
            await asyncio.sleep(0.002)  # the server's clock counts milliseconds
        assert await raw.hlen(f"{stream}-results") <= 1
        assert await raw.zcard(f"{stream}:results-expiry") <= 1


async def test_operator_sees_state_of_every_task(backend: Backend) -> None:
    """status() finds a task in each of its places."""
    running_id, ready_id = await backend.queue.submit_many([Task(prompt="r"), Task(prompt="q")])
    delayed_id = await backend.queue.submit(Task(prompt="d"), run_at=4e9)
    await one(backend)
    states = [status.state for status in await backend.queue.status([running_id, ready_id, delayed_id, "1-1", "what"])]
    assert states == [
        TaskState.RUNNING,
        TaskState.READY,
        TaskState.DELAYED,
        TaskState.UNKNOWN,
        TaskState.UNKNOWN,
    ]


async def _dead_field(raw: Any, stream: str, name: str) -> str:
    """One field of the only dead letter; beside ark's fields it has a packed one that is no text."""
    script = """
    local fields = redis.call('XRANGE', KEYS[1], '-', '+')[1][2]
    for i = 1, #fields, 2 do if fields[i] == ARGV[1] then return fields[i + 1] end end"""
    return str(await raw.eval(script, 1, f"{stream}-dead", name))
