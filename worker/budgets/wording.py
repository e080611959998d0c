"""Budgets in words: for errors, warnings and tables."""

from __future__ import annotations

from datetime import UTC, datetime

from worker.budgets.account import Amount
from worker.budgets.rules import BudgetRule, Period, Scope

_PERIODS = {Period.DAY: "in the last 24 h", Period.MONTH: "this month", Period.EVER: "in all"}


def used_up(rule: BudgetRule, account: str, spent: Amount, again_at: float | None, *, is_limit: bool = True) -> str:
    """Such as: budget "acme" of tenant acme is used up: $100.04 of $100.00 this month; it begins anew at … ."""
    whose = "the fleet" if rule.scope is Scope.FLEET else f"{rule.scope} {account}"
    state = "is used up" if is_limit else f"has reached {rule.soft:.0%}"
    text = f'budget "{rule.name}" of {whose} {state}: {of_limits(rule, spent)} {_PERIODS[rule.period]}'
    if again_at is not None:
        text += f"; there is room again at {datetime.fromtimestamp(again_at, UTC):%Y-%m-%d %H:%M} UTC"
    return text


def of_limits(rule: BudgetRule, spent: Amount) -> str:
    """What was spent of what there is: `$1.20 of $5.00, 1,200 of 9,000 tokens`."""
    parts = []
    if rule.usd is not None:
        parts.append(f"${spent.microusd / 1e6:,.2f} of ${rule.usd:,.2f}")
    if rule.tokens is not None:
        parts.append(f"{spent.tokens:,} of {rule.tokens:,} tokens")
    return ", ".join(parts)
