"""Budgets of the whole fleet: they hold under concurrency, over processes, crashes, outages and changes of mind."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from providers import BudgetExceeded
from providers.pricing import ModelPrice, PriceBook
from queue_backends import Backend, BackendUnavailable, CallOutcome, TokenUsage, open_backend
from tests.accounting.calls import call_record, model_call, used
from worker.budgets.account import Account
from worker.budgets.gate import BudgetGate
from worker.budgets.live import following
from worker.budgets.report import budget_uses
from worker.budgets.rules import read_rule, read_rules
from worker.budgets.warning import BudgetWarning
from worker.call_estimates import CallEstimates
from worker.call_gates import ModelCallIntent
from worker.errors import BadSetting, Postponed
from worker.live_settings import LiveSettings
from worker.metrics import Metrics
from worker.shared_record import stored_value

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
PRICES = PriceBook({"mock": ModelPrice(input_usd=1000.0, output_usd=1000.0)})
"""A tenth of a cent per token."""


class Clock:
    """Unix seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with await open_backend("memory://") as opened:
        yield opened


def _gate(backend: Backend, clock: Clock | None = None, *, rules: dict[str, Any], **changes: Any) -> BudgetGate:
    values: dict[str, Any] = {
        "prices": PRICES,
        "estimates": CallEstimates(),
        "metrics": Metrics(),
        "lease_s": 30.0,
        "clock": clock or Clock(),
        **changes,
    }
    return BudgetGate(backend.state, read_rules(rules), **values)


async def _call(
    gate: BudgetGate, intent: ModelCallIntent, tokens: int, cost_usd: float | None = None, *, at: float = NOW
) -> None:
    await gate.enter(intent)
    usage = TokenUsage(input_tokens=tokens // 2, output_tokens=tokens - tokens // 2)
    await gate.leave(intent, call_record(), used(intent, usage, cost_usd, at=at))


async def test_a_used_up_budget_refuses_for_good_and_says_of_what_how_much_and_until_when(backend: Backend) -> None:
    """The error begins with the mark of permanent failures and names budget, account, amounts and the next period."""
    gate = _gate(backend, rules={"acme": {"scope": "tenant", "period": "month", "usd": 5}})
    await _call(gate, model_call("t1", task={"tenant": "acme"}), 100, cost_usd=5.01)
    with pytest.raises(BudgetExceeded) as refusal:
        await gate.enter(model_call("t2", task={"tenant": "acme"}))
    assert str(refusal.value) == (
        'permanent failure: budget "acme" of tenant acme is used up: $5.01 of $5.00 this month; '
        "there is room again at 2026-12-01 00:00 UTC"
    )
    assert not refusal.value.retryable


@pytest.mark.parametrize(
    ("scope", "same", "other"),
    [
        ("task", {"task_id": "t1", "turn": 1}, {"task_id": "t2"}),
        ("session", {"task": {"session_id": "s1"}}, {"task": {"session_id": "s2"}}),
        ("agent", {"name": "a1"}, {"name": "a2"}),
        ("team", {"team": "m1"}, {"team": "m2"}),
        ("tenant", {"task": {"tenant": "n1"}}, {"task": {"tenant": "n2"}}),
        ("key", {"api_key_env": "KEY_1"}, {"api_key_env": "KEY_2"}),
    ],
)
async def test_each_scope_has_accounts_of_its_own(
    backend: Backend, scope: str, same: dict[str, Any], other: dict[str, Any]
) -> None:
    """What one task, session, agent, team, tenant or key has used up, another still has."""
    gate = _gate(backend, rules={"b": {"scope": scope, "tokens": 1000}})
    await _call(gate, model_call(**same), 1000)
    with pytest.raises(BudgetExceeded):
        await gate.enter(model_call(**same))
    await _call(gate, model_call(**other), 10)


async def test_the_fleet_has_one_account_and_calls_without_a_name_have_none(backend: Backend) -> None:
    """Scope `fleet` adds up everything; a task without a tenant is no tenant's."""
    gate = _gate(backend, rules={"all": {"scope": "fleet", "tokens": 1000}, "t": {"scope": "tenant", "tokens": 1}})
    await _call(gate, model_call("t1"), 600)
    await _call(gate, model_call("t2", name="somebody else"), 600)
    with pytest.raises(BudgetExceeded, match='budget "all" of the fleet is used up'):
        await gate.enter(model_call("t3"))


async def test_patterns_say_which_calls_a_rule_is_about(backend: Backend) -> None:
    """`match` is about the account's name, `where` about other names of the call."""
    rule = {"scope": "tenant", "tokens": 10, "match": "acme*", "where": {"model": "gpt-*"}}
    gate = _gate(backend, rules={"b": rule})
    for tenant, model in (("other", "gpt-4"), ("acme-1", "claude")):
        for _ in range(2):
            await _call(gate, model_call(task={"tenant": tenant}, model=model), 100)
    await _call(gate, model_call(task={"tenant": "acme-1"}, model="gpt-4"), 100)
    with pytest.raises(BudgetExceeded):
        await gate.enter(model_call(task={"tenant": "acme-1"}, model="gpt-5"))


async def test_a_day_rolls_a_month_turns_and_ever_stays(backend: Backend) -> None:
    """What was spent counts for 24 hours, until the month's end, or always."""
    clock = Clock()
    rules = {period: {"scope": "fleet", "period": period, "tokens": 100} for period in ("day", "month", "ever")}
    gates = {period: _gate(backend, clock, rules={period: rule}) for period, rule in rules.items()}

    async def refused() -> set[str]:
        found = set()
        for period, gate in gates.items():
            try:
                await _call(gate, model_call("probe"), 0)
            except BudgetExceeded:
                found.add(period)
        return found

    for gate in gates.values():
        await _call(gate, model_call(), 100)
    assert await refused() == {"day", "month", "ever"}
    clock.now += 23.9 * 3600
    assert await refused() == {"day", "month", "ever"}
    clock.now += 0.3 * 3600
    assert await refused() == {"month", "ever"}
    clock.now = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert await refused() == {"ever"}


async def test_a_rolling_day_says_when_enough_of_it_is_over(backend: Backend) -> None:
    """The refusal names the moment at which so much has rolled out of the window that there is room."""
    clock = Clock()
    gate = _gate(backend, clock, rules={"b": {"scope": "fleet", "period": "day", "tokens": 1000}})
    await _call(gate, model_call("t1"), 600)
    clock.now += 3600
    await _call(gate, model_call("t2"), 600, at=clock.now)
    with pytest.raises(BudgetExceeded, match=r"there is room again at 2026-11-22 12:05 UTC"):
        await gate.enter(model_call("t3"))


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_hundred_tasks_overshoot_by_no_more_than_the_calls_in_flight(queue_url: str, workers: int) -> None:
    """Calls that use just what is expected of them never pass the limit, over several workers on a real server; calls
    that use more pass it by at most their own surplus."""
    limit, expected = 20_000, 200
    most_in_flight = in_flight = 0
    surplus = random.Random(5)
    async with AsyncExitStack() as stack:
        gates = []
        for _ in range(workers):
            own = await stack.enter_async_context(await open_backend(queue_url))
            gate = _gate(own, rules={"all": {"scope": "fleet", "tokens": limit}}, wait_s=30.0)
            gates.append(await stack.enter_async_context(gate.kept()))

        async def one(number: int) -> int:
            nonlocal in_flight, most_in_flight
            gate, total = gates[number % workers], 0
            for turn in range(5):
                intent = model_call(f"t{number}", turn=turn, max_tokens=100)  # 100 in, 100 out
                try:
                    await gate.enter(intent)
                except BudgetExceeded:
                    return total
                in_flight += 1
                most_in_flight = max(most_in_flight, in_flight)
                await asyncio.sleep(surplus.random() * 0.01)
                tokens = expected + surplus.randrange(3) * 50
                in_flight -= 1
                await gate.leave(intent, call_record(), used(intent, TokenUsage(input_tokens=tokens)))
                total += tokens
            return total

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(100)]
        spent = sum(task.result() for task in tasks)
        [use] = await budget_uses(own.state, gates[0].rules, clock=Clock())
    assert use.tokens_used == spent
    assert use.tokens_held == 0
    assert limit <= spent < limit + most_in_flight * 100 + expected
    assert most_in_flight > 1


async def test_a_call_waits_for_room_and_runs_when_another_used_less(backend: Backend) -> None:
    """A reservation refuses nobody: the next call waits for it, and goes on if something is left."""
    gate = _gate(backend, rules={"b": {"scope": "fleet", "tokens": 300}}, wait_s=30.0)
    first, second = model_call("t1", max_tokens=100), model_call("t2", max_tokens=100)
    await gate.enter(first)
    waiting = asyncio.create_task(gate.enter(second))
    await asyncio.sleep(0)
    await gate.leave(first, call_record(), used(first, TokenUsage(input_tokens=20)))
    async with asyncio.timeout(30):
        await waiting


async def test_a_call_that_finds_no_room_for_long_is_postponed(backend: Backend) -> None:
    """It gives its slot back instead of holding it, and nothing stays reserved for it."""
    gate = _gate(backend, rules={"b": {"scope": "fleet", "tokens": 300}}, wait_s=0.0)
    first, second = model_call("t1", max_tokens=100), model_call("t2", max_tokens=100)
    await gate.enter(first)
    with pytest.raises(Postponed) as postponed:
        await gate.enter(second)
    assert postponed.value.retry_in_s > 0
    gate.abandon(first)
    async with gate.kept():
        pass
    [use] = await budget_uses(backend.state, gate.rules, clock=Clock())
    assert (use.tokens_held, use.tokens_used) == (0, 0)


async def test_a_lone_call_may_try_even_if_it_might_use_more_than_is_left(backend: Backend) -> None:
    """An estimate alone never stops the work: with nothing beside it, a call goes as long as anything is left."""
    gate = _gate(backend, rules={"b": {"scope": "fleet", "tokens": 100}})
    await _call(gate, model_call("t1", max_tokens=8000), 99)
    await _call(gate, model_call("t2", max_tokens=8000), 99)
    with pytest.raises(BudgetExceeded):
        await gate.enter(model_call("t3"))


async def test_several_budgets_are_reserved_together_or_not_at_all(backend: Backend) -> None:
    """A call that one budget refuses leaves nothing reserved in the others."""
    rules = {"big": {"scope": "fleet", "tokens": 10_000}, "small": {"scope": "agent", "tokens": 10}}
    gate = _gate(backend, rules=rules)
    await _call(gate, model_call("t1"), 10)
    with pytest.raises(BudgetExceeded, match="small"):
        await gate.enter(model_call("t2"))
    async with gate.kept():
        pass
    uses = {use.budget: use for use in await budget_uses(backend.state, gate.rules, clock=Clock())}
    assert (uses["big"].tokens_used, uses["big"].tokens_held) == (10, 0)


async def test_a_soft_limit_warns_once_in_the_fleet_and_refuses_nothing(backend: Backend) -> None:
    """Crossing it, and crossing the limit, is said once each, to hook, log and metric, by whoever did it."""
    said: list[BudgetWarning] = []

    async def hook(warning: BudgetWarning) -> None:
        said.append(warning)

    metrics = Metrics()
    rules = {"b": {"scope": "fleet", "tokens": 1000, "soft": 0.5, "hard": False}}
    gates = [_gate(backend, rules=rules, on_warning=hook, metrics=metrics) for _ in range(2)]
    with capture_logs() as lines:
        async with gates[0].kept(), gates[1].kept():
            for number in range(12):
                await _call(gates[number % 2], model_call(f"t{number}"), 100)
    assert [(warning.is_limit, warning.tokens_used) for warning in said] == [(False, 500), (True, 1000)]
    assert said[0].text == 'budget "b" of the fleet has reached 50%: 500 of 1,000 tokens in all'
    assert metrics.budget("b").warned == 2
    assert len(lines) == 2


async def test_a_budget_is_raised_lowered_added_and_taken_away_while_it_is_kept(backend: Backend) -> None:
    """A live setting counts at once, for calls that wait too; without it the file's rule counts again."""
    declared = read_rules({"b": {"scope": "fleet", "tokens": 100}})
    gate = _gate(backend, rules={"b": {"scope": "fleet", "tokens": 100}})
    live = LiveSettings(backend.state)
    with following(gate, declared, live):
        await _call(gate, model_call("t1"), 100)
        with pytest.raises(BudgetExceeded):
            await gate.enter(model_call("t2"))
        await live.set("budgets.b", '{"scope": "fleet", "tokens": 200}')
        await _call(gate, model_call("t3", max_tokens=1), 10)
        await live.set("budgets.b", "off")
        assert not gate.active
        await live.set("budgets.other", '{"scope": "agent", "usd": 1}')
        assert set(gate.rules) == {"other"}
        await live.unset("budgets.b")
        with pytest.raises(BudgetExceeded, match="110 of 100"):
            await gate.enter(model_call("t4"))


async def test_what_a_dead_worker_had_reserved_is_free_again_when_its_lease_has_run_out(backend: Backend) -> None:
    """Until then it may be at work. What its calls cost nobody knows: the usage log says so, the budget is free."""
    clock = Clock()
    rules = {"b": {"scope": "fleet", "tokens": 1000}}
    dead, alive = _gate(backend, clock, rules=rules), _gate(backend, clock, rules=rules)
    await dead.enter(model_call("t1", max_tokens=400))  # 100 in, 400 out
    [use] = await budget_uses(backend.state, alive.rules, clock=clock)
    assert (use.tokens_used, use.tokens_held) == (0, 500)
    clock.now += 29
    [use] = await budget_uses(backend.state, alive.rules, clock=clock)
    assert (use.tokens_used, use.tokens_held) == (0, 500)
    clock.now += 2
    await _call(alive, model_call("t2"), 10)
    [use] = await budget_uses(backend.state, alive.rules, clock=clock)
    assert (use.tokens_used, use.tokens_held) == (10, 0)


async def test_what_a_living_worker_holds_outlasts_any_lease(backend: Backend) -> None:
    """As long as it lives it says so again and again, however long a call takes."""
    rules = {"b": {"scope": "fleet", "tokens": 1000}}
    gate = _gate(backend, rules=rules, lease_s=0.06, clock=time.time)
    async with gate.kept():
        await gate.enter(model_call("t1", max_tokens=400))
        began_at = time.time()
        seen = set()
        async with asyncio.timeout(30):
            while time.time() < began_at + 1.0 or not seen:
                [use] = await budget_uses(backend.state, gate.rules, clock=lambda: began_at)
                seen.add(use.tokens_held)
                stored = await backend.state.get("budget:b:fleet:ever:fleet")
                assert stored is not None
                account = msgspec.json.decode(stored_value(stored), type=Account)
                if all(hold.until > began_at + 0.5 for hold in account.holds.values()):
                    break
                await asyncio.sleep(0.01)
            else:
                pytest.fail("nobody has put off the end")
    assert seen == {500}


async def test_a_cancelled_call_is_settled_in_the_background(backend: Backend) -> None:
    """A run that must end at once does not wait for the store; its usage gets there all the same."""
    gate = _gate(backend, rules={"b": {"scope": "fleet", "tokens": 1000}})
    async with gate.kept():
        intent = model_call("t1")
        await gate.enter(intent)
        gate.note(intent, call_record(CallOutcome.CANCELLED), used(intent, TokenUsage(input_tokens=70)))
    [use] = await budget_uses(backend.state, gate.rules, clock=Clock())
    assert (use.tokens_used, use.tokens_held) == (70, 0)


async def test_a_store_that_is_away_allows_calls_and_learns_of_them_later(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work does not stop, the log says so once, and what was spent counts when the store is back."""
    gate = _gate(backend, rules={"b": {"scope": "fleet", "tokens": 100}})

    async def away(*_: Any, **__: Any) -> Any:
        raise BackendUnavailable("the store is away")

    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(backend.state, "get", away)
        patch.setattr(backend.state, "compare_and_set", away)
        for number in range(3):
            await _call(gate, model_call(f"t{number}"), 60)
    assert len(lines) == 1
    async with gate.kept():
        pass
    with pytest.raises(BudgetExceeded, match="180 of 100"):
        await gate.enter(model_call("t9"))


async def test_money_is_reserved_by_the_price_of_what_is_expected(backend: Backend) -> None:
    """With a price, what a call may cost is held before it is sent; without one, it costs nothing here."""
    gate = _gate(backend, rules={"b": {"scope": "fleet", "usd": 1}})
    await gate.enter(model_call("t1", max_tokens=100))  # 200 tokens of $0.001
    [use] = await budget_uses(backend.state, gate.rules, clock=Clock())
    assert use.usd_held == pytest.approx(0.2)
    await _call(gate, model_call("t2", model="unknown"), 10)
    [use] = await budget_uses(backend.state, gate.rules, clock=Clock())
    assert use.usd_used == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"scope": "planet", "usd": 1}, r"budgets\.b: Invalid enum value 'planet'"),
        ({"scope": "agent"}, r"budgets\.b: no limit is given: set tokens, or usd, or both"),
        ({"scope": "agent", "usd": 0}, "a limit is more than 0"),
        ({"scope": "agent", "tokens": -1}, "a limit is more than 0"),
        ({"scope": "agent", "usd": 1, "soft": 2}, r"budgets\.b\.soft: 2 is no share"),
        ({"scope": "agent", "usd": 1, "where": {"colour": "red"}}, r"budgets\.b\.where: colour is not known"),
        ({"scope": "agent", "usd": 1, "per": "day"}, "unknown field `per`"),
        ("five dollars", "Expected `object`"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_one_line_that_says_why(value: Any, said: str) -> None:
    """The message names the budget, what is wrong and what is allowed."""
    with pytest.raises(BadSetting, match=said) as refusal:
        read_rule("b", value)
    assert "\n" not in str(refusal.value)
