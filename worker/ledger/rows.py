"""A usage record as one flat row: the columns of exports and tables."""

from __future__ import annotations

from datetime import UTC, datetime

from queue_backends import UsageRecord

Value = str | int | float | bool | None

COLUMNS: dict[str, type] = {
    "id": str,
    "task_id": str,
    "started_at": str,
    "provider": str,
    "model": str,
    "agent": str,
    "tenant": str,
    "session_id": str,
    "team": str,
    "role": str,
    "outcome": str,
    "input_tokens": int,
    "output_tokens": int,
    "cache_read_tokens": int,
    "cache_write_tokens": int,
    "reasoning_tokens": int,
    "cost_usd": float,
    "estimated": bool,
    "duration_ms": int,
    "time_to_first_chunk_ms": int,
}
"""Names and types. Numbers may be absent: what is not known is not zero. `started_at` is RFC 3339 in UTC."""

_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")


def row_of(record: UsageRecord) -> dict[str, Value]:
    """The record's columns, in order."""
    values: dict[str, Value] = {}
    for name in COLUMNS:
        source = record.usage if name in _TOKENS else record
        values[name] = getattr(source, name)
    values["outcome"] = record.outcome.value
    values["started_at"] = datetime.fromtimestamp(record.started_at, UTC).isoformat(timespec="milliseconds")
    return values
