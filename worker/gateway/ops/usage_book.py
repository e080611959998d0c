"""What was spent in any period, by agent, model and tenant: read once from the ledger, then kept up to date.

The ledger's totals are of all time, and its records may be millions. This book reads each record once, adds it to the
cell of its hour, agent, model and tenant, and goes on from there the next time it is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import asdict

from queue_backends import StateStore, UsageRecord
from worker.ledger.grouping import TIMES, Group
from worker.ledger.reading import PAGE, read_record
from worker.usage import OTHER, USAGE_LOG

MOST_CELLS = 100_000
"""Beyond these, what is new is added to the cell of `(other)` of its hour."""
HOUR_S = 3600
_STEP_CELLS = 5000
"""So many are added up before others of the gateway get their turn: a few milliseconds."""

Cell = tuple[str, str, str]
"""Agent, `provider/model`, tenant."""
_OTHERS: Cell = (OTHER, OTHER, OTHER)


class UsageFilter(Struct, frozen=True, kw_only=True):
    """Which records count."""

    since: float = 0.0
    """Unix seconds, from the beginning of its hour on."""
    until: float | None = None
    """Unix seconds; before the end of its hour."""
    agent: str | None = None
    model: str | None = None
    tenant: str | None = None


class UsageBook:
    """The usage of all workers, in cells of an hour. Each method may raise `BackendUnavailable`."""

    def __init__(
        self,
        state: StateStore,
        *,
        keep_s: float,
        most_cells: int = MOST_CELLS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._keep_hours = int(keep_s // HOUR_S) + 1
        self._most_cells = most_cells
        self._clock = clock
        self._hours: dict[int, dict[Cell, Group]] = {}
        """Unix seconds // 3600 -> what was used in that hour."""
        self._cells = 0
        self._cursor = ""
        self._reading = asyncio.Lock()
        self.records = 0
        """How many were read so far."""
        self.is_complete = False
        """Whether the last reading came to the end of the ledger."""

    async def catch_up(self, *, limit_s: float) -> bool:
        """Read what was written since the last time, for `limit_s` at most; says whether that is all there is."""
        async with self._reading:
            deadline = time.monotonic() + limit_s
            self.is_complete = False
            while True:
                page = await self._state.read_on(USAGE_LOG, self._cursor, limit=PAGE)
                if not page.entries and page.cursor == self._cursor:
                    self.is_complete = True
                    break
                self._cursor = page.cursor
                for record in filter(None, map(read_record, page.entries)):
                    self._add(record)
                if time.monotonic() >= deadline:
                    break
                await asyncio.sleep(0)  # a ledger in memory would hold up the loop
            self._forget_old()
            return self.is_complete

    async def groups(self, by: Sequence[str], only: UsageFilter) -> list[Group]:
        """The groups of what was read so far: times in their order, the rest by cost and calls, most first.

        `by` names some of `hour`, `day`, `month`, `agent`, `model` and `tenant`.
        """
        found: dict[tuple[str, ...], Group] = {}
        passed = 0
        for hour in self._chosen(only):
            _add_hour(found, hour, self._hours.get(hour, {}), by, only)
            passed += len(self._hours.get(hour, ()))
            if passed >= _STEP_CELLS:
                passed = 0
                await asyncio.sleep(0)
        times = [index for index, name in enumerate(by) if name in TIMES]
        return sorted(
            found.values(),
            key=lambda group: (*(group.key[index] for index in times), -group.cost_usd, -group.calls, group.key),
        )

    def total(self, only: UsageFilter) -> Group:
        """All of it together. Of a day at most: it does not let others take their turn."""
        found: dict[tuple[str, ...], Group] = {}
        for hour in self._chosen(only):
            _add_hour(found, hour, self._hours[hour], (), only)
        return found.get((), Group(key=()))

    def _chosen(self, only: UsageFilter) -> list[int]:
        first = int(only.since // HOUR_S)
        last = None if only.until is None else int((only.until - 0.001) // HOUR_S)
        return [hour for hour in self._hours if hour >= first and (last is None or hour <= last)]

    def _add(self, record: UsageRecord) -> None:
        self.records += 1
        hour = int(record.started_at // HOUR_S)
        cells = self._hours.setdefault(hour, {})
        cell = (record.agent, f"{record.provider}/{record.model}", record.tenant)
        amounts = cells.get(cell)
        if amounts is None:
            if self._cells >= self._most_cells:
                cell = _OTHERS
            if cell not in cells:
                cells[cell] = Group(key=())
                self._cells += 1
            amounts = cells[cell]
        amounts.add(record)

    def _forget_old(self) -> None:
        oldest = int(self._clock() // HOUR_S) - self._keep_hours
        for hour in [hour for hour in self._hours if hour < oldest]:
            self._cells -= len(self._hours.pop(hour))


def plain(groups: Iterable[Group], by: Sequence[str]) -> list[dict[str, object]]:
    """Groups as JSON objects: their key's fields by name, then the figures."""
    return [
        {**dict(zip(by, group.key, strict=True)), **{k: v for k, v in asdict(group).items() if k != "key"}}
        for group in groups
    ]


def _add_hour(
    found: dict[tuple[str, ...], Group], hour: int, cells: Mapping[Cell, Group], by: Sequence[str], only: UsageFilter
) -> None:
    moment = datetime.fromtimestamp(hour * HOUR_S, UTC)
    times = {name: moment.strftime(_TIME_FORMS[name]) for name in by if name in TIMES}
    for (agent, model, tenant), amounts in cells.items():
        if only.agent not in (None, agent) or only.model not in (None, model) or only.tenant not in (None, tenant):
            continue
        texts = {"agent": agent, "model": model, "tenant": tenant, **times}
        key = tuple([texts[name] for name in by])
        group = found.get(key)
        if group is None:
            group = found[key] = Group(key=key)
        _add(group, amounts)


_TIME_FORMS = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d", "month": "%Y-%m"}


def _add(group: Group, more: Group) -> None:
    group.calls += more.calls
    group.failed += more.failed
    group.input_tokens += more.input_tokens
    group.output_tokens += more.output_tokens
    group.cache_read_tokens += more.cache_read_tokens
    group.cache_write_tokens += more.cache_write_tokens
    group.reasoning_tokens += more.reasoning_tokens
    group.cost_usd += more.cost_usd
    group.unpriced_calls += more.unpriced_calls
    group.duration_s += more.duration_s
