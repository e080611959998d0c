"""Log records on their way to a script: what many of them share is said once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from queue_backends.interfaces import LogRecord
from queue_backends.redis.keys import Keys
from queue_backends.redis.wire import CallTable, packed_bytes

Counts: TypeAlias = list[int | Mapping[str, int]]
"""Which of the call's lists of counter sets, and what is added to each of them; and so on."""
PackedRecords: TypeAlias = list[int | str | msgspec.Raw | Counts | bool]
"""For each record: log and index by their positions in KEYS, id, value, milliseconds, counts or False."""


class RecordPacker:
    """Packs the records of one script call. `sets` goes with them: positions of counter sets to which records add the
    same, which for records of a kind are mostly the same ones."""

    def __init__(self, table: CallTable, keys: Keys) -> None:
        self._table = table
        self._keys = keys
        self._logs: dict[str, tuple[int, int]] = {}
        self._set_numbers: dict[tuple[str, ...], int] = {}
        self.sets: list[list[int]] = []

    def pack(self, records: Sequence[LogRecord]) -> PackedRecords:
        """As `add_records` takes them."""
        packed: PackedRecords = []
        for record in records:
            counters = record.counters
            packed += (
                *(self._logs.get(record.log) or self._place(record.log)),
                record.id,
                _text(record.value),
                _milliseconds(record.keep_s),
                self._counts(counters) if counters else False,
            )
        return packed

    def _place(self, log: str) -> tuple[int, int]:
        position = self._table.position
        place = self._logs[log] = position(self._keys.log(log)), position(self._keys.log_index(log))
        return place

    def _counts(self, counters: Mapping[str, Mapping[str, int]]) -> Counts:
        counts: Counts = []
        names: list[str] = []
        shared: Mapping[str, int] | None = None
        for name, amounts in counters.items():
            if amounts is shared:
                names.append(name)
                continue
            if shared is not None:
                counts += (self._set_number(tuple(names)), shared)
            names, shared = [name], amounts
        if shared is not None:
            counts += (self._set_number(tuple(names)), shared)
        return counts

    def _set_number(self, names: tuple[str, ...]) -> int:
        """Counts from 1, as Lua does."""
        number = self._set_numbers.get(names)
        if number is None:
            self.sets.append([self._table.position(self._keys.counters(name)) for name in names])
            number = self._set_numbers[names] = len(self.sets)
        return number


def _text(value: bytes) -> str | msgspec.Raw:
    """Nearly every value is JSON, and text is packed four times as fast."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return packed_bytes(value)


@functools.lru_cache(maxsize=64)
def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
