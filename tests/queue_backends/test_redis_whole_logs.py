"""A log that is nothing but its last record is one text; others are hash and index, as older versions wrote all."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from queue_backends import (
    Ack,
    Backend,
    Delivery,
    LogRecord,
    QueueError,
    Retry,
    StateStore,
    TaskResult,
    open_backend,
)
from queue_backends.conformance.support import pull_some, submit
from queue_backends.redis.keys import Keys
from tests.servers import Server

VALUE = b'two words\n\x00\xff{"a": 1}'


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


def _record(
    log: str, name: str = "call/0/0", *, is_last: bool = True, keep_s: float = 60, value: bytes = VALUE
) -> LogRecord:
    return LogRecord(
        log=log,
        id=name,
        value=value,
        keep_s=keep_s,
        counters={"sums": {"calls": 1, "bytes": len(value)}},
        is_last=is_last,
    )


async def _deliveries(backend: Backend, count: int) -> list[Delivery]:
    for number in range(count):
        await submit(backend, f"task {number}")
    return await pull_some(backend, count)


def _acks(deliveries: list[Delivery], *records: LogRecord) -> list[Ack]:
    return [
        Ack(delivery=each, result=TaskResult(task_id=each.task.id, output="done"), records=(record,))
        for each, record in zip(deliveries, records, strict=True)
    ]


async def _ended(backend: Backend, *records: LogRecord) -> None:
    """Tasks end, each with one of the records."""
    assert await backend.commit(_acks(await _deliveries(backend, len(records)), *records)) == []


async def _types(raw: Any, stream: str, log: str) -> tuple[bytes, bytes]:
    keys = Keys(stream)
    return await raw.type(keys.log(log)), await raw.type(keys.log_index(log))


async def _ids(state: StateStore, log: str) -> list[str]:
    return [entry.id for entry in await state.read_log(log)]


async def test_one_text_is_all_there_is(raw: Any, backend: Backend, stream: str) -> None:
    """Given a task that ends with the only record of its log, then the log is one key that expires, and is read in all
    ways as any other; for those that have it already, ending again changes nothing."""
    await _ended(backend, _record("one", "ein Name mit 9 ü\n"))
    assert await _types(raw, stream, "one") == (b"string", b"none")
    assert 50_000 < await raw.pttl(Keys(stream).log("one")) <= 60_000
    server_s, _ = await raw.time()
    for newest_first in (False, True):
        (entry,) = await backend.state.read_log("one", newest_first=newest_first)
        assert (entry.id, entry.value) == ("ein Name mit 9 ü\n", VALUE)
        assert math.isclose(entry.at, server_s, abs_tol=30)
    page = await backend.state.read_on("one")
    assert [each.value for each in page.entries] == [VALUE]
    assert await backend.state.read_on("one", page.cursor) == type(page)(cursor=page.cursor)
    assert await backend.state.append_once([_record("one", "ein Name mit 9 ü\n", value=b"other")]) == 0
    assert [each.value for each in await backend.state.read_log("one")] == [VALUE]
    assert await backend.state.counters("sums") == {"calls": 1, "bytes": len(VALUE)}


async def test_it_can_grow_all_the_same(raw: Any, backend: Backend, stream: str) -> None:
    """Given such a log, when more comes, by `append_once` or with another task's end, then it stands behind, a reader
    who has read the first goes on from there, and the log lives as long as its newest record asks."""
    await _ended(backend, _record("one"), _record("two"))
    cursor = (await backend.state.read_on("one")).cursor
    assert await backend.state.append_once([_record("one", "a", is_last=False, keep_s=600)]) == 1
    await _ended(backend, _record("two", "a", keep_s=600))
    for log in ("one", "two"):
        assert await _types(raw, stream, log) == (b"hash", b"zset")
        assert await _ids(backend.state, log) == ["call/0/0", "a"]
        assert [entry.value for entry in await backend.state.read_log(log)] == [VALUE, VALUE]
        for key in (Keys(stream).log(log), Keys(stream).log_index(log)):
            assert 500_000 < await raw.pttl(key) <= 600_000
    assert [entry.id for entry in (await backend.state.read_on("one", cursor)).entries] == ["a"]
    assert await backend.state.counters("sums") == {"calls": 4, "bytes": 4 * len(VALUE)}


async def test_a_repetition_does_not_make_it_stay(raw: Any, backend: Backend, stream: str) -> None:
    """A record that the log has already changes neither what it holds nor how long it lives."""
    await _ended(backend, _record("one"))
    assert await backend.state.append_once([_record("one", is_last=False, keep_s=600)]) == 0
    for key in await raw.keys(f"{stream}:state:log*"):
        assert 0 < await raw.pttl(key) <= 60_000
    assert await _ids(backend.state, "one") == ["call/0/0"]


async def test_what_an_operator_has_made_to_stay(raw: Any, backend: Backend, stream: str) -> None:
    """Given such a log that does not expire, because somebody wanted it so or restored it, when its record comes again,
    then it is still there."""
    await _ended(backend, _record("one"))
    await raw.persist(Keys(stream).log("one"))
    assert await backend.state.append_once([_record("one", is_last=False)]) == 0
    assert await _ids(backend.state, "one") == ["call/0/0"]


async def test_only_what_is_new_says_how_long(raw: Any, backend: Backend, stream: str) -> None:
    """Given a record that is kept long and one that the log has already, in one call, then the log is kept long."""
    keys, old = Keys(stream), _record("one", is_last=False)
    await backend.state.append_once([old])
    assert await backend.state.append_once([_record("one", "a", is_last=False, keep_s=600), old]) == 1
    for key in (keys.log("one"), keys.log_index("one")):
        assert 500_000 < await raw.pttl(key) <= 600_000


@pytest.mark.parametrize("foreign", ["list", "text"])
async def test_what_is_no_log_stops_nobody_half_way(raw: Any, backend: Backend, stream: str, foreign: str) -> None:
    """Given a key of another kind where a log should be, then what cannot be written there ends as it would without the
    others of its call, and those end with all that belongs to them, once."""
    name = Keys(stream).log("bad")
    await (raw.rpush(name, "x") if foreign == "list" else raw.set(name, "x"))
    retried, bad, good = await _deliveries(backend, 3)
    outcomes = [
        Retry(delivery=retried, error="again", records=(_record("usage", "1"),)),
        *_acks([bad, good], _record("bad"), _record("usage", "2")),
    ]
    with pytest.raises(QueueError):
        await backend.commit(outcomes)
    assert await backend.queue.results([good.task.id]) == [None]
    assert await backend.state.counters("sums") == {}
    for outcome in (outcomes[0], outcomes[2], Ack(delivery=bad, result=TaskResult(task_id=bad.task.id))):
        assert await backend.commit([outcome]) == []
    assert await _ids(backend.state, "usage") == ["1", "2"]
    assert await backend.state.counters("sums") == {"calls": 2, "bytes": 2 * len(VALUE)}
    stats = await backend.queue.stats()
    assert (stats.ready, stats.running) == (1, 0)


async def test_what_older_versions_wrote(raw: Any, backend: Backend, stream: str) -> None:
    """Given a log of a version that knows no texts, a hash and its index, then it is read, and what ends it goes in."""
    keys = Keys(stream)
    await raw.hset(keys.log("old"), mapping={"a": b"1", "b": b"2"})
    await raw.zadd(keys.log_index("old"), {"b": 1_700_000_000_000.001, "a": 1_700_000_000_000})
    assert await _ids(backend.state, "old") == ["a", "b"]
    await _ended(backend, _record("old", "b", value=b"other"), _record("old", "c", keep_s=10**9))
    assert [(entry.id, entry.value) for entry in await backend.state.read_log("old")] == [
        ("a", b"1"),
        ("b", b"2"),
        ("c", VALUE),
    ]
    assert await _types(raw, stream, "old") == (b"hash", b"zset")
    assert await backend.state.counters("sums") == {"calls": 1, "bytes": len(VALUE)}


async def test_the_last_of_several_in_one_call(raw: Any, backend: Backend, stream: str) -> None:
    """A log that gets several records in one call keeps all of them, in their order, whichever says that it ends."""
    for log, lasts in (("first", (True, False)), ("second", (False, True)), ("both", (True, True))):
        (delivery,) = await _deliveries(backend, 1)
        records = tuple(_record(log, f"{number}", is_last=is_last) for number, is_last in enumerate(lasts))
        result = TaskResult(task_id=delivery.task.id)
        assert await backend.commit([Ack(delivery=delivery, result=result, records=records)]) == []
        assert await _ids(backend.state, log) == ["0", "1"]
        assert await _types(raw, stream, log) == (b"hash", b"zset")


async def test_only_where_a_task_is_over(raw: Any, backend: Backend, stream: str) -> None:
    """What belongs to a task that comes back, or comes from nowhere, is written so that older versions can go on."""
    (delivery,) = await _deliveries(backend, 1)
    assert await backend.commit([Retry(delivery=delivery, error="again", records=(_record("retried"),))]) == []
    assert await backend.state.append_once([_record("appended")]) == 1
    for log in ("retried", "appended"):
        assert await _types(raw, stream, log) == (b"hash", b"zset")


async def test_it_is_forgotten(raw: Any, backend: Backend) -> None:
    """A deleted log is gone, and begins anew; one with no time to live is not kept."""
    await _ended(backend, _record("one"), _record("brief", keep_s=0.0))
    await backend.state.delete_log("one")
    assert await _ids(backend.state, "one") == []
    assert await _ids(backend.state, "brief") == []
    assert await backend.state.append_once([_record("one", is_last=False)]) == 1
    assert await _ids(backend.state, "one") == ["call/0/0"]


async def test_records_of_any_length(backend: Backend) -> None:
    """Short and long values, text and bytes, alone and among others, are given back as they came."""
    values = [b"", b"s" * 511, b"l" * 512, b"\xff" * 3, bytes(range(256)) * 300, "ü".encode() * 256]
    await _ended(backend, *(_record(f"whole/{number}", value=value) for number, value in enumerate(values)))
    await backend.state.append_once([_record("long", str(number), value=value) for number, value in enumerate(values)])
    for number, value in enumerate(values):
        assert [entry.value for entry in await backend.state.read_log(f"whole/{number}")] == [value]
    assert [entry.value for entry in await backend.state.read_log("long")] == values
