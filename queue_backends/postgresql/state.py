"""`StateStore` on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.interfaces import LogEntry, LogPage, LogRecord, StateChange
from queue_backends.postgresql.channels import Channel, channel_name, pack_change
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.listening import Hub
from queue_backends.postgresql.names import key_of, label_of, name_of
from queue_backends.postgresql.writing import Writer

WATCH_RECHECK_S = 3600.0
RETRY_S = 0.5
PAGE = 500
WINDOW_OUTLIVES_S = 3600.0


class PostgresqlState:
    """Keys, logs, counters and windows of one queue. Whoever changes a key says so in the same transaction, so that
    watchers hear of changes in their order."""

    def __init__(self, connections: Connections, queue_id: int, hub: Hub, writer: Writer) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._hub = hub
        self._writer = writer
        self._channel = channel_name(connections.address.schema, queue_id, Channel.STATE)

    async def _rows(self, statement: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        return await self._connections.execute(statement, {"queue": self._queue_id, **parameters})

    async def get(self, key: str) -> bytes | None:
        """The key's value, or None."""
        rows = await self._rows("get_key", key=key_of(key))
        return rows[0][0] if rows else None

    async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Set a key and tell watchers."""
        await self._rows("set_key", **self._change(key, value, ttl_s))

    async def delete(self, key: str) -> bool:
        """Delete a key and tell watchers."""
        rows = await self._rows("delete_key", key=key_of(key), channel=self._channel, change=pack_change(key, None))
        return bool(rows[0][0])

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, *, ttl_s: float | None = None
    ) -> bool:
        """Change the key only if it is as `expected`."""
        if value is None:
            if expected is None:
                return await self.get(key) is None
            change = pack_change(key, None)
            return bool(
                await self._rows(
                    "delete_key_if", key=key_of(key), expected=expected, channel=self._channel, change=change
                )
            )
        if expected is None:
            return bool(await self._rows("make_key", **self._change(key, value, ttl_s)))
        return bool(await self._rows("replace_key", expected=expected, **self._change(key, value, ttl_s)))

    def _change(self, key: str, value: bytes, ttl_s: float | None) -> dict[str, Any]:
        return {
            "key": key_of(key),
            "label": label_of(key),
            "value": value,
            "ttl": None if ttl_s is None else float(ttl_s),
            "channel": self._channel,
            "change": pack_change(key, value),
        }

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        """Keys that begin with `prefix`, a page at a time."""
        start = key_of(prefix) if label_of(prefix) is None else prefix.encode()[:_COMPARED]
        after: bytes | None = None
        while True:
            rows = await self._rows("scan_keys", prefix=start, size=len(start), after=after, limit=PAGE)
            for key, label, value in rows:
                name = name_of(key, label)
                if name.startswith(prefix):
                    yield name, value
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    async def watch(self, prefix: str) -> AsyncIterator[StateChange]:
        """Changes as they are announced; after a gap, present values again."""
        async with self._hub.listen(Channel.STATE) as inbox:
            await inbox.get(0)  # the first listener's own first gap: nothing was missed yet
            while True:
                heard: Any = await inbox.get(WATCH_RECHECK_S)
                if inbox.closed:
                    return
                try:
                    if heard is None or (heard[0] == "" and not heard[2]):
                        async for key, value in self.scan(prefix):
                            yield StateChange(key=key, value=value)
                        continue
                    key, value, is_whole = heard
                    if key.startswith(prefix):
                        yield StateChange(key=key, value=value if is_whole else await self.get(key))
                except BackendUnavailable:  # gone again: all values are read once it is back
                    await asyncio.sleep(RETRY_S)
                    inbox.put(None)

    async def append_once(self, records: Sequence[LogRecord]) -> int:
        """Append and count new records."""
        return await self._writer.append(records) if records else 0

    async def read_log(self, log: str, *, limit: int = 100, newest_first: bool = False) -> list[LogEntry]:
        """Records in order of arrival."""
        rows = await self._rows("read_log_newest" if newest_first else "read_log", log=key_of(log), limit=limit)
        return [LogEntry(id=name_of(key, label), value=value, at=at) for key, label, value, at in rows]

    async def read_on(self, log: str, cursor: str = "", *, limit: int = 1000) -> LogPage:
        """The cursor is the last record's transaction and position: records are given once every older transaction has
        ended, because one that is still open may commit a record of an earlier position."""
        transaction, _, position = cursor.partition(".")
        rows = await self._rows(
            "read_on", log=key_of(log), transaction=transaction or "0", position=int(position or 0), limit=limit
        )
        entries = tuple(LogEntry(id=name_of(key, label), value=value, at=at) for *_, key, label, value, at in rows)
        return LogPage(entries=entries, cursor=f"{rows[-1][0]}.{rows[-1][1]}" if rows else cursor)

    async def delete_log(self, log: str) -> None:
        """Forget all records of a log."""
        await self._rows("delete_log", log=key_of(log))

    async def counters(self, name: str) -> dict[str, int]:
        """All fields of a counter set."""
        rows = await self._rows("counters", name=key_of(name))
        return {name_of(field, label): amount for field, label, amount in rows}

    async def add(
        self, name: str, field: str, amount: int, *, limit: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        """Add within the limit."""
        if not -_LARGEST <= amount < _LARGEST:
            raise QueueError(f"{amount} is too much for counter {field!r} of {name!r}")
        rows = await self._rows(
            "add",
            name=key_of(name),
            field=key_of(field),
            label=label_of(field),
            amount=amount,
            limit=limit,
            ttl=None if ttl_s is None else float(ttl_s),
        )
        return rows[0][0] if rows else None

    async def window_add(self, name: str, member: str, amount: int, *, window_s: float) -> None:
        """Note an amount."""
        await self._rows(
            "window_add",
            name=key_of(name),
            member=key_of(f"{member}:{amount}"),
            amount=amount,
            keep=float(window_s + WINDOW_OUTLIVES_S),
        )

    async def window_total(self, name: str, *, window_s: float) -> int:
        """Sum what is young enough."""
        ((total,),) = await self._rows("window_total", name=key_of(name), window=float(window_s))
        return int(total)

    async def close(self) -> None:
        """The connection belongs to the backend."""
        return


_COMPARED = 900
"""Bytes of a name that its key begins with, however long it is."""
_LARGEST = 2**63
