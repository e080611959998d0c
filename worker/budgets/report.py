"""Reads the accounts of all budgets: what is used, of what."""

from __future__ import annotations

import time
from collections.abc import Callable
from fnmatch import fnmatchcase

import msgspec
from msgspec import Struct

from queue_backends import StateStore
from worker.budgets.account import Account, renews_at, use_of
from worker.budgets.charge import PREFIX, account_key
from worker.budgets.rules import BudgetRule, Rules
from worker.shared_record import stored_value

_accounts = msgspec.json.Decoder(Account)


class BudgetUse(Struct, frozen=True, kw_only=True):
    """One account of one budget, as it stands."""

    budget: str
    scope: str
    account: str
    period: str
    tokens_used: int
    tokens_limit: int | None
    usd_used: float
    usd_limit: float | None
    tokens_held: int
    """Reserved for calls that are under way."""
    usd_held: float
    share: float
    """Of the limit; 1.0 is used up."""
    hard: bool
    soft: float
    renews_at: float | None
    """When there is room again if it is used up (Unix seconds)."""


async def budget_uses(state: StateStore, rules: Rules, *, clock: Callable[[], float] = time.time) -> list[BudgetUse]:
    """All accounts of these budgets that anything was charged to, by budget, the fullest first. Those that a rule is
    not about any more, since it was changed, are left out. Raises `BackendUnavailable`."""
    found = []
    by_prefix = {account_key(rule, ""): rule for rule in rules.values()}
    async for key, value in state.scan(PREFIX):  # once for all: some engines look at every key they have
        prefix = ":".join([*key.split(":", 4)[:4], ""])
        rule = by_prefix.get(prefix)
        name = key.removeprefix(prefix)
        if rule is not None and fnmatchcase(name, rule.match):
            found.append(_use(rule, name, _accounts.decode(stored_value(value)), clock()))
    found.sort(key=lambda use: (use.budget, -use.share, use.account))
    return found


def _use(rule: BudgetRule, name: str, account: Account, now: float) -> BudgetUse:
    use = use_of(account, rule, now)
    share = use.share(rule)
    return BudgetUse(
        budget=rule.name,
        scope=rule.scope.value,
        account=name,
        period=rule.period.value,
        tokens_used=use.spent.tokens,
        tokens_limit=rule.tokens,
        usd_used=use.spent.microusd / 1e6,
        usd_limit=rule.usd,
        tokens_held=use.held.tokens,
        usd_held=use.held.microusd / 1e6,
        share=share,
        hard=rule.hard,
        soft=rule.soft,
        renews_at=renews_at(account, rule, now) if share >= 1.0 else None,
    )
