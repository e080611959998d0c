"""What a model call is charged to: one account of each budget that is about it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from queue_backends import StateStore
from worker.budgets.account import Account, Amount
from worker.budgets.rules import BudgetRule, Period, Scope
from worker.shared_record import SharedRecord, Unsure

PREFIX = "budget:"

_DAY_S = 86_400.0
_TTL_S: Mapping[Scope, float] = {Scope.TASK: 8 * _DAY_S, Scope.SESSION: 90 * _DAY_S}
_PERIOD_TTL_S: Mapping[Period, float] = {Period.DAY: 2 * _DAY_S, Period.MONTH: 62 * _DAY_S}


class Charge(Struct, frozen=True, kw_only=True):
    """One account that a call is charged to, and what is held there for it."""

    rule: BudgetRule
    account: str
    expected: Amount
    record: SharedRecord[Account]
    """Of the account; whoever has the charge has the same one, and nobody else needs it."""
    is_held: bool = True
    """False: the store was away when it should have been reserved."""
    doubt: Unsure | None = None
    """It was away in the middle of that: whether it is held is known later."""

    @property
    def key(self) -> str:
        """Where the account is stored."""
        return account_key(self.rule, self.account)

    def was_reserved(self) -> bool:
        """Whether it is held. To be asked in a change of the record, when doubts are resolved."""
        return bool(self.doubt.was_made) if self.doubt is not None else self.is_held


def account_key(rule: BudgetRule, account: str) -> str:
    """Where an account is stored. A name of a budget has no colon; one of an account may."""
    return f"{PREFIX}{rule.name}:{rule.scope}:{rule.period}:{account}"


def open_account(
    state: StateStore, rule: BudgetRule, account: str, *, at_least_s: float = 0.0
) -> SharedRecord[Account]:
    """The shared record of one account. Those of tasks, sessions, days and months end by themselves, but not before
    `at_least_s` after their last change."""
    ttl_s = min(_TTL_S.get(rule.scope, math.inf), _PERIOD_TTL_S.get(rule.period, math.inf))
    ttl_s = max(ttl_s, at_least_s)
    return SharedRecord(state, account_key(rule, account), Account, ttl_s=None if ttl_s == math.inf else ttl_s)
