"""Settles calls that have ended with their accounts: each exactly once, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from queue_backends import QueueError
from worker.budgets import account as accounts
from worker.budgets.account import Account, Amount, Warned
from worker.budgets.charge import Charge
from worker.budgets.rules import BudgetRule
from worker.shared_record import Unsure

_MOST_ACCOUNTS = 100_000
_AT_ONCE = 100

_log = structlog.get_logger(__name__)

RuleNow = Callable[[BudgetRule], BudgetRule | None]
"""The rule as it is now, None if it is not in force any more."""


class _Ended(Struct, frozen=True, kw_only=True):
    """Calls of one account that have ended alike."""

    charge: Charge
    expected: Amount
    calls: int
    spent: Amount
    doubt: Unsure | None = None
    """The store was away when they were being settled: whether they are is known later."""


class Settling:
    """What one worker still has to settle, by account."""

    def __init__(
        self,
        holder: str,
        rule_now: RuleNow,
        *,
        warn: Callable[[BudgetRule, str, Warned], None],
        clock: Callable[[], float],
    ) -> None:
        self._holder = holder
        self._rule_now = rule_now
        self._warn = warn
        self._clock = clock
        self._left: dict[str, list[_Ended]] = {}
        self._has_lost = False

    @property
    def has_some(self) -> bool:
        """Whether anything is left to settle."""
        return bool(self._left)

    def add(self, charge: Charge, spent: Amount) -> None:
        """A call has ended, or was not sent and has spent nothing."""
        ended = _Ended(charge=charge, expected=charge.expected, calls=1, spent=spent)
        known = self._left.get(charge.key)
        if known is None:
            if len(self._left) >= _MOST_ACCOUNTS:
                self._say_lost()
                return
            self._left[charge.key] = [ended]
        elif _are_alike(known[-1], ended):
            last = known[-1]
            known[-1] = replace(
                last, expected=last.expected + ended.expected, calls=last.calls + 1, spent=last.spent + spent
            )
        else:
            known.append(ended)

    async def write(self) -> QueueError | None:
        """Settle what has ended; what the store cannot take now stays for later, and its error is returned. Not to be
        cancelled in the middle."""
        taken, self._left = list(self._left.items()), {}
        failed: QueueError | None = None
        for start in range(0, len(taken), _AT_ONCE):
            part = taken[start : start + _AT_ONCE]
            for error in await asyncio.gather(*(self._write_one(key, ended) for key, ended in part)):
                failed = error or failed
        return failed

    async def _write_one(self, key: str, ended: list[_Ended]) -> QueueError | None:
        def change(account: Account) -> tuple[Account, list[Warned]]:
            return self._settled(account, ended)

        charge = ended[0].charge
        try:
            warnings = await charge.record.update(change)
        except QueueError as error:
            if isinstance(error, Unsure):
                ended = [each if _is_done(each) else replace(each, doubt=error) for each in ended]
            self._left[key] = [*ended, *self._left.get(key, [])]
            return error
        except Exception:  # noqa: BLE001 - such as an account that somebody has written by hand: the others go on
            _log.exception("calls cannot be settled with a budget's account", account=key, calls=len(ended))
            return None
        if (rule := self._rule_now(charge.rule)) is not None:
            for warned in warnings:
                self._warn(rule, charge.account, warned)
        return None

    def _settled(self, account: Account, ended: Sequence[_Ended]) -> tuple[Account, list[Warned]]:
        warnings, now = [], self._clock()
        for each in ended:
            if _is_done(each):
                continue
            rule = self._rule_now(each.charge.rule) or each.charge.rule
            account, warned = accounts.settle(account, rule, each.spent, now=now)
            if each.charge.was_reserved():
                account = accounts.give_back(account, self._holder, each.expected, calls=each.calls)
            if warned is not None:
                warnings.append(warned)
        return account, warnings

    def _say_lost(self) -> None:
        if not self._has_lost:
            self._has_lost = True
            _log.error("budgets forget what calls have spent: too many accounts wait for the store")


def _is_done(ended: _Ended) -> bool:
    """Whether an earlier try, whose answer was lost, has settled it after all."""
    return ended.doubt is not None and ended.doubt.was_made is True


def _are_alike(last: _Ended, ended: _Ended) -> bool:
    """Whether two are settled in the same way, so that one sum will do."""
    one, other = last.charge, ended.charge
    return (
        last.doubt is None
        and one.doubt is None
        and other.doubt is None
        and one.is_held == other.is_held
        and one.rule == other.rule
        and one.record is other.record
    )
