"""The changes of an account around a call: reserve before it, settle after it, and hold on meanwhile.

They bring the worker's `Held` up to date, which is the shadow of the account's record.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from worker.budgets import recounting
from worker.budgets.account import (
    Account,
    Amount,
    Use,
    current,
    held_by,
    renews_at,
    share_of,
    slot_of,
    spent_of,
    together,
)
from worker.budgets.held import Held
from worker.budgets.rules import BudgetRule, Period

_DAY_S = 86_400


class Verdict(Struct, frozen=True):
    """Whether a call may be sent, and whether somebody has to see to the account."""

    may_go: bool
    use: Use = Use(Amount(), Amount())
    is_used_up: bool = False
    """The limit is reached; if not, and the call may not go, others under way may use up the rest."""
    again_at: float | None = None
    """When it is used up: from when on there is room again (Unix seconds), if that comes by itself."""
    is_missing: bool = False
    """There is no such account: it is new, or it was lost."""
    is_lost: bool = False
    """It was lost, and is not added up yet."""
    is_due: bool = False
    """It is to be added up from the usage log."""


class Warned(Struct, frozen=True):
    """A limit that was crossed just now."""

    use: Use
    is_limit: bool
    """The limit itself; if not, the soft one."""


def reserve(
    account: Account,
    rule: BudgetRule,
    holder: str,
    held: Held,
    number: int,
    expected: Amount,
    *,
    until: float,
    now: float,
) -> tuple[Account, Verdict]:
    """Hold `expected` for a call, if the limit leaves room beside what others hold. A call with nothing beside it may
    always try: what it will really use nobody knows."""
    if recounting.is_missing(account):
        return account, Verdict(False, is_missing=True)
    account = current(account, rule, now)
    held.opened_at, is_due = account.opened_at, recounting.is_due(account, now)
    others = {name: hold for name, hold in account.holds.items() if name != holder}
    use = Use(spent_of(account, rule, now), held_by(others, now) + held.amount)
    if rule.hard and account.is_lost:
        return account, Verdict(False, use, is_lost=True, is_due=is_due)
    used_up = share_of(rule, use.spent) >= 1.0
    if rule.hard and used_up:
        return account, Verdict(False, use, is_used_up=True, again_at=renews_at(account, rule, now), is_due=is_due)
    is_alone = not others and not held.calls
    if rule.hard and not is_alone and share_of(rule, use.spent + use.held + expected) > 1.0:
        return account, Verdict(False, use, is_due=is_due)
    held.try_to_hold(number, expected)
    return replace(account, holds={**others, holder: held.said(until)}), Verdict(True, use, used_up, is_due=is_due)


def settle(
    account: Account, rule: BudgetRule, spent: Amount, *, ended_at: int, now: float
) -> tuple[Account, Warned | None]:
    """Calls have ended (in that Unix second): what they spent is added. Says if that crossed a limit."""
    account = current(account, rule, now)
    if spent == Amount():
        return account, None
    slot = {slot_of(rule.period, ended_at): spent}
    account = replace(account, last_end=max(account.last_end, ended_at))
    if ended_at >= account.since:
        account = replace(account, spent=together(account.spent, slot))
    else:  # it may be in the usage log already
        account = recounting.late(account, slot, now)
    return _warned(account, rule, now)


def holding(account: Account, holder: str, held: Held, *, until: float) -> Account:
    """The account says what this worker holds. The same object if it does so already, with nothing held."""
    if held.calls:
        return replace(account, holds={**account.holds, holder: held.said(until)})
    if holder not in account.holds:
        return account
    return replace(account, holds={name: hold for name, hold in account.holds.items() if name != holder})


def _warned(account: Account, rule: BudgetRule, now: float) -> tuple[Account, Warned | None]:
    """A rolling day warns once a UTC day."""
    period = int(now // _DAY_S) if rule.period is Period.DAY else slot_of(rule.period, now)
    use = Use(spent_of(account, rule, now), Amount())
    share = use.share(rule)
    if share >= 1.0 and account.warned_at_limit != period:
        return replace(account, warned_in=period, warned_at_limit=period), Warned(use, is_limit=True)
    if share >= rule.soft and account.warned_in != period:
        return replace(account, warned_in=period), Warned(use, is_limit=False)
    return account, None
