"""`StateStore`: keys, logs, counters and windows."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from queue_backends.conformance.support import (
    PATIENCE_S,
    Conformance,
    OpenBackend,
    background,
    eventually,
    iterating,
    unique,
    within,
)
from queue_backends.interfaces import Backend, LogPage, LogRecord, StateChange, StateStore

_BINARY = bytes(range(256)) + b"\r\n\x00\xff"
_ODD_KEYS = ("", "a", "a*b", "a?b", "a[b]", "a\\b", "{a}:b", "ü/世界", "with space", "line\nbreak", "x" * 500)


def _record(record_id: str, *, log: str = "log", keep_s: float = 60.0, amount: int = 1) -> LogRecord:
    return LogRecord(log=log, id=record_id, value=record_id.encode(), keep_s=keep_s, counters={"sums": {"n": amount}})


async def _next_change(changes: AsyncIterator[StateChange], prefix: str) -> StateChange:
    async for change in changes:
        if not change.key.startswith(f"{prefix}ready"):
            return change
    raise AssertionError("watch() ended")


async def _until_watching(backend: Backend, changes: AsyncIterator[StateChange], prefix: str) -> None:
    """Return when the watch has begun, which only a change that arrives can tell."""
    async with background(anext(changes)) as first, asyncio.timeout(PATIENCE_S):
        while not first.done():
            await backend.state.set(f"{prefix}ready", b"")
            await asyncio.wait([first], timeout=0.1)


class KeyConformance(Conformance):
    """Keys with a lifetime."""

    async def test_set_get_delete(self, open_backend: OpenBackend) -> None:
        """What one process sets another one reads, until it is deleted."""
        one, other = await open_backend(), await open_backend()
        assert await one.state.get("key") is None
        await one.state.set("key", b"value")
        assert await other.state.get("key") == b"value"
        await other.state.set("key", b"")
        assert await one.state.get("key") == b""
        assert await one.state.delete("key")
        assert not await other.state.delete("key")
        assert await other.state.get("key") is None

    @pytest.mark.parametrize("key", _ODD_KEYS, ids=range(len(_ODD_KEYS)))
    async def test_any_key_and_any_bytes(self, open_backend: OpenBackend, key: str) -> None:
        """Keys are any text, values any bytes."""
        backend = await open_backend()
        await backend.state.set(key, _BINARY)
        assert await backend.state.get(key) == _BINARY
        assert await backend.state.compare_and_set(key, _BINARY, b"\xff\x00")
        assert await backend.state.get(key) == b"\xff\x00"

    async def test_a_key_with_a_lifetime_disappears(self, open_backend: OpenBackend) -> None:
        """After `ttl_s` the key is absent; one that was set again without it stays."""
        backend = await open_backend()
        await backend.state.set("brief", b"1", ttl_s=0.1)
        await backend.state.set("kept", b"1", ttl_s=0.1)
        await backend.state.set("kept", b"2")
        assert await backend.state.compare_and_set("compared", None, b"1", ttl_s=0.1)

        async def are_gone() -> bool:
            return [await backend.state.get(key) for key in ("brief", "compared")] == [None, None]

        await eventually(are_gone)
        assert await backend.state.get("kept") == b"2"
        assert not await backend.state.delete("brief")
        assert [key async for key, _ in backend.state.scan("")] == ["kept"]

    async def test_compare_and_set(self, open_backend: OpenBackend) -> None:
        """It sets, replaces and deletes only what is as expected; absent is not empty."""
        state = (await open_backend()).state
        assert not await state.compare_and_set("key", b"", b"x")
        assert await state.compare_and_set("key", None, b"")
        assert not await state.compare_and_set("key", None, b"x")
        assert not await state.compare_and_set("key", b"x", b"y")
        assert await state.compare_and_set("key", b"", b"1")
        assert await state.get("key") == b"1"
        assert not await state.compare_and_set("key", b"2", None)
        assert await state.compare_and_set("key", b"1", None)
        assert await state.get("key") is None

    async def test_one_of_many_wins(self, open_backend: OpenBackend) -> None:
        """Of many that compare and set at once, exactly one does; a counter built on it loses nothing."""
        backends = [await open_backend() for _ in range(4)]
        won = await asyncio.gather(*(backends[n % 4].state.compare_and_set("lock", None, b"%d" % n) for n in range(40)))
        assert won.count(True) == 1
        assert await backends[0].state.get("lock") == b"%d" % won.index(True)

        async def add_five(backend: Backend) -> None:
            for _ in range(5):
                while True:
                    before = await backend.state.get("sum")
                    if await backend.state.compare_and_set("sum", before, b"%d" % (int(before or b"0") + 1)):
                        break

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(add_five(backend) for backend in backends))
        assert await backends[0].state.get("sum") == b"20"

    async def test_scan(self, open_backend: OpenBackend) -> None:
        """A scan finds the keys that begin with just these characters, each once, with their values."""
        backend = await open_backend()
        for key in _ODD_KEYS:
            await backend.state.set(key, _BINARY + key.encode())
        for prefix in (*_ODD_KEYS, "no such"):
            found = [pair async for pair in backend.state.scan(prefix)]
            assert sorted(found) == sorted((key, _BINARY + key.encode()) for key in _ODD_KEYS if key.startswith(prefix))

    async def test_scan_of_many(self, open_backend: OpenBackend) -> None:
        """A scan finds all of thousands, and nothing that belongs to other parts of the store."""
        backend = await open_backend()
        for start in range(0, 2000, 200):
            await asyncio.gather(*(backend.state.set(f"k:{n}", b"%d" % n) for n in range(start, start + 200)))
        await backend.state.append_once([_record("1", log="k:log")])
        await backend.state.add("k:counter", "f", 1)
        found = [pair async for pair in backend.state.scan("k:")]
        assert sorted(found) == sorted((f"k:{n}", b"%d" % n) for n in range(2000))

    async def test_hundreds_of_calls_at_once(self, open_backend: OpenBackend) -> None:
        """A process may have any number of calls on their way: none is refused for want of a connection."""
        state = (await open_backend()).state
        await asyncio.gather(*(state.add("set", str(n % 3), 1, limit=1000) for n in range(600)))
        assert await state.counters("set") == {"0": 200, "1": 200, "2": 200}

    async def test_watch(self, open_backend: OpenBackend) -> None:
        """Whoever watches a prefix sees its changes, in order, by whatever call and process, and no others."""
        watcher, writer = await open_backend(), await open_backend()
        async with iterating(watcher.state.watch("w:")) as changes:
            await _until_watching(writer, changes, "w:")
            await writer.state.set("other", b"x")
            await writer.state.set("w:1", _BINARY)
            await watcher.state.set("w:1", b"", ttl_s=60)
            assert await writer.state.compare_and_set("w:1", b"", b"2")
            assert not await writer.state.compare_and_set("w:1", b"", b"3")
            assert await writer.state.compare_and_set("w:1", b"2", None)
            await writer.state.set("w:2", b"4")
            await writer.state.delete("w:2")
            seen = [await within(_next_change(changes, "w:")) for _ in range(6)]
        values = [("w:1", _BINARY), ("w:1", b""), ("w:1", b"2"), ("w:1", None), ("w:2", b"4"), ("w:2", None)]
        assert [(change.key, change.value) for change in seen] == values

    async def test_watch_of_any_prefix(self, open_backend: OpenBackend) -> None:
        """A prefix is any beginning of a key, whether or not it ends where a part of the key does."""
        watcher, writer = await open_backend(), await open_backend()
        async with iterating(watcher.state.watch("fam")) as changes:
            await _until_watching(writer, changes, "fam")
            for key in ("fam", "fam:1", "family", "family:1", "fa:m"):
                await writer.state.set(key, key.encode())
            await writer.state.delete("fam:1")
            seen = [await within(_next_change(changes, "fam")) for _ in range(5)]
        assert sorted(change.key for change in seen) == ["fam", "fam:1", "fam:1", "family", "family:1"]


class LogConformance(Conformance):
    """Logs that take each record once."""

    async def test_a_record_is_appended_once(self, open_backend: OpenBackend) -> None:
        """A known id changes nothing, in this call or a later one, and its counters are added once."""
        one, other = await open_backend(), await open_backend()
        assert await one.state.append_once([_record("a"), _record("b", amount=10), _record("a")]) == 2
        assert await other.state.append_once([_record("b", amount=10), _record("c", amount=-4)]) == 1
        assert await other.state.append_once([_record("a")]) == 0
        assert await other.state.append_once([]) == 0
        assert [(entry.id, entry.value) for entry in await one.state.read_log("log")] == [
            ("a", b"a"),
            ("b", b"b"),
            ("c", b"c"),
        ]
        assert await one.state.counters("sums") == {"n": 7}

    async def test_at_the_same_time_too(self, open_backend: OpenBackend) -> None:
        """Of many that append the same record at once, one does."""
        backends = [await open_backend() for _ in range(4)]
        added = await asyncio.gather(*(backends[n % 4].state.append_once([_record(str(n % 5))]) for n in range(40)))
        assert sum(added) == 5
        assert await backends[0].state.counters("sums") == {"n": 5}

    async def test_the_same_id_in_two_logs(self, open_backend: OpenBackend) -> None:
        """Logs are separate."""
        state = (await open_backend()).state
        assert await state.append_once([_record("a", log="one"), _record("a", log="two")]) == 2
        assert [entry.id for entry in await state.read_log("two")] == ["a"]
        assert await state.read_log("three") == []

    async def test_several_counters_of_one_record(self, open_backend: OpenBackend) -> None:
        """A record adds to all of its counter sets and fields, however large the amounts."""
        state = (await open_backend()).state
        counters = {"per day": {"tokens": 2**40, "calls": 1}, "per tenant:ü": {"tokens": 2**40}}
        for number in range(2):
            record = LogRecord(log="log", id=str(number), value=_BINARY, keep_s=60, counters=counters)
            assert await state.append_once([record]) == 1
        assert await state.counters("per day") == {"tokens": 2**41, "calls": 2}
        assert await state.counters("per tenant:ü") == {"tokens": 2**41}
        assert [entry.value for entry in await state.read_log("log")] == [_BINARY, _BINARY]

    async def test_order_and_limit(self, open_backend: OpenBackend) -> None:
        """Records are read in the order they came, or newest first, up to the limit."""
        state = (await open_backend()).state
        before = time.time()
        names = [f"{number:03}" for number in range(120)]
        for name in names:
            await state.append_once([_record(name)])
        assert [entry.id for entry in await state.read_log("log", limit=200)] == names
        assert [entry.id for entry in await state.read_log("log")] == names[:100]
        newest = await state.read_log("log", limit=3, newest_first=True)
        assert [entry.id for entry in newest] == ["119", "118", "117"]
        assert newest[0].at == pytest.approx(before, abs=60)

    async def test_order_within_one_call(self, open_backend: OpenBackend) -> None:
        """Records of one call keep the order of the call, whatever their ids."""
        state = (await open_backend()).state
        names = ["t:2", "t:10", "t:1", "z", "a"]
        await state.append_once([_record(name) for name in names])
        assert [entry.id for entry in await state.read_log("log")] == names

    async def test_reading_on(self, open_backend: OpenBackend) -> None:
        """Page by page a reader gets every record once, those that came meanwhile too, and nothing twice."""
        writer, reader = (await open_backend()).state, (await open_backend()).state
        names = [f"{number:03}" for number in range(25)]
        await writer.append_once([_record(name) for name in names[:10]])
        seen, cursor = await _read_on(reader, "", 10)
        await writer.append_once([_record(name) for name in names[10:]])
        rest, cursor = await _read_on(reader, cursor, 15)
        assert seen + rest == names
        assert await reader.read_on("log", cursor) == LogPage(cursor=cursor)
        await writer.append_once([_record("last")])
        assert (await _read_on(reader, cursor, 1))[0] == ["last"]
        assert (await _read_on(reader, "", 26))[0] == [*names, "last"]

    async def test_reading_on_while_many_write(self, open_backend: OpenBackend) -> None:
        """However writes of several workers fall, a reader that goes on and on misses none."""
        writers = [await open_backend() for _ in range(3)]
        reader = (await open_backend()).state

        async def write(number: int) -> None:
            for each in range(20):
                await writers[number].state.append_once([_record(f"{number}:{each}")])

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(write(number))
            seen, _ = await _read_on(reader, "", 60)
        assert sorted(seen) == sorted(f"{number}:{each}" for number in range(3) for each in range(20))

    async def test_logs_are_forgotten_in_time(self, open_backend: OpenBackend) -> None:
        """A log without new records disappears after `keep_s`; others stay."""
        state = (await open_backend()).state
        await state.append_once([_record("a", log="brief", keep_s=0.2), _record("b", log="long")])

        async def is_gone() -> bool:
            return await state.read_log("brief") == []

        await eventually(is_gone)
        assert [entry.id for entry in await state.read_log("long")] == ["b"]

    async def test_delete_log(self, open_backend: OpenBackend) -> None:
        """Every process finds a deleted log empty, others stay, and what is appended later begins it anew."""
        one, other = await open_backend(), await open_backend()
        await one.state.append_once([_record("a"), _record("b", log="kept"), _record("c")])
        await other.state.delete_log("log")
        await other.state.delete_log("never")

        async def is_gone() -> bool:
            return await one.state.read_log("log") == []

        await eventually(is_gone)
        assert [entry.id for entry in await one.state.read_log("kept")] == ["b"]
        await one.state.append_once([_record("a"), _record("d")])
        assert [entry.id for entry in await other.state.read_log("log")] == ["a", "d"]
        assert (await _read_on(other.state, "", 2))[0] == ["a", "d"]


async def _read_on(state: StateStore, cursor: str, count: int) -> tuple[list[str], str]:
    """The next `count` ids after a cursor, in pages of seven, as soon as they are there."""
    seen: list[str] = []

    async def are_there() -> bool:
        nonlocal cursor
        page = await state.read_on("log", cursor, limit=7)
        seen.extend(entry.id for entry in page.entries)
        cursor = page.cursor
        return len(seen) >= count

    await eventually(are_there)
    return seen, cursor


class CounterConformance(Conformance):
    """Counters with limits, and rolling windows."""

    async def test_add(self, open_backend: OpenBackend) -> None:
        """Amounts of any sign add up, per field."""
        one, other = await open_backend(), await open_backend()
        assert await one.state.add("set", "a", 5) == 5
        assert await other.state.add("set", "a", -7) == -2
        assert await other.state.add("set", "b", 2**50) == 2**50
        assert await one.state.counters("set") == {"a": -2, "b": 2**50}
        assert await one.state.counters("other") == {}

    async def test_add_within_a_limit(self, open_backend: OpenBackend) -> None:
        """What would exceed the limit changes nothing; exactly the limit is allowed."""
        state = (await open_backend()).state
        assert await state.add("set", "a", 3, limit=5) == 3
        assert await state.add("set", "a", 3, limit=5) is None
        assert await state.add("set", "a", 2, limit=5) == 5
        assert await state.add("set", "a", 1, limit=0) is None
        assert await state.add("set", "a", -5, limit=5) == 0
        assert await state.counters("set") == {"a": 0}
        assert await state.add("set", "new", 1, limit=0) is None

    async def test_a_hundred_share_a_limit(self, open_backend: OpenBackend) -> None:
        """Concurrent callers cannot overshoot, and none is refused while there is room."""
        backends = [await open_backend() for _ in range(4)]
        found = await asyncio.gather(*(backends[n % 4].state.add("set", "a", 1, limit=30) for n in range(100)))
        assert sorted(value for value in found if value is not None) == list(range(1, 31))
        assert await backends[0].state.counters("set") == {"a": 30}

    async def test_a_counter_with_a_lifetime_disappears(self, open_backend: OpenBackend) -> None:
        """After `ttl_s` without another add, it counts from zero again."""
        state = (await open_backend()).state
        await state.add("set", "a", 5, ttl_s=0.1)

        async def is_gone() -> bool:
            return await state.counters("set") == {}

        await eventually(is_gone)
        assert await state.add("set", "a", 1) == 1

    async def test_a_window_sums_its_members(self, open_backend: OpenBackend) -> None:
        """Amounts add up over processes; the same member counts once."""
        one, other = await open_backend(), await open_backend()
        name = unique("window")
        assert await one.state.window_total(name, window_s=60) == 0
        await one.state.window_add(name, "task-1", 10, window_s=60)
        await one.state.window_add(name, "task:2", 5, window_s=60)
        await other.state.window_add(name, "task-1", 10, window_s=60)
        assert await other.state.window_total(name, window_s=60) == 15
        assert await other.state.window_total(unique("window"), window_s=60) == 0

    async def test_a_window_rolls(self, open_backend: OpenBackend) -> None:
        """What is older than the window is not counted any more."""
        state = (await open_backend()).state
        name = unique("window")
        await state.window_add(name, "old", 10, window_s=0.2)

        async def is_over() -> bool:
            return await state.window_total(name, window_s=0.2) == 0

        await eventually(is_over)
        await state.window_add(name, "new", 3, window_s=60)
        assert await state.window_total(name, window_s=60) == 3


class StateConformance(KeyConformance, LogConformance, CounterConformance):
    """Every promise of `StateStore`."""
