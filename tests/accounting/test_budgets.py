"""A daily budget holds under concurrency, expires with its window, and never stops work because a store is away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from providers import BudgetExceeded
from queue_backends import TokenUsage
from tests.accounting.calls import call_record, model_call, used
from worker.budgets.daily_window import DailyWindow

if TYPE_CHECKING:
    from tests.accounting.conftest import MemoryState

KEY = "swarm:budget:prod:writer:usage"


def _budget(state: MemoryState, limit: int, **changes: Any) -> DailyWindow:
    values: dict[str, Any] = {"namespace": "prod", "agent": "writer", "clock": lambda: state.now, **changes}
    return DailyWindow(state, limit_tokens=limit, **values)  # type: ignore[arg-type] # it has the methods a budget calls


def _tokens(count: int) -> TokenUsage:
    return TokenUsage(input_tokens=count - count // 2, output_tokens=count // 2)


async def test_a_used_up_budget_refuses_the_next_call_in_arks_words(state: MemoryState) -> None:
    """The error says how much was used of how much, in the text that ark's operator knows."""
    budget = _budget(state, 1000)
    await budget.check("t1:0:0")
    await budget.record("t1:0:0", _tokens(1200))
    with pytest.raises(BudgetExceeded) as refusal:
        await budget.check("t2:0:0")
    assert str(refusal.value) == "daily token budget exceeded: used 1200 of 1000 tokens in the last 24h"


async def test_usage_is_noted_under_arks_key_with_the_amount_last(state: MemoryState) -> None:
    """ark's worker sums what follows the last colon of each member of this key."""
    budget = _budget(state, 1000)
    await budget.record("1775-0:3:1", _tokens(40))
    assert list(state.windows[KEY]) == ["1775-0:3:1:40"]


async def test_a_turn_recorded_twice_counts_once(state: MemoryState) -> None:
    """A resumed run that notes its last call again is not refused for it."""
    budget = _budget(state, 100)
    await budget.check()
    for _ in range(2):
        await budget.record("t1:0:0", _tokens(60))
    await budget.check()
    assert await budget.used_tokens() == 60


async def test_what_is_older_than_a_day_counts_no_more(state: MemoryState) -> None:
    """The window rolls: the same budget allows calls again 24 hours later."""
    budget = _budget(state, 100)
    await budget.record("t1:0:0", _tokens(100))
    with pytest.raises(BudgetExceeded):
        await budget.check()
    state.now += 24 * 3600 + 1
    await budget.check()


async def test_what_other_workers_used_counts_too(state: MemoryState) -> None:
    """The window is shared: a second worker's usage is seen within the refresh time."""
    ours, theirs = _budget(state, 100), _budget(state, 100)
    await ours.check()
    await theirs.record("t1:0:0", _tokens(100))
    state.now += 1.0
    with pytest.raises(BudgetExceeded):
        await ours.check()


async def test_a_hundred_tasks_at_once_overshoot_by_at_most_one_call(state: MemoryState) -> None:
    """Calls under way are reserved, so concurrency does not multiply what is spent beyond the limit."""
    budget, refused = _budget(state, 1000), 0

    async def one(name: str) -> None:
        nonlocal refused
        try:
            await budget.check(f"{name}:0:0", expected_tokens=90)
        except BudgetExceeded:
            refused += 1
            return
        await asyncio.sleep(0)
        await budget.record(f"{name}:0:0", _tokens(90))

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(one(f"t{number}"))
    used = await budget.used_tokens()
    assert 1000 <= used < 1000 + 90
    assert refused == 100 - used // 90


async def test_a_call_waits_for_one_under_way_and_runs_if_that_used_less(state: MemoryState) -> None:
    """A call is not refused because of a reservation: it waits, and goes on if there is something left."""
    budget = _budget(state, 100)
    await budget.check("t1:0:0", expected_tokens=100)
    second = asyncio.create_task(budget.check("t2:0:0", expected_tokens=10))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not second.done()
    await budget.record("t1:0:0", _tokens(20))
    async with asyncio.timeout(5):
        await second


async def test_a_released_reservation_lets_the_next_call_go(state: MemoryState) -> None:
    """A call that was never sent gives its reservation back and is not counted."""
    budget = _budget(state, 100)
    await budget.check("t1:0:0", expected_tokens=100)
    waiting = asyncio.create_task(budget.check("t2:0:0"))
    await asyncio.sleep(0)
    budget.release("t1:0:0")
    budget.release("t1:0:0")
    async with asyncio.timeout(5):
        await waiting
    assert await budget.used_tokens() == 0


async def test_a_reservation_that_nobody_settles_expires(state: MemoryState) -> None:
    """A run that vanished does not lock the budget: its reservation ends by itself."""
    budget = _budget(state, 100, reservation_s=60.0)
    await budget.check("gone:0:0", expected_tokens=100)
    state.now += 61.0
    async with asyncio.timeout(5):
        await budget.check("t2:0:0")


async def test_a_waiting_check_can_be_cancelled(state: MemoryState) -> None:
    """Cancelling a run that waits for budget ends the wait and leaves nothing reserved for it."""
    budget = _budget(state, 100)
    await budget.check("t1:0:0", expected_tokens=100)
    waiting = asyncio.create_task(budget.check("t2:0:0", expected_tokens=100))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    budget.release("t1:0:0")
    async with asyncio.timeout(5):
        await budget.check("t3:0:0")


async def test_a_store_that_is_away_allows_calls_and_is_said_once(state: MemoryState) -> None:
    """A budget must not stop the work because it cannot be read; the log says so once per outage."""
    budget = _budget(state, 100)
    state.is_down = True
    with capture_logs() as lines:
        for number in range(3):
            await budget.check(f"t{number}:0:0", expected_tokens=1)
            await budget.record(f"t{number}:0:0", _tokens(10))
            state.now += 2.0
    assert len(lines) == 1
    # When it is back and fails again, that is a new outage
    state.is_down = False
    await budget.check()
    state.is_down, state.now = True, state.now + 2.0
    with capture_logs() as lines:
        await budget.check()
    assert len(lines) == 1


async def test_what_was_used_during_an_outage_is_written_after_it(state: MemoryState) -> None:
    """Usage that the store could not take is kept, and counts as soon as the store is back."""
    budget = _budget(state, 100)
    state.is_down = True
    with capture_logs():
        for turn in range(3):
            await budget.record(f"t1:{turn}:0", _tokens(50))
    state.is_down = False
    with pytest.raises(BudgetExceeded, match="used 150 of 100"):
        await budget.check("t2:0:0")
    assert await budget.used_tokens() == 150


async def test_a_cancelled_call_is_noted_without_waiting_and_written_with_the_next(state: MemoryState) -> None:
    """A run that must end at once leaves its usage with the budget, which writes it at its next chance."""
    budget = _budget(state, 1000)
    await budget.check("t1:0:0", expected_tokens=1000)
    intent, record = model_call("t1"), call_record()
    budget.note(intent, record, used(intent, _tokens(70)))
    assert not state.windows[KEY]
    async with asyncio.timeout(5):
        await budget.check("t2:0:0", expected_tokens=1)
    await budget.record("t2:0:0", _tokens(5))
    assert set(state.windows[KEY]) == {"t1:0:0:70", "t2:0:0:5"}


@pytest.mark.parametrize("names", [{"limit_tokens": 0}, {"namespace": ""}, {"agent": ""}])
async def test_a_budget_that_is_off_asks_and_writes_nothing(state: MemoryState, names: dict[str, Any]) -> None:
    """Without a limit, or without the names that ark needs, the store is never touched."""
    state.is_down = True
    values: dict[str, Any] = {"namespace": "prod", "agent": "writer", "limit_tokens": 5, **names}
    budget = DailyWindow(state, **values)  # type: ignore[arg-type] # it has the methods a budget calls
    with capture_logs() as lines:
        await budget.check("t1:0:0")
        await budget.record("t1:0:0", _tokens(100))
        await budget.check("t1:0:0")
    assert not budget.active
    assert lines == []


async def test_the_window_is_not_summed_for_every_call(state: MemoryState) -> None:
    """Summing a day's calls is work for the store, so calls within a second share one reading."""
    budget = _budget(state, 10_000_000)
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(budget.check(f"t{number}:0:0"))
    assert state.totals_read == 1


async def test_unknown_usage_is_not_noted(state: MemoryState) -> None:
    """A call of unknown size adds no member to the window, and its reservation ends."""
    budget = _budget(state, 100)
    await budget.check("t1:0:0", expected_tokens=100)
    await budget.record("t1:0:0", TokenUsage())
    assert not state.windows[KEY]
    async with asyncio.timeout(5):
        await budget.check("t2:0:0")
