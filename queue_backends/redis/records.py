"""Log records on their way to a script: what many of them share is said once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from queue_backends.interfaces import LogRecord
from queue_backends.redis.keys import Keys
from queue_backends.redis.wire import CallTable


class RecordPacker:
    """Packs the records of one script call. `tallies` goes with them: which counter sets, by their positions in KEYS,
    get the same added, and to which of their fields. For records of a kind they are mostly the same ones."""

    __slots__ = ("_keys", "_logs", "_table", "_tally_numbers", "tallies")

    def __init__(self, table: CallTable, keys: Keys) -> None:
        self._table = table
        self._keys = keys
        self._logs: dict[str, tuple[int, int]] = {}
        self._tally_numbers: dict[tuple[int | str, ...], int] = {}
        self.tallies: list[Sequence[int] | Sequence[str]] = []

    def pack(self, items: list[Any], records: Sequence[LogRecord], *, is_over: bool = False) -> None:
        """Append them as `add_records` takes them. `is_over`: so is what they tell of, and for good; then those that
        are the last of their log stand alone, which only versions from this one on can add to."""
        for record in records:
            counts = self._counts(record.counters) if record.counters else ()
            items += (
                *(self._logs.get(record.log) or self._place(record.log)),
                record.id,
                self._table.text(record.value),
                _milliseconds(record.keep_s),
                is_over and record.is_last,
                len(counts),
                *counts,
            )

    def _place(self, log: str) -> tuple[int, int]:
        position = self._table.position
        place = self._logs[log] = position(self._keys.log(log)), position(self._keys.log_index(log))
        return place

    def _counts(self, counters: Mapping[str, Mapping[str, int]]) -> list[int]:
        """Of each tally its number and what to add. Sets that get the same have the very same amounts."""
        counts: list[int] = []
        names: list[str] = []
        shared: Mapping[str, int] | None = None
        for name, amounts in counters.items():
            if amounts is shared:
                names.append(name)
                continue
            if shared is not None:
                counts += (self._tally_number(names, shared), *shared.values())
            names, shared = [name], amounts
        if shared is not None:
            counts += (self._tally_number(names, shared), *shared.values())
        return counts

    def _tally_number(self, names: Sequence[str], amounts: Mapping[str, int]) -> int:
        """Counts from 1, as Lua does."""
        key: tuple[int | str, ...] = (len(names), *names, *amounts)
        number = self._tally_numbers.get(key)
        if number is None:
            self.tallies += ([self._table.position(self._keys.counters(name)) for name in names], tuple(amounts))
            number = self._tally_numbers[key] = len(self.tallies) // 2
        return number


@functools.lru_cache(maxsize=64)
def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
