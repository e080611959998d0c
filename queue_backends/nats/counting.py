"""Records that count once, and the counters that they add to.

A counter is the sum of its shards: each process adds to one of a few, so that two of them seldom write the same record
at the same moment. What must respect a limit is added to one shard that all share.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from queue_backends.interfaces import LogRecord
from queue_backends.nats.ledger import Ledger, Stored
from queue_backends.nats.subjects import LONGEST_TOKEN, token, untoken
from queue_backends.nats.writes import Write

SHARDS = 16
SHARED = "all"
MOST_CELLS = 4096
KEY = "Shoal-Key"
"""A name that is too long for a subject stands in this header."""


def key_header(*names: str) -> dict[str, str] | None:
    """The header for a subject whose last name does not read back from it."""
    if all(len(token(name)) <= LONGEST_TOKEN for name in names):
        return None
    return {KEY: ".".join(token(name) for name in names)}


def name_of(stored: Stored, encoded: str) -> str:
    """A name that stands in a subject as `encoded`, or in the header."""
    found = stored.headers.get(KEY)
    return untoken(found if found is not None else encoded.removeprefix("_"))


class Counting:
    """Plans the writes of records and counters, and remembers the counters that this process adds to."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._shard = str(random.randrange(SHARDS))  # noqa: S311 - spreads load, guards nothing
        self._cells: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Counter shard -> its value and revision, as last seen."""
        self.gate = asyncio.Lock()
        """Two writes of one process that add to counters go one after the other: else the second would be refused."""

    async def writes(self, records: Sequence[LogRecord]) -> list[Write]:
        """What appends these records and adds their counters, if none of them is known."""
        writes = [
            Write(
                self._subjects.record(record.log, record.id),
                record.value,
                expected=0,
                ttl_s=record.keep_s,
                headers=key_header(record.id),
            )
            for record in records
        ]
        return writes + await self._counter_writes(records)

    async def _counter_writes(self, records: Sequence[LogRecord]) -> list[Write]:
        amounts: dict[str, int] = {}
        lifetimes: dict[str, float] = {}
        fields: dict[str, str] = {}
        for record in records:
            for name, added in record.counters.items():
                for field, amount in added.items():
                    subject = self._subjects.counter(name, field, self._shard)
                    amounts[subject] = amounts.get(subject, 0) + amount
                    lifetimes[subject] = max(lifetimes.get(subject, 0.0), record.keep_s)
                    fields[subject] = field
        await self._look_up([subject for subject in amounts if subject not in self._cells])
        writes = []
        for subject, amount in amounts.items():
            value, revision = self._cells[subject]
            data, headers = b"%d" % (value + amount), key_header(fields[subject])
            writes.append(Write(subject, data, expected=revision, ttl_s=lifetimes[subject], headers=headers))
        return writes

    async def _look_up(self, subjects: Sequence[str]) -> None:
        found = await self._ledger.last_of(subjects, fresh=True) if subjects else {}
        for subject in subjects:
            stored = found.get(subject)
            self._cells[subject] = (int(stored.data), stored.revision) if stored else (0, 0)

    def wrote(self, writes: Sequence[Write], revisions: Sequence[int]) -> None:
        """Remember the counters that were written."""
        for write, revision in zip(writes, revisions, strict=True):
            if write.subject in self._cells:
                self._cells[write.subject] = (int(write.data), revision)
                self._cells.move_to_end(write.subject)
        while len(self._cells) > MOST_CELLS:
            self._cells.popitem(last=False)

    def doubt(self) -> None:
        """What is remembered may be wrong."""
        self._cells.clear()

    async def unknown(self, records: Sequence[LogRecord]) -> list[LogRecord]:
        """Those of the records that are not kept yet, each once."""
        named = {self._subjects.record(record.log, record.id): record for record in reversed(records)}
        found = await self._ledger.last_of(list(named), fresh=True)
        return [record for subject, record in reversed(named.items()) if subject not in found]


def once_each_record(records: Sequence[LogRecord]) -> list[LogRecord]:
    """Records without repetitions, in order."""
    seen: dict[tuple[str, str], LogRecord] = {}
    for record in records:
        seen.setdefault((record.log, record.id), record)
    return list(seen.values())


def summed(cells: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Counters, by the values of their shards."""
    return {field: sum(values) for field, values in cells.items()}
