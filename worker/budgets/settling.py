"""Settles calls that have ended with their accounts: each exactly once, whatever the store does meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct

from queue_backends import QueueError
from worker.budgets import charging
from worker.budgets.account import Account, Amount
from worker.budgets.accounts import Accounts
from worker.budgets.charge import Charge, OpenAccount
from worker.budgets.charging import Warned
from worker.budgets.parts import in_parts
from worker.budgets.recounting import is_missing
from worker.budgets.rules import BudgetRule
from worker.shared_record import Unsure

_MOST_ACCOUNTS = 100_000

_log = structlog.get_logger(__name__)

RuleNow = Callable[[BudgetRule], BudgetRule | None]
"""The rule as it is now, None if it is not in force any more."""


class _Ended(Struct, kw_only=True):
    """Calls of one account that have ended in the same second."""

    rule: BudgetRule
    account: OpenAccount
    ended_at: int
    """Unix seconds."""
    spent: Amount
    numbers: list[int]
    """Of charges that are still held."""
    doubt: Unsure | None = None
    """The store was away when they were being settled: whether they are is known later."""


class Settling:
    """What one worker still has to settle, by account."""

    def __init__(
        self,
        accounts: Accounts,
        rule_now: RuleNow,
        *,
        warn: Callable[[BudgetRule, str, Warned], None],
    ) -> None:
        self._accounts = accounts
        self._rule_now = rule_now
        self._warn = warn
        self._left: dict[str, list[_Ended]] = {}
        self._has_lost = False

    @property
    def has_some(self) -> bool:
        """Whether anything is left to settle."""
        return bool(self._left)

    def add(self, charge: Charge, spent: Amount, ended_at: float) -> None:
        """A call has ended, or was not sent and has spent nothing."""
        account, second = charge.account, int(ended_at)
        known = self._left.get(account.key)
        if known is None:
            if len(self._left) >= _MOST_ACCOUNTS:
                account.held.drop(charge.number)
                self._say_lost()
                return
            known = self._left[account.key] = []
        last = known[-1] if known else None
        if last is not None and last.doubt is None and last.rule == charge.rule and last.ended_at == second:
            last.spent += spent
            last.numbers.append(charge.number)
        else:
            known.append(
                _Ended(rule=charge.rule, account=account, ended_at=second, spent=spent, numbers=[charge.number])
            )

    async def write(self) -> QueueError | None:
        """Settle what has ended; what the store cannot take now stays for later, and its error is returned. Not to be
        cancelled in the middle."""
        taken, self._left = list(self._left.items()), {}
        failed: QueueError | None = None
        for error in await in_parts(taken, lambda left: self._write_one(*left)):
            failed = error or failed
        return failed

    async def _write_one(self, key: str, ended: list[_Ended]) -> QueueError | None:
        def change(account: Account) -> tuple[Account, list[Warned]]:
            return self._settled(account, ended)

        opened = ended[0].account
        try:
            warnings = await opened.record.update(change)
        except QueueError as error:
            for each in ended:
                opened.held.drop(*each.numbers)
                each.numbers = []
                if isinstance(error, Unsure) and not _is_done(each):
                    each.doubt = error
            self._left[key] = [*ended, *self._left.get(key, [])]
            return error
        except Exception:  # noqa: BLE001 - such as an account that somebody has written by hand: the others go on
            _log.exception("calls cannot be settled with a budget's account", account=key, calls=len(ended))
            return None
        if (rule := self._rule_now(ended[0].rule)) is not None:
            for warned in warnings:
                self._warn(rule, opened.name, warned)
        return None

    def _settled(self, account: Account, ended: Sequence[_Ended]) -> tuple[Account, list[Warned]]:
        warnings, now, held = [], self._accounts.clock(), ended[0].account.held
        for each in ended:
            held.try_to_drop(*each.numbers)
        unsettled = [each for each in ended if each.spent != Amount() and not _is_done(each)]
        if is_missing(account) and (unsettled or held.calls):
            account = self._accounts.found_lost(account, held, now)
        for each in unsettled:
            rule = self._rule_now(each.rule) or each.rule
            account, warned = charging.settle(account, rule, each.spent, ended_at=each.ended_at, now=now)
            if warned is not None:
                warnings.append(warned)
        return self._accounts.holding(account, held, now), warnings

    def _say_lost(self) -> None:
        if not self._has_lost:
            self._has_lost = True
            _log.error("budgets forget what calls have spent: too many accounts wait for the store")


def _is_done(ended: _Ended) -> bool:
    """Whether an earlier try, whose answer was lost, has settled it after all."""
    return ended.doubt is not None and ended.doubt.was_made is True
