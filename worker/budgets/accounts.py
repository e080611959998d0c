"""The accounts that calls of one worker are charged to, as the store has them: opened, reserved in, held on to."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace

from queue_backends import StateStore
from worker.budgets import charging, marks, recounting
from worker.budgets.account import Account
from worker.budgets.charge import Charge, OpenAccount, account_key
from worker.budgets.charging import Verdict
from worker.budgets.held import Held
from worker.budgets.recounts import sums_of, task_records, wanted
from worker.budgets.rules import BudgetRule, Scope
from worker.call_gates import ModelCallIntent

_log = structlog.get_logger(__name__)


class Accounts:
    """Those of one worker, which is one holder. What it holds counts for `hold_s` after it was last said."""

    def __init__(self, state: StateStore, *, hold_s: float, clock: Callable[[], float]) -> None:
        self.hold_s = hold_s
        self.clock = clock
        self._state = state
        self._holder = secrets.token_hex(6)
        self._open: WeakValueDictionary[str, OpenAccount] = WeakValueDictionary()
        """As long as a call is charged to them."""

    def of(self, rule: BudgetRule, name: str) -> OpenAccount:
        """The account of a rule that has this name."""
        key = account_key(rule, name)
        account = self._open.get(key)
        if account is None:
            account = self._open[key] = OpenAccount(self._state, rule, name, at_least_s=4 * self.hold_s)
        return account

    async def reserve(self, charge: Charge, intent: ModelCallIntent) -> Verdict:
        """Reserve what is expected of a call, if there is room. Raises `BackendUnavailable`."""
        is_first = charge.rule.scope is Scope.TASK and intent.id.endswith(":0:0")
        verdict = await self._ask(charge, is_first=is_first)
        while verdict.is_missing:
            await self._begin(charge.account)
            verdict = await self._ask(charge)
        return verdict

    async def _ask(self, charge: Charge, *, is_first: bool = False) -> Verdict:
        account, now = charge.account, self.clock()

        def change(stored: Account) -> tuple[Account, tuple[Verdict, float]]:
            until = now + self.hold_s
            if is_first and recounting.is_missing(stored):
                stored = recounting.opened(stored, now)
            stored, verdict = charging.reserve(
                stored, charge.rule, self._holder, account.held, charge.number, charge.expected, until=until, now=now
            )
            if not verdict.may_go or not marks.is_old(account, stored.marked_at, now):
                return stored, (verdict, 0.0)
            opened_at, is_older = stored.opened_at or now, stored.is_older or not stored.opened_at
            return replace(stored, marked_at=now, opened_at=opened_at, is_older=is_older), (verdict, opened_at)

        verdict, to_mark = await account.record.update(change)
        if to_mark:
            await marks.mark(self._state, account, to_mark)
        return verdict

    async def _begin(self, account: OpenAccount) -> None:
        """There is no such account: it is new, or it was lost."""
        now = self.clock()
        if account.rule.scope is Scope.TASK:
            await self._begin_task(account, now)
            return
        began_at = await marks.began_at(self._state, account, now)
        if began_at is not None and await marks.appears(account):
            return

        def change(stored: Account) -> tuple[Account, bool]:
            if not recounting.is_missing(stored):
                return stored, False
            if began_at is None:
                return recounting.opened(stored, now), False
            return recounting.lost(stored, began_at, self.clock(), pause_s=self._pause_s), True

        if await account.record.update(change):
            _say_lost(account)

    async def _begin_task(self, account: OpenAccount, now: float) -> None:
        """What a task has spent before stands in its journal."""
        since = int(now) + 1
        spent = await sums_of(task_records(self._state, account.name), wanted([(account, since)]))

        def change(stored: Account) -> tuple[Account, None]:
            if not recounting.is_missing(stored):
                return stored, None
            stored = recounting.opened(stored, now)
            if found := spent.get(account.key):
                stored = recounting.recounted(replace(stored, since=since), since, found, now + recounting.LOG_LAG_S)
            return stored, None

        await account.record.update(change)

    # Calls that are under way

    @property
    def have_calls(self) -> bool:
        """Whether anything is held."""
        return any(account.held.calls for account in list(self._open.values()))

    def soon_free(self) -> list[OpenAccount]:
        """Those where it was said a third of `hold_s` ago, or longer. To be asked every sixth of it."""
        soon = self.clock() + self.hold_s * 2 / 3
        return [each for each in list(self._open.values()) if each.held.calls and each.held.until <= soon]

    async def hold_longer(self, account: OpenAccount) -> None:
        """Say anew what is held. Raises `BackendUnavailable`."""
        held, now = account.held, self.clock()

        def change(stored: Account) -> tuple[Account, bool]:
            was_missing = bool(held.calls) and recounting.is_missing(stored)
            if was_missing:
                stored = self.found_lost(stored, held, now)
            return self.holding(stored, held, now), was_missing and stored.is_lost

        if await account.record.update(change):
            _say_lost(account)

    def holding(self, stored: Account, held: Held, now: float) -> Account:
        """The account says what this worker holds now."""
        return charging.holding(stored, self._holder, held, until=now + self.hold_s)

    def found_lost(self, stored: Account, held: Held, now: float) -> Account:
        """This worker has calls there under way, or had, and finds no account. Where it has never seen one, the store
        was away all the while, and it is new."""
        if held.opened_at:
            return recounting.lost(stored, held.opened_at, now, pause_s=self._pause_s)
        return replace(stored, opened_at=now)

    @property
    def _pause_s(self) -> float:
        """Within it all workers have said anew what they hold: half of `hold_s` goes by at most, see `soon_free`."""
        return self.hold_s * 2 / 3


def _say_lost(account: OpenAccount) -> None:
    _log.warning(
        "a budget's account is lost: its calls wait until it is added up from the usage log",
        budget=account.rule.name,
        account=account.name,
    )
