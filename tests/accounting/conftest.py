"""A state store in memory for the accounting tests: just the methods that accounting uses, and a switch to fail."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from queue_backends import BackendUnavailable, LogEntry, LogRecord


class MemoryState:
    """Keeps logs, counters and rolling windows in dictionaries. With `is_down`, every call raises."""

    def __init__(self) -> None:
        self.is_down = False
        self.now = 1_795_000_000.0
        self.logs: dict[str, dict[str, LogEntry]] = defaultdict(dict)
        self.sets: dict[str, Counter[str]] = defaultdict(Counter)
        self.windows: dict[str, dict[str, tuple[float, int]]] = defaultdict(dict)
        self.totals_read = 0

    def _answer(self) -> None:
        if self.is_down:
            raise BackendUnavailable("the store is away")

    async def append_once(self, records: Sequence[LogRecord]) -> int:
        self._answer()
        fresh = [record for record in records if record.id not in self.logs[record.log]]
        for record in fresh:
            self.logs[record.log][record.id] = LogEntry(id=record.id, value=record.value, at=self.now)
            for name, amounts in record.counters.items():
                self.sets[name].update(amounts)
        return len(fresh)

    async def read_log(self, log: str, *, limit: int = 100, newest_first: bool = False) -> list[LogEntry]:
        self._answer()
        entries = list(self.logs[log].values())
        return (entries[::-1] if newest_first else entries)[:limit]

    async def counters(self, name: str) -> dict[str, int]:
        self._answer()
        return dict(self.sets[name])

    async def window_add(self, name: str, member: str, amount: int, *, window_s: float) -> None:
        self._answer()
        self.windows[name][f"{member}:{amount}"] = (self.now, amount)

    async def window_total(self, name: str, *, window_s: float) -> int:
        self._answer()
        self.totals_read += 1
        return sum(amount for at, amount in self.windows[name].values() if at > self.now - window_s)


@pytest.fixture
def state() -> MemoryState:
    """An empty store."""
    return MemoryState()


@pytest.fixture(scope="session")
def new_state() -> type[MemoryState]:
    """Makes an empty store, for tests that need several."""
    return MemoryState
