"""One record per model call, counted once, and totals that can be read by day, agent, model and tenant."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from providers.pricing import ModelPrice, PriceBook
from queue_backends import CallOutcome, LogRecord, StateStore, Task, TokenUsage, UsageRecord
from worker.usage import KEEP_S, OTHER, USAGE_INDEX, UsageLedger, UsageReport, record_of

if TYPE_CHECKING:
    from tests.accounting.conftest import MemoryState

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
PRICES = PriceBook({"m": ModelPrice(input_usd=10.0, output_usd=100.0)})


def _record(task_id: str = "1-0", *, turn: int = 0, at: float = MIDNIGHT, **changes: Any) -> UsageRecord:
    task = Task(id=task_id, prompt="x", tenant=changes.pop("tenant", "acme"), session_id="s")
    values: dict[str, Any] = {
        "provider": "p",
        "model": "m",
        "usage": TokenUsage(input_tokens=100, output_tokens=10),
        "outcome": CallOutcome.COMPLETED,
        "duration_ms": 5,
        "agent": "writer",
        "prices": PRICES,
        **changes,
    }
    return record_of(task, turn=turn, attempt=0, started_at=at, **values)


def _report(state: MemoryState) -> UsageReport:
    store: StateStore = state  # type: ignore[assignment] # it has the methods that a report calls
    return UsageReport(store)


async def _write(state: MemoryState, *records: UsageRecord) -> None:
    ledger = UsageLedger()
    await state.append_once([ledger.log_record(record) for record in records])


def test_a_record_says_who_called_what_and_what_it_cost() -> None:
    """The record carries the idempotent id, the task's owner fields and the cost."""
    record = _record("7-0", turn=2)
    assert record.id == "7-0:2:0"
    assert (record.task_id, record.agent, record.tenant, record.session_id) == ("7-0", "writer", "acme", "s")
    assert record.cost_usd == pytest.approx(0.002)


def test_a_record_becomes_one_log_record_with_its_counters() -> None:
    """The log record has the id, the retention, the whole record, and all four counter sets with the index."""
    entry = UsageLedger().log_record(_record())
    amounts = {"calls": 1, "input_tokens": 100, "output_tokens": 10, "cost_microusd": 2000}
    sets = ["usage:day:2026-11-21", "usage:agent:writer", "usage:model:p/m", "usage:tenant:acme"]
    assert (entry.log, entry.id, entry.keep_s) == ("usage", "1-0:0:0", KEEP_S)
    assert msgspec.json.decode(entry.value, type=UsageRecord) == _record()
    assert entry.counters == {**dict.fromkeys(sets, amounts), USAGE_INDEX: dict.fromkeys(sets, 1)}


def test_zeros_and_unknown_counts_are_left_out() -> None:
    """A failed call without usage counts as a call without a price, and as nothing else."""
    entry = UsageLedger().log_record(_record(usage=TokenUsage(), outcome=CallOutcome.FAILED, tenant=""))
    assert entry.counters["usage:day:2026-11-21"] == {"calls": 1, "unpriced_calls": 1}
    assert not any("tenant" in name for name in entry.counters)


def test_the_day_is_that_of_the_call_in_utc() -> None:
    """Two calls around midnight count for different days, in whatever order they are written."""
    ledger = UsageLedger()
    names = [
        next(iter(ledger.log_record(_record(at=at)).counters)) for at in (MIDNIGHT, MIDNIGHT - 1, MIDNIGHT + 86399)
    ]
    assert names == ["usage:day:2026-11-21", "usage:day:2026-11-20", "usage:day:2026-11-21"]


def test_counter_sets_stay_bounded() -> None:
    """Beyond the limit new tenants share one set, while known ones keep theirs; long names are cut."""
    ledger = UsageLedger(max_names=2)
    for tenant in ("a", "b", "c", "d", "a"):
        entry = ledger.log_record(_record(tenant=tenant))
        expected = tenant if tenant in {"a", "b"} else OTHER
        assert f"usage:tenant:{expected}" in entry.counters
    assert max(len(name) for name in UsageLedger().log_record(_record(agent="x" * 5000)).counters) < 300


async def test_totals_are_read_back_by_day_agent_model_and_tenant(state: MemoryState) -> None:
    """What several calls used is found again in each of the four ways, days newest first and others by calls."""
    # Given calls on two days, by two agents, for two tenants, one of them without a price
    await _write(
        state,
        _record("1-0", at=MIDNIGHT - 10),
        _record("2-0"),
        _record("2-0", turn=1, agent="critic", model="other", prices=PriceBook(), provider="mock", tenant="zeta"),
    )
    # When the report is read
    summary = await _report(state).summary()
    # Then each view has its totals
    assert [(day.name, day.calls, day.input_tokens) for day in summary.days] == [
        ("2026-11-21", 2, 200),
        ("2026-11-20", 1, 100),
    ]
    assert [(agent.name, agent.calls) for agent in summary.agents] == [("writer", 2), ("critic", 1)]
    assert [(model.name, model.unpriced_calls) for model in summary.models] == [("p/m", 0), ("mock/other", 1)]
    assert [tenant.name for tenant in summary.tenants] == ["acme", "zeta"]
    assert summary.agents[0].cost_usd == pytest.approx(0.004)


async def test_a_record_written_twice_counts_once(state: MemoryState) -> None:
    """A redelivered task that writes its records again changes no total."""
    await _write(state, _record())
    await _write(state, _record(), _record(turn=1))
    assert [day.calls for day in await _report(state).by_day()] == [2]
    assert [record.id for record in await _report(state).recent()] == ["1-0:1:0", "1-0:0:0"]


async def test_limits_bound_what_is_read(state: MemoryState) -> None:
    """A report over many days and agents reads only as many as were asked for."""
    await _write(state, *(_record(f"{day}-0", at=MIDNIGHT + day * 86400, agent=f"a{day}") for day in range(5)))
    report = _report(state)
    assert [day.name for day in await report.by_day(limit=2)] == ["2026-11-25", "2026-11-24"]
    assert len(await report.by_agent(limit=3)) == 3
    assert len(await report.by_model(limit=3)) == 1
    assert len(await report.recent(limit=4)) == 4


async def test_an_unreadable_record_is_left_out_and_named(state: MemoryState) -> None:
    """One damaged entry does not hide the others."""
    await _write(state, _record())
    await state.append_once([LogRecord(log="usage", id="bad", value=b"{", keep_s=1.0)])
    with capture_logs() as lines:
        assert [record.id for record in await _report(state).recent()] == ["1-0:0:0"]
    assert [line["id"] for line in lines] == ["bad"]


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from("ab")), max_size=30))
async def test_the_days_hold_everything_that_was_spent(
    new_state: type[MemoryState], calls: list[tuple[int, int, str]]
) -> None:
    """Whatever the calls, the sum over days equals the sum over records, and so does the sum over agents."""
    state = new_state()
    usages = [TokenUsage(input_tokens=read, output_tokens=written) for read, written, _ in calls]
    await _write(
        state,
        *(
            _record(f"{number}-0", usage=usage, agent=agent, at=time.time())
            for number, (usage, (_, _, agent)) in enumerate(zip(usages, calls, strict=True))
        ),
    )
    summary = await _report(state).summary()
    for totals in (summary.days, summary.agents, summary.models, summary.tenants):
        assert sum(total.calls for total in totals) == len(calls)
        assert sum(total.input_tokens for total in totals) == sum(read for read, _, _ in calls)
        assert sum(total.output_tokens for total in totals) == sum(written for _, written, _ in calls)
