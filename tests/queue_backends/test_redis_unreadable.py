"""Rubbish in a queue's keys on Redis: what cannot be read is put aside with the reason, and the loop goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
import redis.asyncio
from hypothesis import HealthCheck, Phase, event, example, given, seed, settings
from hypothesis import strategies as st

from queue_backends import Backend, BackendOptions, InvalidTask, Task, TaskState, open_backend
from queue_backends.conformance.support import PATIENCE_S, all_chunks, done, pull_nothing, pull_one, submit, text
from queue_backends.interfaces import Ack, CancelOutcome, Delivery, Retry
from queue_backends.redis.entries import delivery_of
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.wire import Fence
from tests.servers import Server

FIELD_NAMES = [name.encode() for name in Task.__struct_fields__] + [b"next_attempt", b"original_task_id", b"unreadable"]
field_names = st.sampled_from(FIELD_NAMES) | st.binary(max_size=12)
field_values = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.integers().map(lambda number: b"%d" % number),
    st.floats().map(lambda number: repr(number).encode()),
    st.sampled_from([b"", b"high", b"[]", b"{}", b"[{}]", b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, "²".encode()]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ).map(lambda value: msgspec.json.encode([value] if value else {"a": value})),
)
entries = st.dictionaries(field_names, field_values, max_size=6)


@pytest.fixture
def keys(stream: str) -> Keys:
    """The queue's keys."""
    return Keys(stream)


@pytest.fixture
async def backend(queue_url: str) -> AsyncIterator[Backend]:
    """A backend on the queue."""
    async with await open_backend(queue_url) as opened:
        yield opened


@pytest.fixture
async def raw(valkey_server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the server, as a foreign program has one."""
    async with redis.asyncio.Redis.from_url(valkey_server.url()) as client:
        yield client


def delivery_from(fields: dict[bytes, bytes]) -> Delivery:
    """What a pull makes of an entry."""
    flat = [part for pair in fields.items() for part in pair]
    return delivery_of(Fence(2, "1-0", "consumer", 1), flat, BackendOptions())


@given(entries)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example({b"prompt": b"x", b"attempt": "²".encode()})
@example({b"prompt": b"x", b"overrides": b'{"a":' * 100_000})
@example({b"unreadable": b"[" * 100_000})
def test_whatever_an_entry_holds_is_a_task_or_has_a_reason(fields: dict[bytes, bytes]) -> None:
    """No entry makes the reader fail in any way but by `InvalidTask`, with a message of bounded length."""
    reason = ""
    try:
        delivery = delivery_from(fields)
    except InvalidTask as error:
        reason = str(error)
        event("refused")
    else:
        event("readable")
        assert delivery.task.prompt.strip() or delivery.task.history
        assert delivery.next_attempt >= 0
    assert len(reason) < 1000


def rubbish(number: int) -> list[tuple[dict[bytes, bytes], int]]:
    """A couple of hundred entries, each with a lane, the same ones for the same number."""
    written: list[tuple[dict[bytes, bytes], int]] = []

    @seed(number)
    @settings(
        max_examples=10, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(st.lists(st.tuples(entries.filter(bool), st.integers(0, 2)), min_size=20, max_size=20))
    def collect(drawn: list[tuple[dict[bytes, bytes], int]]) -> None:
        written.extend(drawn)

    collect()
    return written


@pytest.mark.parametrize("number", range(3))
async def test_no_entry_stops_the_pull(backend: Backend, raw: redis.asyncio.Redis, keys: Keys, number: int) -> None:
    """Of a couple of hundred arbitrary entries on all lanes, each is delivered or a dead letter, none is stuck, and
    those that were delivered can be given back."""
    written = rubbish(number)
    for fields, lane in written:
        await raw.execute_command("XADD", keys.lanes[lane], "*", *(part for pair in fields.items() for part in pair))
    wanted = await submit(backend, "good")
    delivered: list[Delivery] = []
    while not any(delivery.task.id == wanted for delivery in delivered):
        delivered += await backend.queue.pull(50, PATIENCE_S)
    while more := await backend.queue.pull(50, 0):
        delivered += more
    stats = await backend.queue.stats()
    assert (stats.ready, len(delivered) + stats.dead) == (0, len(written) + 1)
    outcomes = [Retry(delivery=delivery, error="x", retry_in_s=3600) for delivery in delivered]
    assert await backend.commit(outcomes) == []
    assert (await backend.queue.stats()).running == 0


@pytest.mark.parametrize("lane", range(3))
async def test_rubbish_on_every_lane(backend: Backend, raw: redis.asyncio.Redis, keys: Keys, lane: int) -> None:
    """Whatever its lane, binary junk in names and values becomes a letter, and the task behind it is delivered."""
    await raw.xadd(keys.lanes[lane], {b"\xff\x00": b"\x80", b"prompt": b"\xc3\x28"})
    task_id = await submit(backend)
    assert (await pull_one(backend)).task.id == task_id
    await pull_nothing(backend)
    (letter,) = await backend.queue.dead_letters()
    assert "UTF-8" in letter.error
    assert [status.state for status in await backend.queue.list_tasks()] == [TaskState.RUNNING, TaskState.FAILED]


@pytest.mark.parametrize(
    ("packed", "word"),
    [
        (b"\xc1 no msgpack", "msgpack"),
        (msgspec.msgpack.encode(7), "msgpack"),
        (msgspec.msgpack.encode(["prompt"]), "msgpack"),
        (msgspec.msgpack.encode(["prompt", ["x"]]), "msgpack"),
        (msgspec.msgpack.encode({"prompt": "x"}), "msgpack"),
        (msgspec.msgpack.encode(["note", "x"]), "prompt"),
        (None, "no longer there"),
    ],
)
async def test_rubbish_among_the_delayed(
    backend: Backend, raw: redis.asyncio.Redis, keys: Keys, packed: bytes | None, word: str
) -> None:
    """A delayed task whose entry is lost or broken becomes a letter when it is due, with a result under its id."""
    await raw.zadd(keys.delayed, {"lost-1": 1})
    if packed is not None:
        await raw.hset(keys.delayed_entries, "lost-1", packed)
    assert (await backend.queue.status(["lost-1"]))[0].state is TaskState.DELAYED
    assert [status.id for status in await backend.queue.list_tasks()] == ["lost-1"]
    task_id = await submit(backend)
    assert (await pull_one(backend)).task.id == task_id
    await pull_nothing(backend)
    (letter,) = await backend.queue.dead_letters()
    assert word in letter.error
    ended = (await backend.queue.results([letter.task_id]))[0]
    assert ended is not None
    assert ended.error == letter.error
    assert await raw.zcard(keys.delayed) == await raw.hlen(keys.delayed_entries) == 0


async def test_a_broken_delayed_task_can_be_cancelled(backend: Backend, raw: redis.asyncio.Redis, keys: Keys) -> None:
    """A cancel ends it, although its entry cannot be read."""
    await raw.zadd(keys.delayed, {"lost-1": 1})
    await raw.hset(keys.delayed_entries, "lost-1", b"\xc1")
    assert await backend.queue.cancel(["lost-1"]) == [CancelOutcome.CANCELLED]
    assert [chunk.is_final for chunk in await all_chunks(backend, "lost-1")] == [True]


async def test_a_stream_key_that_is_no_list(backend: Backend, raw: redis.asyncio.Redis, keys: Keys) -> None:
    """A task may name any key as its list: one of another type is left alone, and the run ends as it should."""
    taken = f"{keys.queue}:string"
    await raw.set(taken, "mine")
    task_id = await submit(backend, stream_key=taken)
    delivery = await pull_one(backend)
    final = text("the end", is_final=True)
    ended = Ack(delivery=delivery, result=done(delivery), chunks=(text("a"), final))
    assert await backend.commit([ended]) == []
    assert len(await all_chunks(backend, task_id)) == 2
    assert await raw.get(taken) == b"mine"
    await raw.xadd(keys.queue, {"stream_key": taken})
    await pull_nothing(backend)
    assert len(await backend.queue.dead_letters()) == 1


@pytest.mark.parametrize("fields", [{"task_id": "1-1"}, {"task_id": "1-1", "prompt": "x", "entry": b"\xc1"}])
async def test_a_letter_that_cannot_run_again_is_kept(
    backend: Backend, raw: redis.asyncio.Redis, keys: Keys, fields: dict[str, bytes | str]
) -> None:
    """Requeueing a letter of which too little is left changes nothing: it is still there to be looked at."""
    await raw.xadd(keys.dead, fields)  # type: ignore[arg-type]  # the driver's types want one kind of value
    (letter,) = await backend.queue.dead_letters()
    assert await backend.queue.requeue([letter.id]) == []
    assert await backend.queue.dead_letters() == [letter]


async def test_ids_that_are_none(backend: Backend) -> None:
    """What is no id is an unknown task or letter, never an error."""
    ids = ["", "-", "no-such", "²-1", "9" * 30, "1-" + "9" * 30, "-5"]
    assert {status.state for status in await backend.queue.status(ids)} == {TaskState.UNKNOWN}
    assert set(await backend.queue.cancel(ids)) == {CancelOutcome.UNKNOWN}
    assert await backend.queue.requeue(ids) == []
    assert await backend.queue.purge(ids) == 0


async def test_a_foreign_result_that_is_no_json(backend: Backend, raw: redis.asyncio.Redis, keys: Keys) -> None:
    """An operator that ended a task with a broken result stops that run, and no other lease is lost by it."""
    await submit(backend, "ended from outside")
    await submit(backend, "goes on")
    outside, other = await pull_one(backend), await pull_one(backend)
    await raw.xack(keys.queue, GROUP, outside.entry_id)
    await raw.xdel(keys.queue, outside.entry_id)
    await raw.hset(keys.results, outside.task.id, b"{broken")
    assert await backend.queue.renew([outside, other]) == [outside]
    assert [chunk.is_final for chunk in await all_chunks(backend, outside.task.id)] == [True]
