"""What was spent: one record per model call, its totals by day, agent, model and tenant, and how to read them.

A record goes into the log `usage` under its idempotent id, and in the same step, if it is new, its counts are added to
up to four counter sets: `usage:day:2026-11-21` (UTC), `usage:agent:<agent>`, `usage:model:<provider>/<model>` and
`usage:tenant:<tenant>`. The set `usage:index` counts the calls of each of these sets, which is how a reader finds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import structlog
from msgspec import Struct

from providers.pricing import PriceBook, cost_usd
from queue_backends import CallOutcome, LogRecord, StateStore, Task, TokenUsage, UsageRecord
from queue_backends.messages import encode_json

USAGE_LOG = "usage"
USAGE_INDEX = "usage:index"
KEEP_S = 90 * 24 * 3600.0
"""How long records are kept at least, and totals after the last call that they count, unless configured otherwise
(`Settings.usage_retention_days`)."""

OTHER = "(other)"
"""Stands for agents, models or tenants beyond the number that get totals of their own."""

_MAX_NAMES = 10_000
_MAX_NAME_CHARS = 200
_CACHED_SETS = 4096

_log = structlog.get_logger(__name__)
_decoder = msgspec.json.Decoder(UsageRecord)


def record_of(
    task: Task,
    *,
    turn: int,
    attempt: int,
    provider: str,
    model: str,
    usage: TokenUsage,
    outcome: CallOutcome,
    started_at: float,
    duration_ms: int,
    time_to_first_chunk_ms: int | None = None,
    estimated: bool = False,
    agent: str = "",
    team: str = "",
    role: str = "",
    prices: PriceBook | None = None,
    is_free: bool = False,
) -> UsageRecord:
    """The record of one model call that was sent for `task`; its id is `{task_id}:{turn}:{attempt}`.

    `agent` is the one that ran, if the task names none. The cost is computed here, by `prices` or by list price;
    a call that is known to be free has none.
    """
    price = prices.cost_usd if prices else cost_usd
    return UsageRecord(
        id=f"{task.id}:{turn}:{attempt}",
        task_id=task.id,
        provider=provider,
        model=model,
        usage=usage,
        outcome=outcome,
        started_at=started_at,
        duration_ms=duration_ms,
        time_to_first_chunk_ms=time_to_first_chunk_ms,
        cost_usd=0.0 if is_free else price(provider, model, usage),
        estimated=estimated,
        agent=agent or task.agent,
        tenant=task.tenant,
        session_id=task.session_id,
        team=team,
        role=role,
    )


class UsageLedger:
    """Turns usage records into log records with their counters, to be kept for `keep_s` at least. One per worker; does
    no I/O."""

    __slots__ = ("_keep_s", "_max_names", "_names", "_sets", "calls", "cost_usd", "tokens", "unpriced_calls")

    def __init__(self, *, keep_s: float = KEEP_S, max_names: int = _MAX_NAMES) -> None:
        self._keep_s = keep_s
        self._max_names = max_names
        self._names: dict[str, set[str]] = {"agent": set(), "model": set(), "tenant": set()}
        self._sets: dict[tuple[int, str, str, str, str], tuple[tuple[str, ...], Mapping[str, int]]] = {}
        self.tokens = 0
        """What this process has used since its start, in tokens and in USD, as far as prices are known."""
        self.cost_usd = 0.0
        self.calls = 0
        self.unpriced_calls = 0

    def log_record(self, record: UsageRecord) -> LogRecord:
        """What to hand to `Backend.append`, or to an outcome's `records`."""
        key = (int(record.started_at // 86400), record.agent, record.provider, record.model, record.tenant)
        try:
            names, index = self._sets[key]
        except KeyError:
            names, index = self._remember(key)
        counters: dict[str, Mapping[str, int]] = dict.fromkeys(names, _amounts(record))
        counters[USAGE_INDEX] = index
        self.tokens += record.usage.total_tokens
        self.calls += 1
        if record.cost_usd is None:
            self.unpriced_calls += 1
        else:
            self.cost_usd += record.cost_usd
        return LogRecord(log=USAGE_LOG, id=record.id, value=encode_json(record), keep_s=self._keep_s, counters=counters)

    def _remember(self, key: tuple[int, str, str, str, str]) -> tuple[tuple[str, ...], Mapping[str, int]]:
        day, agent, provider, model, tenant = key
        names = [f"usage:day:{datetime.fromtimestamp(day * 86400, UTC):%Y-%m-%d}"]
        for kind, name in (("agent", agent), ("model", f"{provider}/{model}"), ("tenant", tenant)):
            if name:
                names.append(f"usage:{kind}:{self._bounded(kind, name)}")
        if len(self._sets) >= _CACHED_SETS:
            self._sets.clear()
        found = self._sets[key] = (tuple(names), dict.fromkeys(names, 1))
        return found

    def _bounded(self, kind: str, name: str) -> str:
        """The name itself, cut; or `(other)` once this process has met too many, so that counters stay bounded."""
        known, name = self._names[kind], name[:_MAX_NAME_CHARS]
        if name not in known and len(known) >= self._max_names:
            return OTHER
        known.add(name)
        return name


def _amounts(record: UsageRecord) -> dict[str, int]:
    """What one record adds to each of its counter sets; zeros are left out."""
    usage = record.usage
    amounts = {"calls": 1}
    if usage.input_tokens:
        amounts["input_tokens"] = usage.input_tokens
    if usage.output_tokens:
        amounts["output_tokens"] = usage.output_tokens
    if usage.cache_read_tokens:
        amounts["cache_read_tokens"] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        amounts["cache_write_tokens"] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        amounts["reasoning_tokens"] = usage.reasoning_tokens
    if record.cost_usd is None:
        amounts["unpriced_calls"] = 1
    elif micros := round(record.cost_usd * 1e6):
        amounts["cost_microusd"] = micros
    return amounts


class UsageTotals(Struct, frozen=True, kw_only=True):
    """Counts of one counter set. `cost_usd` leaves out the `unpriced_calls`, whose cost is not known."""

    name: str
    """The day (`2026-11-21`), agent, model (`provider/model`) or tenant."""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0


class UsageSummary(Struct, frozen=True, kw_only=True):
    """The totals in all four ways; what was spent without an agent or tenant is in the days and models only."""

    days: list[UsageTotals]
    """Newest first."""
    agents: list[UsageTotals]
    """These three: most calls first."""
    models: list[UsageTotals]
    tenants: list[UsageTotals]


class UsageReport:
    """Reads what the ledgers of all workers wrote. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    async def by_day(self, *, limit: int = 31) -> list[UsageTotals]:
        """Totals of the latest `limit` UTC days on which something was used, newest first."""
        return await self._totals("day", await self._state.counters(USAGE_INDEX), limit)

    async def of_day(self, at: float) -> UsageTotals:
        """Totals of the UTC day of a moment (Unix seconds): one cheap command."""
        day = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
        return _from_counters(day, await self._state.counters(f"usage:day:{day}"))

    async def by_agent(self, *, limit: int = 100) -> list[UsageTotals]:
        """Totals of the `limit` agents with the most calls."""
        return await self._totals("agent", await self._state.counters(USAGE_INDEX), limit)

    async def by_model(self, *, limit: int = 100) -> list[UsageTotals]:
        """Totals of the `limit` models with the most calls, named `provider/model`."""
        return await self._totals("model", await self._state.counters(USAGE_INDEX), limit)

    async def by_tenant(self, *, limit: int = 100) -> list[UsageTotals]:
        """Totals of the `limit` tenants with the most calls."""
        return await self._totals("tenant", await self._state.counters(USAGE_INDEX), limit)

    async def summary(self, *, days: int = 31, limit: int = 100) -> UsageSummary:
        """All four, from one reading of the index."""
        index = await self._state.counters(USAGE_INDEX)
        return UsageSummary(
            days=await self._totals("day", index, days),
            agents=await self._totals("agent", index, limit),
            models=await self._totals("model", index, limit),
            tenants=await self._totals("tenant", index, limit),
        )

    async def recent(self, *, limit: int = 100) -> list[UsageRecord]:
        """The newest records, newest first. One that cannot be read is left out and named in the log."""
        records: list[UsageRecord] = []
        for entry in await self._state.read_log(USAGE_LOG, limit=limit, newest_first=True):
            try:
                records.append(_decoder.decode(entry.value))
            except msgspec.MsgspecError as error:
                _log.warning("usage record cannot be read and is left out", id=entry.id, error=str(error))
        return records

    async def _totals(self, kind: str, index: Mapping[str, int], limit: int) -> list[UsageTotals]:
        prefix = f"usage:{kind}:"
        found = [(name.removeprefix(prefix), calls) for name, calls in index.items() if name.startswith(prefix)]
        if kind == "day":
            found.sort(reverse=True)
        else:
            found.sort(key=lambda item: (-item[1], item[0]))
        return [_from_counters(name, await self._state.counters(prefix + name)) for name, _ in found[:limit]]


_TOTAL_FIELDS = frozenset(UsageTotals.__struct_fields__) - {"name", "cost_usd"}


def _from_counters(name: str, counters: Mapping[str, int]) -> UsageTotals:
    known = {field: count for field, count in counters.items() if field in _TOTAL_FIELDS}
    return UsageTotals(name=name, cost_usd=counters.get("cost_microusd", 0) / 1e6, **known)
