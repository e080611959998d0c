"""`StateStore` on JetStream: keys, logs, counters and windows as records of the queue's stream."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext

from queue_backends.errors import BackendUnavailable
from queue_backends.interfaces import LogEntry, LogPage, LogRecord, StateChange
from queue_backends.nats.counting import KEY, SHARED, Counting, key_header, name_of, once_each_record, summed
from queue_backends.nats.ledger import Ledger, Stored, stored_of
from queue_backends.nats.listening import Listeners
from queue_backends.nats.refusals import Conflict
from queue_backends.nats.repeating import pauses, until_as_expected
from queue_backends.nats.subjects import MOST_TOKENS, key_tokens, token, untoken
from queue_backends.nats.writes import MOST_PER_BATCH, Write

DELETED = "Shoal-Deleted"
"""The header of a record that says that a key is gone; it goes itself after a second."""
WINDOW = "Shoal-Window"
RETRY_S = 0.5
FOR_EVER_S = 3600.0
LOCKS = 64


class NatsState:
    """`StateStore` on one stream. Lifetimes are whole seconds, rounded up."""

    def __init__(self, ledger: Ledger, counting: Counting, listeners: Listeners) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._counting = counting
        self._listeners = listeners
        self._locks = [asyncio.Lock() for _ in range(LOCKS)]

    async def get(self, key: str) -> bytes | None:
        """The key's value, or None."""
        return _value(await self._ledger.last(self._subjects.key(key)))

    async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Set a key."""
        await self._ledger.write(self._write(key, value, None, ttl_s))

    def _write(self, key: str, value: bytes | None, expected: int | None, ttl_s: float | None) -> Write:
        headers = _key_header(key)
        if value is None:
            return Write(self._subjects.key(key), b"", expected, ttl_s=1.0, headers={**headers, DELETED: "1"})
        return Write(self._subjects.key(key), value, expected, ttl_s=ttl_s, headers=headers)

    async def delete(self, key: str) -> bool:
        """Delete a key."""

        async def attempt() -> bool:
            stored = await self._ledger.last(self._subjects.key(key), fresh=True)
            if stored is None or _value(stored) is None:
                return False
            await self._ledger.write(self._write(key, None, stored.revision, None))
            return True

        return await until_as_expected(attempt, f"delete of key {key!r}")

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, *, ttl_s: float | None = None
    ) -> bool:
        """Change the key only if it is as `expected`."""

        async def attempt() -> bool:
            stored = await self._ledger.last(self._subjects.key(key), fresh=True)
            if _value(stored) != expected:
                return False
            if value is None and stored is None:
                return True
            await self._ledger.write(self._write(key, value, stored.revision if stored else 0, ttl_s))
            return True

        async with self._lock(key):
            return await until_as_expected(attempt, f"compare and set of key {key!r}")

    def _lock(self, name: str) -> asyncio.Lock:
        """Callers of one process who change the same thing take turns: they would only refuse each other."""
        return self._locks[hash(name) % LOCKS]

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        """Keys that begin with `prefix`. One that is set during the scan may come twice over; it is given once."""
        seen: set[str] = set()
        async for stored in self._ledger.every(self._subjects.keys(prefix)):
            key, value = self._key_of(stored), _value(stored)
            if value is not None and key.startswith(prefix) and key not in seen:
                seen.add(key)
                yield key, value

    def _key_of(self, stored: Stored) -> str:
        if (found := stored.headers.get(KEY)) is not None:
            return untoken(found)
        encoded = stored.subject.removeprefix(f"{self._subjects.root}.a.kv.")
        return "".join(untoken(part.removeprefix("_")) for part in encoded.split("."))

    async def watch(self, prefix: str) -> AsyncIterator[StateChange]:
        """Changes from now on; after a lost connection, first what each key is now."""
        async with self._listeners.listen(self._subjects.live_of(self._subjects.keys(prefix))) as inbox:
            while not inbox.closed:
                message = await inbox.get(FOR_EVER_S)
                if message is not None:
                    stored = stored_of(message)
                    if (key := self._key_of(stored)).startswith(prefix):
                        yield StateChange(key=key, value=_value(stored))
                elif inbox.missed:
                    inbox.missed = False
                    try:
                        present = [pair async for pair in self.scan(prefix)]
                    except BackendUnavailable:
                        await asyncio.sleep(RETRY_S)
                        inbox.missed = True
                        continue
                    for key, value in present:
                        yield StateChange(key=key, value=value)

    async def append_once(self, records: Sequence[LogRecord]) -> int:
        """Append and count new records, up to some hundreds in one step."""
        added = 0
        rest = once_each_record(records)
        while rest:
            part = _fitting(rest)
            added += await self._append(part)
            rest = rest[len(part) :]
        return added

    async def _append(self, records: Sequence[LogRecord]) -> int:
        for pause_s in pauses():
            counts = any(record.counters for record in records)
            async with self._counting.gate if counts else nullcontext():
                try:
                    writes = await self._counting.writes(records)
                    self._counting.wrote(writes, await self._ledger.write_all(writes))
                except Conflict:
                    self._counting.doubt()
                except BaseException:
                    self._counting.doubt()
                    raise
                else:
                    return len(records)
            records = await self._counting.unknown(records)
            if not records:
                return 0
            await asyncio.sleep(pause_s)
        raise BackendUnavailable("records could not be appended: others kept changing the same counters; try again")

    async def read_log(self, log: str, *, limit: int = 100, newest_first: bool = False) -> list[LogEntry]:
        """Records in order of arrival."""
        subject = self._subjects.logs(log)
        if newest_first:
            found = await self._ledger.newest(subject, limit)
        else:
            found = []
            async for stored in self._ledger.every(subject):
                found.append(stored)
                if len(found) >= limit:
                    break
        return [_entry(stored) for stored in found[:limit]]

    async def read_on(self, log: str, cursor: str = "", *, limit: int = 1000) -> LogPage:
        """The cursor is the last record's sequence number in the stream."""
        found = await self._ledger.first(self._subjects.logs(log), limit, start=int(cursor or 0) + 1)
        if not found:
            return LogPage(cursor=cursor)
        return LogPage(entries=tuple(map(_entry, found)), cursor=str(found[-1].revision))

    async def delete_log(self, log: str) -> None:
        """Forget all records of a log."""
        await self._ledger.purge(self._subjects.logs(log))

    async def counters(self, name: str) -> dict[str, int]:
        """All fields of a counter set."""
        return summed(await self._cells(self._subjects.counter(name, "*", "*")))

    async def _cells(self, subject: str) -> dict[str, list[int]]:
        cells: defaultdict[str, list[int]] = defaultdict(list)
        async for stored in self._ledger.every(subject):
            cells[name_of(stored, stored.subject.rsplit(".", 2)[1])].append(int(stored.data))
        return cells

    async def add(
        self, name: str, field: str, amount: int, *, limit: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        """Add within the limit."""
        own = self._subjects.counter(name, field, SHARED)

        async def attempt() -> int | None:
            shards = await self._ledger.last_of([self._subjects.counter(name, field, "*")])
            mine = shards.get(own)
            total = sum(int(stored.data) for stored in shards.values()) + amount
            if limit is not None and total > limit:
                return None
            value = (int(mine.data) if mine else 0) + amount
            expected = mine.revision if mine else 0
            await self._ledger.write(Write(own, b"%d" % value, expected, ttl_s=ttl_s, headers=key_header(field)))
            return total

        async with self._lock(own):
            return await until_as_expected(attempt, f"add to counter {name!r}, {field!r}")

    async def window_add(self, name: str, member: str, amount: int, *, window_s: float) -> None:
        """Note an amount; the same member and amount count once."""
        noted = hashlib.sha256(f"{member}:{amount}".encode()).hexdigest()[:32]
        try:
            await self._ledger.write(
                Write(
                    self._subjects.window(name, noted),
                    b"%d" % amount,
                    expected=0,
                    ttl_s=window_s,
                    headers={WINDOW: repr(window_s)},
                )
            )
        except Conflict:
            return

    async def window_total(self, name: str, *, window_s: float) -> int:
        """Sum what is young enough."""
        now = self._ledger.now()
        total = 0
        async for stored in self._ledger.every(self._subjects.window(name, "*")):
            if stored.at >= now - min(window_s, float(stored.headers.get(WINDOW, window_s))):
                total += int(stored.data)
        return total

    async def close(self) -> None:
        """End all watches."""
        self._listeners.close()


def _value(stored: Stored | None) -> bytes | None:
    return None if stored is None or DELETED in stored.headers else stored.data


def _key_header(key: str) -> dict[str, str]:
    """The whole key, where its subject does not tell it."""
    is_plain = all(part.startswith("_") for part in key_tokens(key)) and key.count(":") + key.count("/") < MOST_TOKENS
    return {} if is_plain else {KEY: token(key)}


def _fitting(records: Sequence[LogRecord]) -> Sequence[LogRecord]:
    """As many of the first records as one batch takes."""
    size = 0
    for position, record in enumerate(records):
        size += 1 + sum(len(added) for added in record.counters.values())
        if position and size > MOST_PER_BATCH:
            return records[:position]
    return records


def _entry(stored: Stored) -> LogEntry:
    return LogEntry(id=name_of(stored, stored.name), value=stored.data, at=stored.at)
