"""`StateStore` over partitions: each name has one that it belongs to.

A key, a counter set or a log is in the partition of the task whose id its name holds (`journal/<task id>`), or else in
the one that its hash gives. A record whose own id begins with a task's is in that task's partition: so that it is
written in the step that ends the run, and logs of such records, and their counters, are read from all partitions.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence

import msgspec
import redis.exceptions

from queue_backends.interfaces import LogEntry, LogPage, LogRecord, StateChange
from queue_backends.redis.state import RedisState
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.merging import merged
from queue_backends.redis_cluster.partition import Partition
from queue_backends.redis_cluster.slot_clients import SlotClients

_cursors = msgspec.json.Decoder(list[str])


class ShardedState:
    """Keys, logs, counters and windows on a cluster."""

    def __init__(self, partitions: Sequence[Partition], ids: Ids, clients: SlotClients) -> None:
        self._partitions = partitions
        self._ids = ids
        self._clients = clients

    def home_of(self, record: LogRecord) -> int:
        """The partition that a record belongs to."""
        for text in (record.log, record.id):
            number = self._ids.named_in(text)
            if number is not None:
                return number
        return self._ids.of_key(record.log)

    def _of(self, key: str) -> RedisState:
        return self._partitions[self._home(key)].keys_and_logs

    def _home(self, name: str) -> int:
        number = self._ids.named_in(name)
        return self._ids.of_key(name) if number is None else number

    def _all_of(self, name: str) -> Sequence[Partition]:
        """Where parts of a log or a counter set may be."""
        number = self._ids.named_in(name)
        return self._partitions if number is None else [self._partitions[number]]

    # Keys

    async def get(self, key: str) -> bytes | None:
        """The key's value, or None."""
        return await self._of(key).get(key)

    async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Set a key and tell watchers."""
        await self._of(key).set(key, value, ttl_s=ttl_s)

    async def delete(self, key: str) -> bool:
        """Delete a key and tell watchers."""
        return await self._of(key).delete(key)

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, *, ttl_s: float | None = None
    ) -> bool:
        """Change the key only if it is as `expected`."""
        return await self._of(key).compare_and_set(key, expected, value, ttl_s=ttl_s)

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        """Keys that begin with `prefix`, one partition after the other."""
        for partition in self._partitions:
            async for found in partition.keys_and_logs.scan(prefix):
                yield found

    def watch(self, prefix: str) -> AsyncIterator[StateChange]:
        """Changes in all partitions. Those of one key come in order."""
        return merged([partition.keys_and_logs.watch(prefix) for partition in self._partitions])

    # Logs and counters

    async def append_once(self, records: Sequence[LogRecord]) -> int:
        """Append and count new records: one step per partition."""
        groups: dict[int, list[LogRecord]] = defaultdict(list)
        for record in records:
            groups[self.home_of(record)].append(record)
        added = await asyncio.gather(
            *(self._partitions[number].keys_and_logs.append_once(group) for number, group in groups.items())
        )
        return sum(added)

    async def read_log(self, log: str, *, limit: int = 100, newest_first: bool = False) -> list[LogEntry]:
        """Records in order of arrival; over partitions, by their servers' clocks."""
        pages = await asyncio.gather(
            *(
                partition.keys_and_logs.read_log(log, limit=limit, newest_first=newest_first)
                for partition in self._all_of(log)
            )
        )
        if len(pages) == 1:
            return pages[0]
        return list(heapq.merge(*pages, key=lambda entry: entry.at, reverse=newest_first))[:limit]

    async def read_on(self, log: str, cursor: str = "", *, limit: int = 1000) -> LogPage:
        """Partition by partition in turn, each with a cursor of its own; the order is that of each partition."""
        parts = self._all_of(log)
        cursors = _cursors.decode(cursor) if cursor else [""] * len(parts)
        share = max(1, limit // len(parts))
        pages = await asyncio.gather(
            *(
                partition.keys_and_logs.read_on(log, each, limit=share)
                for partition, each in zip(parts, cursors, strict=True)
            )
        )
        entries = heapq.merge(*(page.entries for page in pages), key=lambda entry: entry.at)
        return LogPage(entries=tuple(entries), cursor=msgspec.json.encode([page.cursor for page in pages]).decode())

    async def delete_log(self, log: str) -> None:
        """Forget all records of a log."""
        await asyncio.gather(*(partition.keys_and_logs.delete_log(log) for partition in self._all_of(log)))

    async def counters(self, name: str) -> dict[str, int]:
        """All fields of a counter set, summed over the partitions."""
        found = await asyncio.gather(*(partition.keys_and_logs.counters(name) for partition in self._all_of(name)))
        totals: Counter[str] = Counter()
        for each in found:
            totals.update(each)
        return dict(totals)

    async def add(
        self, name: str, field: str, amount: int, *, limit: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        """Add within the limit, which is exact among callers of `add`: they share the counter's own partition. What
        records have counted elsewhere is read just before."""
        home = self._partitions[self._home(name)]
        others = [partition for partition in self._all_of(name) if partition is not home]
        elsewhere = sum(await asyncio.gather(*(_count(partition, name, field) for partition in others)))
        here = None if limit is None else limit - elsewhere
        added = await home.keys_and_logs.add(name, field, amount, limit=here, ttl_s=ttl_s)
        return None if added is None else added + elsewhere

    # Windows, whose names are keys as they stand

    async def window_add(self, name: str, member: str, amount: int, *, window_s: float) -> None:
        """Note an amount in a rolling window."""
        await (await self._window(name)).window_add(name, member, amount, window_s=window_s)

    async def window_total(self, name: str, *, window_s: float) -> int:
        """Sum what is young enough."""
        return await (await self._window(name)).window_total(name, window_s=window_s)

    async def _window(self, name: str) -> RedisState:
        partition = self._partitions[0]
        try:
            client = await self._clients.of(name)
        except (redis.exceptions.RedisError, OSError) as error:
            raise partition.client.met(error) from error
        return partition.state_through(client)

    async def close(self) -> None:
        """The connections belong to the backend."""


async def _count(partition: Partition, name: str, field: str) -> int:
    found = await partition.client.command("HGET", partition.keys.counters(name), field)
    return int(found or 0)
