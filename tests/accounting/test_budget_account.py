"""An account adds up: whatever happens in whatever order, nothing spent is lost or counted twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.budgets.account import Account, Amount, give_back, reserve, settle, use_of
from worker.budgets.rules import BudgetRule, Period, Scope

HOLD_S = 100.0

RULES = st.builds(
    BudgetRule,
    scope=st.just(Scope.FLEET),
    period=st.just(Period.EVER),
    tokens=st.integers(1, 2_000),
    hard=st.booleans(),
    name=st.just("b"),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "give back", "wait"]),
        st.sampled_from(["w1", "w2", "w3"]),
        st.integers(1, 300),
    ),
    max_size=60,
)


@given(RULES, STEPS)
def test_spent_and_held_are_what_a_ledger_on_paper_says(rule: BudgetRule, steps: list[tuple[str, str, int]]) -> None:
    """Against a plain list of calls: reserved ones are held, settled ones spent, those of silent workers both lapse
    into spent, and no call is let through that the limit has no room for."""
    account, now = Account(), 1_000.0
    open_calls: list[tuple[str, int]] = []
    silent_since: dict[str, float] = {}
    spent = 0
    for kind, worker, amount in steps:
        for name, since in list(silent_since.items()):
            if since + HOLD_S <= now:
                lapsed = [call for call in open_calls if call[0] == name]
                spent += sum(tokens for _, tokens in lapsed)
                open_calls = [call for call in open_calls if call[0] != name]
                del silent_since[name]
        held = sum(tokens for _, tokens in open_calls)
        if kind == "reserve":
            account, verdict = reserve(account, rule, worker, Amount(amount), until=now + HOLD_S, now=now)
            room = spent < (rule.tokens or 0) and (not open_calls or spent + held + amount <= (rule.tokens or 0))
            assert verdict.may_go == (room or not rule.hard)
            if verdict.may_go:
                open_calls.append((worker, amount))
                silent_since[worker] = now
        elif kind == "wait":
            now += amount
        elif mine := next((call for call in open_calls if call[0] == worker), None):
            open_calls.remove(mine)
            if not any(call[0] == worker for call in open_calls):
                del silent_since[worker]
            if kind == "settle":
                account, _ = settle(account, rule, Amount(amount), now=now)
                spent += amount
            account = give_back(account, worker, Amount(mine[1]))
    use = use_of(account, rule, now)
    lapsing = sum(tokens for name, tokens in open_calls if silent_since[name] + HOLD_S <= now)
    assert use.spent.tokens == spent + lapsing
    assert use.held.tokens == sum(tokens for _, tokens in open_calls) - lapsing
