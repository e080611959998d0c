"""The account of one budget: what was spent in its period, and what calls under way may still spend.

Plain data and its reading; `charging` and `recounting` have its changes, and `worker.shared_record` makes each of them
one step for the whole fleet. Money is counted in millionths of a US dollar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from worker.budgets.rules import BudgetRule, Period

_SLOT_S = 300
_DAY_S = 86_400


class Amount(Struct, frozen=True, array_like=True):
    """Tokens and money."""

    tokens: int = 0
    microusd: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.microusd + other.microusd)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(max(self.tokens - other.tokens, 0), max(self.microusd - other.microusd, 0))


class Hold(Struct, frozen=True, array_like=True):
    """What the calls that one worker has under way are expected to spend together."""

    amount: Amount
    calls: int
    until: float
    """The worker puts it off while it lives (Unix seconds). After it, the worker has died, and nothing is held."""


class Account(Struct, frozen=True, omit_defaults=True):
    """One account's state, as it is stored."""

    spent: dict[int, Amount] = {}
    """By slot of time: five minutes, a month, or all time."""
    holds: dict[str, Hold] = {}
    """By worker, so that an account stays small however many calls are under way."""
    warned_in: int = -1
    """The last day, month or age in which the soft limit was said to be reached."""
    warned_at_limit: int = -1
    """As `warned_in`, for the limit itself."""
    opened_at: float = 0.0
    """When the first call was charged to it (Unix seconds). 0: it is not stored, or an older version has stored it."""
    marked_at: float = 0.0
    """When the mark was renewed that tells a lost account from a new one (`worker.budgets.marks`)."""
    since: int = 0
    """What calls spent that ended before (Unix seconds) stands in `earlier`, what others spent in `spent`."""
    earlier: dict[int, Amount] = {}
    """By slot: added up from the usage log."""
    recount_at: float = 0.0
    """From when on `earlier` is to be added up, or once more. Until then it is provisional; 0: it is final."""
    is_lost: bool = False
    """It was found missing and is not added up yet: what was spent is not known."""
    last_end: int = 0
    """The latest end of a call that was settled (Unix seconds), by its worker's clock, which may be ahead of others."""
    is_older: bool = False
    """An older version charged calls to it before `opened_at`, or since: their records do not name it."""


class Use(Struct, frozen=True):
    """How much of a rule's limit is used."""

    spent: Amount
    held: Amount

    def share(self, rule: BudgetRule) -> float:
        """The part of the limit that is spent, by tokens or by money, whichever is more. 1.0: used up."""
        return share_of(rule, self.spent)


def use_of(account: Account, rule: BudgetRule, now: float) -> Use:
    """What is used at a moment."""
    return Use(spent_of(account, rule, now), held_by(account.holds, now))


def held_by(holds: Mapping[str, Hold], now: float) -> Amount:
    """What workers hold that live."""
    return sum((hold.amount for hold in holds.values() if hold.until > now), Amount())


def renews_at(account: Account, rule: BudgetRule, now: float) -> float | None:
    """When there is room again, if nothing else is spent (Unix seconds); None: never by itself."""
    if rule.period is Period.MONTH:
        moment = datetime.fromtimestamp(now, UTC)
        year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
        return datetime(year, month, 1, tzinfo=UTC).timestamp()
    if rule.period is Period.DAY:
        spent = together(account.spent, account.earlier)
        left, oldest = spent_of(account, rule, now), _oldest_slot(rule, now)
        for slot in sorted(slot for slot in spent if slot >= oldest):
            gone = spent[slot]
            left = Amount(left.tokens - gone.tokens, left.microusd - gone.microusd)
            if share_of(rule, left) < 1.0:
                return float((slot + 1) * _SLOT_S + _DAY_S)
    return None


def share_of(rule: BudgetRule, amount: Amount) -> float:
    """The part of a rule's limit that an amount is."""
    of_tokens = amount.tokens / rule.tokens if rule.tokens else 0.0
    of_money = amount.microusd / (rule.usd * 1e6) if rule.usd else 0.0
    return max(of_tokens, of_money)


def slot_of(period: Period, at: float) -> int:
    """The slot of time that a moment (Unix seconds) is in."""
    match period:
        case Period.DAY:
            return int(at // _SLOT_S)
        case Period.MONTH:
            moment = datetime.fromtimestamp(at, UTC)
            return moment.year * 12 + moment.month - 1
        case Period.EVER:
            return 0


def period_began_at(period: Period, now: float) -> float:
    """When what still counts began (Unix seconds)."""
    match period:
        case Period.DAY:
            return float((math.floor((now - _DAY_S) / _SLOT_S)) * _SLOT_S)
        case Period.MONTH:
            moment = datetime.fromtimestamp(now, UTC)
            return datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()
        case Period.EVER:
            return 0.0


def together(one: Mapping[int, Amount], other: Mapping[int, Amount]) -> dict[int, Amount]:
    """The sum of both, by slot."""
    slots = dict(one)
    for slot, amount in other.items():
        slots[slot] = slots.get(slot, Amount()) + amount
    return slots


def spent_of(account: Account, rule: BudgetRule, now: float) -> Amount:
    """What was spent in the period that a moment is in."""
    oldest = _oldest_slot(rule, now)
    slots = (*account.spent.items(), *account.earlier.items()) if account.earlier else account.spent.items()
    return sum((amount for slot, amount in slots if slot >= oldest), Amount())


def current(account: Account, rule: BudgetRule, now: float) -> Account:
    """Without what counts no more: earlier periods, and what dead workers held. The same object if there is none."""
    oldest = _oldest_slot(rule, now)
    if any(slot < oldest for slot in (*account.spent, *account.earlier)):
        spent = {slot: amount for slot, amount in account.spent.items() if slot >= oldest}
        earlier = {slot: amount for slot, amount in account.earlier.items() if slot >= oldest}
        account = replace(account, spent=spent, earlier=earlier)
    if any(hold.until <= now for hold in account.holds.values()):
        account = replace(account, holds={name: hold for name, hold in account.holds.items() if hold.until > now})
    return account


def _oldest_slot(rule: BudgetRule, now: float) -> int:
    """The first slot that still counts. A day's oldest slot counts whole, though a part of it is older."""
    return math.floor((now - _DAY_S) / _SLOT_S) if rule.period is Period.DAY else slot_of(rule.period, now)
