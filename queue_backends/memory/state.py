"""`StateStore` in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from itertools import takewhile

from queue_backends.interfaces import LogEntry, LogPage, LogRecord, StateChange
from queue_backends.memory.store import Store


class MemoryState:
    """`StateStore` on a `Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers = store.watchers

    async def get(self, key: str) -> bytes | None:
        """The key's value, or None."""
        return self._peek(key)

    def _peek(self, key: str) -> bytes | None:
        value, expires_at = self._store.values.get(key, (None, None))
        if expires_at is not None and expires_at <= time.monotonic():
            del self._store.values[key]
            return None
        return value

    async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Set a key."""
        self._put(key, value, ttl_s)

    def _put(self, key: str, value: bytes | None, ttl_s: float | None) -> None:
        if value is None:
            self._store.values.pop(key, None)
        else:
            self._store.values[key] = (value, time.monotonic() + ttl_s if ttl_s is not None else None)
        for watcher in self._watchers:
            watcher.put_nowait(StateChange(key=key, value=value))

    async def delete(self, key: str) -> bool:
        """Delete a key."""
        was_there = self._peek(key) is not None
        self._put(key, None, None)
        return was_there

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, *, ttl_s: float | None = None
    ) -> bool:
        """Change the key only if it is as `expected`."""
        if self._peek(key) != expected:
            return False
        self._put(key, value, ttl_s)
        return True

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        """Keys that begin with `prefix`."""
        for key in list(self._store.values):
            if key.startswith(prefix) and (value := self._peek(key)) is not None:
                yield key, value

    async def watch(self, prefix: str) -> AsyncIterator[StateChange]:
        """Changes from now on."""
        changes: asyncio.Queue[StateChange] = asyncio.Queue()
        self._watchers.add(changes)
        try:
            while True:
                change = await changes.get()
                if change.key.startswith(prefix):
                    yield change
        finally:
            self._watchers.discard(changes)

    async def append_once(self, records: Sequence[LogRecord]) -> int:
        """Append and count new records."""
        return sum(self._append(record) for record in records)

    def _append(self, record: LogRecord) -> bool:
        log, now = self._store.live_log(record.log), time.time()
        if record.id in log:
            return False
        log[record.id] = LogEntry(id=record.id, value=record.value, at=now)
        for name in list(takewhile(lambda name: log[name].at <= now - record.keep_s, log)):
            del log[name]
        self._store.keep("log", record.log, record.keep_s)
        for set_name, amounts in record.counters.items():
            counters = self._store.live_counters(set_name)
            self._store.keep("counters", set_name, record.keep_s)
            for field, amount in amounts.items():
                counters[field] = counters.get(field, 0) + amount
        return True

    async def read_log(self, log: str, *, limit: int = 100, newest_first: bool = False) -> list[LogEntry]:
        """Records in order of arrival."""
        entries = list(self._store.live_log(log).values())
        return (entries[::-1] if newest_first else entries)[:limit]

    async def read_on(self, log: str, cursor: str = "", *, limit: int = 1000) -> LogPage:
        """The cursor is the last record's id; if that is gone, so are all before it."""
        names = list(entries := self._store.live_log(log))
        start = names.index(cursor) + 1 if cursor in entries else 0
        page = tuple(entries[name] for name in names[start : start + limit])
        return LogPage(entries=page, cursor=page[-1].id if page else cursor)

    async def delete_log(self, log: str) -> None:
        """Forget all records of a log."""
        self._store.live_log(log).clear()

    async def counters(self, name: str) -> dict[str, int]:
        """All fields of a counter set."""
        return dict(self._store.live_counters(name))

    async def add(
        self, name: str, field: str, amount: int, *, limit: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        """Add within the limit."""
        counters = self._store.live_counters(name)
        total = counters.get(field, 0) + amount
        if limit is not None and total > limit:
            return None
        counters[field] = total
        if ttl_s is not None:
            self._store.keep("counters", name, ttl_s)
        return total

    async def window_add(self, name: str, member: str, amount: int, *, window_s: float) -> None:
        """Note an amount."""
        self._store.windows.setdefault(name, {}).setdefault(f"{member}:{amount}", (time.time(), amount))

    async def window_total(self, name: str, *, window_s: float) -> int:
        """Sum what is young enough."""
        oldest = time.time() - window_s
        window = {member: noted for member, noted in self._store.windows.get(name, {}).items() if noted[0] >= oldest}
        self._store.windows[name] = window
        return sum(amount for _, amount in window.values())

    async def close(self) -> None:
        """Nothing is held."""
