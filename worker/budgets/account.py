"""The account of one budget: what was spent in its period, and what calls under way may still spend.

Plain data and pure functions; `worker.shared_record` makes each change one step for the whole fleet. Money is counted
in millionths of a US dollar.
"""

from __future__ import annotations

import math
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
    """If the worker has not come back by then (Unix seconds), it has died, and its calls count as having spent it."""


class Account(Struct, frozen=True):
    """One account's state, as it is stored."""

    spent: dict[int, Amount] = {}
    """By slot of time: five minutes, a month, or all time."""
    holds: dict[str, Hold] = {}
    """By worker, so that an account stays small however many calls are under way."""
    warned_in: int = -1
    """The last day, month or age in which the soft limit was said to be reached."""
    warned_at_limit: int = -1
    """As `warned_in`, for the limit itself."""


class Use(Struct, frozen=True):
    """How much of a rule's limit is used."""

    spent: Amount
    held: Amount

    def share(self, rule: BudgetRule) -> float:
        """The part of the limit that is spent, by tokens or by money, whichever is more. 1.0: used up."""
        return _share(rule, self.spent)


class Verdict(Struct, frozen=True):
    """Whether a call may be sent, and whether somebody has to be warned."""

    may_go: bool
    use: Use
    is_used_up: bool = False
    """The limit is reached; if not, and the call may not go, others under way may use up the rest."""
    again_at: float | None = None
    """When it is used up: from when on there is room again (Unix seconds), if that comes by itself."""


class Warned(Struct, frozen=True):
    """A limit that was crossed just now."""

    use: Use
    is_limit: bool
    """The limit itself; if not, the soft one."""


def reserve(
    account: Account, rule: BudgetRule, holder: str, expected: Amount, *, until: float, now: float
) -> tuple[Account, Verdict]:
    """Hold `expected` for a call, if the limit leaves room beside what others hold. A call with nothing beside it may
    always try: what it will really use nobody knows."""
    current = _expired(_trimmed(account, rule, now), rule, now)
    use = Use(_spent(current, rule, now), _held(current))
    used_up = _share(rule, use.spent) >= 1.0
    fits = not current.holds or _share(rule, use.spent + use.held + expected) <= 1.0
    if rule.hard and used_up:
        return current, Verdict(False, use, is_used_up=True, again_at=renews_at(current, rule, now))
    if rule.hard and not fits:
        return current, Verdict(False, use)
    mine = current.holds.get(holder, Hold(Amount(), 0, until))
    grown = Hold(mine.amount + expected, mine.calls + 1, max(mine.until, until))
    return replace(current, holds={**current.holds, holder: grown}), Verdict(True, use, used_up)


def settle(account: Account, rule: BudgetRule, spent: Amount, *, now: float) -> tuple[Account, Warned | None]:
    """Calls have ended: what they spent is added. Says if that crossed a limit."""
    current = _expired(_trimmed(account, rule, now), rule, now)
    if spent == Amount():
        return current, None
    return _warned(_with_spent(current, rule, spent, now), rule, now)


def give_back(account: Account, holder: str, expected: Amount, *, calls: int = 1) -> Account:
    """Calls are no longer under way: what was held for them is free again."""
    mine = account.holds.get(holder)
    if mine is None:
        return account
    others = {name: hold for name, hold in account.holds.items() if name != holder}
    if mine.calls > calls:
        others[holder] = Hold(mine.amount - expected, mine.calls - calls, mine.until)
    return replace(account, holds=others)


def use_of(account: Account, rule: BudgetRule, now: float) -> Use:
    """What is used at a moment."""
    current = _expired(_trimmed(account, rule, now), rule, now)
    return Use(_spent(current, rule, now), _held(current))


def renews_at(account: Account, rule: BudgetRule, now: float) -> float | None:
    """When there is room again, if nothing else is spent (Unix seconds); None: never by itself."""
    if rule.period is Period.MONTH:
        moment = datetime.fromtimestamp(now, UTC)
        year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
        return datetime(year, month, 1, tzinfo=UTC).timestamp()
    if rule.period is Period.DAY:
        left = _spent(account, rule, now)
        for slot in sorted(_trimmed(account, rule, now).spent):
            gone = account.spent[slot]
            left = Amount(left.tokens - gone.tokens, left.microusd - gone.microusd)
            if _share(rule, left) < 1.0:
                return float((slot + 1) * _SLOT_S + _DAY_S)
    return None


def _held(account: Account) -> Amount:
    return sum((hold.amount for hold in account.holds.values()), Amount())


def _share(rule: BudgetRule, amount: Amount) -> float:
    of_tokens = amount.tokens / rule.tokens if rule.tokens else 0.0
    of_money = amount.microusd / (rule.usd * 1e6) if rule.usd else 0.0
    return max(of_tokens, of_money)


def _slot(rule: BudgetRule, now: float) -> int:
    match rule.period:
        case Period.DAY:
            return int(now // _SLOT_S)
        case Period.MONTH:
            moment = datetime.fromtimestamp(now, UTC)
            return moment.year * 12 + moment.month - 1
        case Period.EVER:
            return 0


def _oldest_slot(rule: BudgetRule, now: float) -> int:
    """The first slot that still counts. A day's oldest slot counts whole, though a part of it is older."""
    return math.floor((now - _DAY_S) / _SLOT_S) if rule.period is Period.DAY else _slot(rule, now)


def _spent(account: Account, rule: BudgetRule, now: float) -> Amount:
    oldest = _oldest_slot(rule, now)
    return sum((amount for slot, amount in account.spent.items() if slot >= oldest), Amount())


def _trimmed(account: Account, rule: BudgetRule, now: float) -> Account:
    oldest = _oldest_slot(rule, now)
    if all(slot >= oldest for slot in account.spent):
        return account
    return replace(account, spent={slot: amount for slot, amount in account.spent.items() if slot >= oldest})


def _expired(account: Account, rule: BudgetRule, now: float) -> Account:
    gone = [hold.amount for hold in account.holds.values() if hold.until <= now]
    if not gone:
        return account
    left = {name: hold for name, hold in account.holds.items() if hold.until > now}
    return _with_spent(replace(account, holds=left), rule, sum(gone, Amount()), now)


def _with_spent(account: Account, rule: BudgetRule, amount: Amount, now: float) -> Account:
    slot = _slot(rule, now)
    return replace(account, spent={**account.spent, slot: account.spent.get(slot, Amount()) + amount})


def _warned(account: Account, rule: BudgetRule, now: float) -> tuple[Account, Warned | None]:
    """A rolling day warns once a UTC day."""
    period = int(now // _DAY_S) if rule.period is Period.DAY else _slot(rule, now)
    use = Use(_spent(account, rule, now), Amount())
    share = use.share(rule)
    if share >= 1.0 and account.warned_at_limit != period:
        return replace(account, warned_in=period, warned_at_limit=period), Warned(use, is_limit=True)
    if share >= rule.soft and account.warned_in != period:
        return replace(account, warned_in=period), Warned(use, is_limit=False)
    return account, None
