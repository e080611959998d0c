"""What a model call is charged to: one account of each budget that is about it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from queue_backends import StateStore
from worker.budgets.account import Account, Amount
from worker.budgets.held import Held
from worker.budgets.rules import BudgetRule, Period, Scope
from worker.shared_record import SharedRecord

PREFIX = "budget:"

_DAY_S = 86_400.0
_TTL_S: Mapping[Scope, float] = {Scope.TASK: 8 * _DAY_S, Scope.SESSION: 90 * _DAY_S}
_PERIOD_TTL_S: Mapping[Period, float] = {Period.DAY: 2 * _DAY_S, Period.MONTH: 62 * _DAY_S}


class OpenAccount:
    """An account that calls of this worker are charged to, or wait for: they share it."""

    __slots__ = ("__weakref__", "held", "key", "name", "record", "rule", "ttl_s")

    def __init__(self, state: StateStore, rule: BudgetRule, name: str, *, at_least_s: float = 0.0) -> None:
        ttl_s = min(_TTL_S.get(rule.scope, math.inf), _PERIOD_TTL_S.get(rule.period, math.inf))
        ttl_s = max(ttl_s, at_least_s)
        self.rule = rule
        self.name = name
        self.key = account_key(rule, name)
        """Where it is stored."""
        self.ttl_s = None if ttl_s == math.inf else ttl_s
        """Those of tasks, sessions, days and months end by themselves, but not before `at_least_s` after their last
        change."""
        self.held = Held()
        self.record: SharedRecord[Account] = SharedRecord(state, self.key, Account, ttl_s=self.ttl_s, shadow=self.held)


class Charge(Struct, frozen=True, kw_only=True):
    """One account that a call is charged to, and what is expected to be spent there."""

    rule: BudgetRule
    account: OpenAccount
    expected: Amount
    number: int
    """Of the charge, in this worker."""


def account_key(rule: BudgetRule, account: str) -> str:
    """Where an account is stored. A name of a budget has no colon; one of an account may."""
    return f"{PREFIX}{rule.name}:{rule.scope}:{rule.period}:{account}"
