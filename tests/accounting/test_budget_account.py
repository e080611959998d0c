"""An account adds up: whatever happens in whatever order, nothing spent is lost or counted twice."""

from __future__ import annotations

import math
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from worker.budgets import recounting
from worker.budgets.account import Account, Amount, slot_of, use_of
from worker.budgets.charging import holding, reserve, settle
from worker.budgets.held import Held
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
        st.sampled_from(["reserve", "reserve", "settle", "settle", "give back", "wait", "delete", "doubt", "recount"]),
        st.sampled_from(["w1", "w2", "w3"]),
        st.integers(1, 300),
    ),
    max_size=60,
)


class Paper:
    """An account beside a plain list of calls, and the log that each settled call is written to."""

    def __init__(self, rule: BudgetRule) -> None:
        self.rule = rule
        self.now = 1_000.0
        self.account = recounting.opened(Account(), self.now)
        self.held: defaultdict[str, Held] = defaultdict(Held)
        self.open: list[tuple[str, int, int]] = []
        """Worker, number of the call, tokens."""
        self.said_at: dict[str, float] = {}
        self.log: list[tuple[int, int]] = []
        """When a call ended, and its tokens."""
        self._number = 0

    @property
    def counted(self) -> dict[str, int]:
        """What is held by workers that have said so lately."""
        alive: defaultdict[str, int] = defaultdict(int)
        for worker, _, tokens in self.open:
            if self.said_at.get(worker, -math.inf) + HOLD_S > self.now:
                alive[worker] += tokens
        return alive

    def reserve(self, worker: str, tokens: int) -> None:
        """One more call, if there is room, and as a step that is tried twice."""
        limit = self.rule.tokens or 0
        mine = sum(call[2] for call in self.open if call[0] == worker)
        held = mine + sum(amount for name, amount in self.counted.items() if name != worker)
        spent = sum(tokens for _, tokens in self.log)
        room = not self.account.is_lost and spent < limit and (held == 0 or spent + held + tokens <= limit)
        self._number += 1
        for _ in range(2):
            self.held[worker].begin()
            after, verdict = reserve(
                self.account, self.rule, worker, self.held[worker], self._number, Amount(tokens),
                until=self.now + HOLD_S, now=self.now,
            )  # fmt: skip
        self.held[worker].keep()
        self.account = after
        if not self.account.recount_at:
            assert verdict.may_go == (room or not self.rule.hard)
        if verdict.may_go:
            self.open.append((worker, self._number, tokens))
            self.said_at[worker] = self.now

    def end(self, worker: str, tokens: int) -> None:
        """The worker's oldest call has used so many."""
        if (call := next((call for call in self.open if call[0] == worker), None)) is None:
            return
        self.open.remove(call)
        self.held[worker].drop(call[1])
        self.account, _ = settle(self.account, self.rule, Amount(tokens), ended_at=int(self.now), now=self.now)
        self.account = holding(self.account, worker, self.held[worker], until=self.now + HOLD_S)
        self.said_at[worker] = self.now
        if tokens:
            self.log.append((int(self.now), tokens))

    def recount(self) -> None:
        """Somebody adds it up, twice for good measure."""
        for _ in range(2):
            slots: defaultdict[int, Amount] = defaultdict(Amount)
            for ended_at, tokens in self.log:
                if ended_at < self.account.since:
                    slots[slot_of(self.rule.period, ended_at)] += Amount(tokens)
            self.account = recounting.recounted(self.account, self.account.since, slots, 0.0)


@given(RULES, STEPS)
def test_spent_and_held_are_what_a_ledger_on_paper_says(rule: BudgetRule, steps: list[tuple[str, str, int]]) -> None:
    """Against a plain list of calls: reserved ones are held, settled ones spent, those of silent workers are free
    again, no call is let through that the limit has no room for; and whenever the account is deleted, doubted and added
    up, all of that is as before."""
    paper = Paper(rule)
    for kind, worker, amount in steps:
        match kind:
            case "reserve":
                paper.reserve(worker, amount)
            case "settle":
                paper.end(worker, amount)
            case "give back":
                paper.end(worker, 0)
            case "wait":
                paper.now += amount
            case "delete":
                paper.account = recounting.lost(Account(), 1_000.0, paper.now, pause_s=0.0)
                for name, held in paper.held.items():
                    paper.account = holding(paper.account, name, held, until=paper.now + HOLD_S)
                    paper.said_at[name] = paper.now
            case "doubt":
                paper.account = recounting.doubted(paper.account, paper.now)
            case "recount":
                paper.recount()
    paper.recount()
    use = use_of(paper.account, rule, paper.now)
    assert use.spent.tokens == sum(tokens for _, tokens in paper.log)
    assert use.held.tokens == sum(paper.counted.values())
