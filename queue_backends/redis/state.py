"""`StateStore` on Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from queue_backends.errors import BackendUnavailable
from queue_backends.interfaces import LogEntry, LogPage, LogRecord, StateChange
from queue_backends.redis.client import RedisClient
from queue_backends.redis.entries import pairs
from queue_backends.redis.keys import Keys
from queue_backends.redis.listings import Listings, scanned
from queue_backends.redis.pubsub import PubSubHub
from queue_backends.redis.records import RecordPacker
from queue_backends.redis.wire import CallTable

WATCH_RECHECK_S = 3600.0
RETRY_S = 0.5
LONGEST_ANNOUNCED = 16_384
"""Bytes. A longer value is not sent to every watcher of every key: those whom it concerns read it."""


class RedisState:
    """Keys, logs, counters and windows under `{q}:state:`."""

    def __init__(self, client: RedisClient, keys: Keys, hub: PubSubHub) -> None:
        self._client = client
        self._keys = keys
        self._hub = hub
        self._listings = Listings(client, keys)

    async def get(self, key: str) -> bytes | None:
        """The key's value, or None."""
        value: bytes | None = await self._client.command("GET", self._keys.kv(key))
        return value

    async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Set a key and tell watchers."""
        name = self._keys.kv(key)
        lifetime = ("PX", _ms(ttl_s)) if ttl_s is not None else ()
        await self._client.pipeline(
            [
                ("SET", name, value, *lifetime),
                *self._listings.added(key),
                *self._announced(key, value),
            ],
            transaction=True,
        )

    async def delete(self, key: str) -> bool:
        """Delete a key and tell watchers."""
        deleted, *_ = await self._client.pipeline(
            [
                ("DEL", self._keys.kv(key)),
                *self._listings.removed(key),
                *self._announced(key, None),
            ],
            transaction=True,
        )
        return bool(deleted)

    def _announced(self, key: str, value: bytes | None) -> list[tuple[str, str, bytes]]:
        """To those who watch all keys, and to those who watch the key's family."""
        change = _announcement(key, value)
        channels = (self._keys.changes, self._keys.family_changes(key))
        return [("PUBLISH", channel, change) for channel in channels if channel]

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, *, ttl_s: float | None = None
    ) -> bool:
        """Change the key only if it is as `expected`."""
        listing = self._keys.listing(key)
        changed = await self._client.script(
            "compare_and_set",
            [self._keys.kv(key), *([listing] if listing else [])],
            [
                int(expected is not None),
                expected or b"",
                int(value is not None),
                value or b"",
                _ms(ttl_s) if ttl_s is not None else 0,
                self._keys.changes,
                key,
                LONGEST_ANNOUNCED,
                self._keys.family_changes(key),
            ],
        )
        return bool(changed)

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        """Keys that begin with `prefix`, each once. Only those of families with a list are found without a look at all
        keys of the database."""
        is_listed = bool(self._keys.listing(prefix))
        pages = self._listings.pages(prefix) if is_listed else scanned(self._client, self._keys, prefix)
        seen = set[str]()
        async for page in pages:
            fresh = [name for name in dict.fromkeys(page) if name not in seen]
            seen.update(fresh)
            values = await self._client.command("MGET", *map(self._keys.kv, fresh)) if fresh else []
            expired = [name for name, value in zip(fresh, values, strict=True) if value is None]
            if expired and is_listed:
                await self._listings.forget_expired(expired)
            for name, value in zip(fresh, values, strict=True):
                if value is not None:
                    yield name, value

    async def watch(self, prefix: str) -> AsyncIterator[StateChange]:
        """Changes as they are announced; after a gap, present values again."""
        async with self._hub.listen(self._keys.family_changes(prefix) or self._keys.changes) as inbox:
            await inbox.get(0)  # the subscription's own first gap: nothing was missed yet
            while True:
                message = await inbox.get(WATCH_RECHECK_S)
                if inbox.closed:
                    return
                try:
                    if message is None:
                        async for key, value in self.scan(prefix):
                            yield StateChange(key=key, value=value)
                        continue
                    heard = _heard(message)
                    if not heard.key.startswith(prefix):
                        continue
                    present = heard.value if heard.is_whole else await self.get(heard.key)
                    yield StateChange(key=heard.key, value=present)
                except BackendUnavailable:  # gone again: all values are read once it is back
                    await asyncio.sleep(RETRY_S)
                    inbox.mark_gap()

    async def append_once(self, records: Sequence[LogRecord]) -> int:
        """Append and count new records."""
        table = CallTable()
        packer = RecordPacker(table, self._keys)
        items: list[Any] = []
        packer.pack(items, records)
        payload = packer.tallies, len(records), items
        added: int = await self._client.script("append", table.names, table.arguments(payload))
        return added

    async def read_log(self, log: str, *, limit: int = 100, newest_first: bool = False) -> list[LogEntry]:
        """Records in order of arrival."""
        verb = "ZREVRANGE" if newest_first else "ZRANGE"
        index, entries = await self._look(log, (verb, self._keys.log_index(log), 0, limit - 1, "WITHSCORES"))
        return list(entries if index else entries[:limit])

    async def read_on(self, log: str, cursor: str = "", *, limit: int = 1000) -> LogPage:
        """The cursor is the last record's place in the index, which no two records of a log share."""
        after = f"({cursor}" if cursor else "-inf"
        index, entries = await self._look(
            log, ("ZRANGEBYSCORE", self._keys.log_index(log), after, "+inf", "WITHSCORES", "LIMIT", 0, limit)
        )
        if index:
            return LogPage(entries=entries, cursor=index[-1].decode())
        for entry in entries:  # one that is nothing but this: its place is its time
            if not cursor or float(cursor) < round(entry.at * 1000):
                return LogPage(entries=entries, cursor=str(round(entry.at * 1000)))
        return LogPage(cursor=cursor)

    async def _look(self, log: str, command: tuple[str | int, ...]) -> tuple[list[bytes], tuple[LogEntry, ...]]:
        """What a command finds in a log's index, and the records. Without an index the log may be nothing but its last
        record: then that one."""
        index = await self._client.command(*command)
        if not index:
            # In this order, because it may grow meanwhile. MGET takes what is no text for nothing.
            (whole,), index = await self._client.pipeline([("MGET", self._keys.log(log)), command])
            if whole is not None and not index:
                return [], (_only_entry(whole),)
        return index, await self._entries(log, index) if index else ()

    async def _entries(self, log: str, index: list[bytes]) -> tuple[LogEntry, ...]:
        values = await self._client.command("HMGET", self._keys.log(log), *index[::2])
        return tuple(
            LogEntry(id=name.decode(), value=value, at=float(ms) / 1000)
            for (name, ms), value in zip(pairs(index), values, strict=True)
            if value is not None
        )

    async def delete_log(self, log: str) -> None:
        """Forget all records of a log."""
        await self._client.pipeline(
            [("DEL", self._keys.log(log)), ("DEL", self._keys.log_index(log))], transaction=True
        )

    async def counters(self, name: str) -> dict[str, int]:
        """All fields of a counter set."""
        found = await self._client.command("HGETALL", self._keys.counters(name))
        return {field.decode(): int(amount) for field, amount in pairs(found)}

    async def add(
        self, name: str, field: str, amount: int, *, limit: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        """Add within the limit."""
        result: int | None = await self._client.script(
            "add",
            [self._keys.counters(name)],
            [field, amount, int(limit is not None), limit or 0, _ms(ttl_s) if ttl_s is not None else 0],
        )
        return result

    async def window_add(self, name: str, member: str, amount: int, *, window_s: float) -> None:
        """ark's rolling window: a sorted set of `<member>:<amount>` by time, which outlives its window by an hour."""
        now_s = time.time()  # ark's own clients use their clock too
        await self._client.pipeline(
            [
                ("ZADD", name, "NX", round(now_s * 1000), f"{member}:{amount}"),
                ("PEXPIRE", name, _ms(window_s + 3600)),
            ],
            transaction=True,
        )

    async def window_total(self, name: str, *, window_s: float) -> int:
        """Sum what is young enough."""
        oldest_ms = round((time.time() - window_s) * 1000)
        _, members = await self._client.pipeline(
            [("ZREMRANGEBYSCORE", name, "-inf", f"({oldest_ms}"), ("ZRANGE", name, 0, -1)], transaction=True
        )
        return sum(_amount(member) for member in members)

    async def close(self) -> None:
        """The connection belongs to the backend."""
        return


class _Heard(NamedTuple):
    """A change as it was announced."""

    key: str
    value: bytes | None
    is_whole: bool
    """Otherwise the value is too long to be sent along."""


def _announcement(key: str, value: bytes | None) -> bytes:
    """A change on the wire: `+` or `-`, the key's length in bytes, a colon, the key, the value; or `?` and no value."""
    name = key.encode()
    sign = b"-" if value is None else b"?" if len(value) > LONGEST_ANNOUNCED else b"+"
    return b"%b%d:%b%b" % (sign, len(name), name, value if value is not None and sign == b"+" else b"")


def _heard(message: bytes) -> _Heard:
    head, _, rest = message.partition(b":")
    sign, length = head[:1], int(head[1:])
    return _Heard(
        key=rest[:length].decode(),
        value=rest[length:] if sign == b"+" else None,
        is_whole=sign != b"?",
    )


def _only_entry(whole: bytes) -> LogEntry:
    """The record of a log that is nothing but its last: see `append_whole` in the prelude."""
    at_ms, length, rest = whole.split(b" ", 2)
    return LogEntry(id=rest[: int(length)].decode(), value=rest[int(length) :], at=int(at_ms) / 1000)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _amount(member: bytes) -> int:
    text = member.rpartition(b":")[2]
    return int(text) if text.lstrip(b"-").isdigit() else 0
