"""Adds up usage records by any of their fields, or by spans of time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from queue_backends import CallOutcome, UsageRecord


class Group(Struct, kw_only=True):
    """What the records of one group come to."""

    key: tuple[str, ...]
    """The values of the fields that were grouped by."""
    calls: int = 0
    failed: int = 0
    """Calls that were not completed."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    """Calls whose cost is not known, and not in `cost_usd`."""
    duration_s: float = 0.0

    def add(self, record: UsageRecord) -> None:
        """Count one more."""
        usage = record.usage
        self.calls += 1
        self.failed += record.outcome is not CallOutcome.COMPLETED
        self.input_tokens += usage.input_tokens or 0
        self.output_tokens += usage.output_tokens or 0
        self.cache_read_tokens += usage.cache_read_tokens or 0
        self.cache_write_tokens += usage.cache_write_tokens or 0
        self.reasoning_tokens += usage.reasoning_tokens or 0
        self.duration_s += record.duration_ms / 1000
        if record.cost_usd is None:
            self.unpriced_calls += 1
        else:
            self.cost_usd += record.cost_usd


Field = Callable[[UsageRecord], str]


def _time(form: str) -> Field:
    return lambda record: datetime.fromtimestamp(record.started_at, UTC).strftime(form)


TIMES = ("hour", "day", "month")
"""Fields whose groups are in order of time."""
FIELDS: Mapping[str, Field] = {
    "hour": _time("%Y-%m-%d %H:00"),
    "day": _time("%Y-%m-%d"),
    "month": _time("%Y-%m"),
    "agent": lambda record: record.agent,
    "model": lambda record: f"{record.provider}/{record.model}",
    "provider": lambda record: record.provider,
    "tenant": lambda record: record.tenant,
    "session": lambda record: record.session_id,
    "team": lambda record: record.team,
    "role": lambda record: record.role,
    "task": lambda record: record.task_id,
    "outcome": lambda record: record.outcome.value,
}
"""What can be grouped by."""


async def grouped(records: AsyncIterator[UsageRecord], by: Sequence[str]) -> list[Group]:
    """The groups of records that agree in all fields of `by`: times in their order, the rest by cost and calls, most
    first."""
    fields = [FIELDS[name] for name in by]
    groups: dict[tuple[str, ...], Group] = {}
    async for record in records:
        key = tuple(field(record) for field in fields)
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(key=key)
        group.add(record)
    times = [index for index, name in enumerate(by) if name in TIMES]
    return sorted(
        groups.values(),
        key=lambda group: (*(group.key[index] for index in times), -group.cost_usd, -group.calls, group.key),
    )
