"""The gate that keeps the fleet's budgets: reserve before each model call, settle after it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from msgspec import Struct

from providers import BudgetExceeded
from providers.errors import PERMANENT_PREFIX
from providers.pricing import PriceBook
from providers.tool_loop import TurnRecord
from queue_backends import QueueError, StateStore, TokenUsage, UsageRecord
from worker.budgets import account as accounts
from worker.budgets.account import Account, Amount, Verdict, Warned
from worker.budgets.rules import BudgetRule, Period, Rules, Scope, account_of
from worker.budgets.wording import used_up
from worker.call_estimates import CallEstimates
from worker.call_gates import ModelCallIntent
from worker.errors import Postponed
from worker.metrics import Metrics
from worker.shared_record import SharedRecord

PREFIX = "budget:"

_WAIT_S = 5.0
_RECHECK_S = 0.5
_RETRY_S = 1.0
_RETRY_MOST_S = 30.0
_SPARE_S = 60.0
_MOST_UNSETTLED = 10_000
_MOST_RECORDS = 10_000
_LONGEST_ACCOUNT_CHARS = 200
_TTL_S: Mapping[Scope, float] = {Scope.TASK: 8 * 86_400.0, Scope.SESSION: 90 * 86_400.0}
_PERIOD_TTL_S: Mapping[Period, float] = {Period.DAY: 2 * 86_400.0, Period.MONTH: 62 * 86_400.0}

_log = structlog.get_logger(__name__)

OnWarning = Callable[["BudgetWarning"], Awaitable[None]]


class BudgetWarning(Struct, frozen=True, kw_only=True):
    """A soft limit, or a limit itself, was crossed. Said once per account and period, by one worker of the fleet."""

    budget: str
    scope: str
    account: str
    period: str
    is_limit: bool
    tokens_used: int
    tokens_limit: int | None
    usd_used: float
    usd_limit: float | None
    text: str


class _Charge(Struct, frozen=True):
    """One account that a call is charged to, and what is held there for it."""

    rule: BudgetRule
    account: str
    expected: Amount

    @property
    def key(self) -> str:
        return account_key(self.rule, self.account)


class _Settlement(Struct, frozen=True):
    charge: _Charge
    spent: Amount


class BudgetGate:
    """Budgets of the whole fleet, as one gate before each model call; an async context manager.

    Each call is charged to one account of every rule that is about it. A call that others under way may leave no room
    for waits for them, at most `wait_s`, and is postponed then. A store that is away allows calls; what they spend is
    settled when it is back.
    """

    def __init__(
        self,
        state: StateStore,
        rules: Rules,
        *,
        prices: PriceBook,
        estimates: CallEstimates,
        metrics: Metrics,
        run_timeout_s: float,
        on_warning: OnWarning | None = None,
        wait_s: float = _WAIT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._rules: Rules = dict(rules)
        self._prices = prices
        self._estimates = estimates
        self._metrics = metrics
        self._hold_s = run_timeout_s + _SPARE_S
        self._on_warning = on_warning
        self._wait_s = wait_s
        self._clock = clock
        self._holder = secrets.token_hex(6)
        self._records: dict[str, SharedRecord[Account]] = {}
        self._charged: dict[str, tuple[_Charge, ...]] = {}
        self._unsettled: list[_Settlement] = []
        self._warnings: list[BudgetWarning] = []
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._is_store_down = False

    @property
    def active(self) -> bool:
        """Whether there is any budget."""
        return bool(self._rules)

    @property
    def rules(self) -> Rules:
        """The budgets in force."""
        return self._rules

    def change(self, rules: Rules) -> None:
        """From now on these are the budgets; calls that wait look again at once."""
        self._rules = dict(rules)
        self._settled.set()

    async def enter(self, intent: ModelCallIntent) -> None:
        """Reserve what the call is expected to use.

        Raises `BudgetExceeded` (permanent) where a limit is used up, `Postponed` where calls under way leave no room.
        """
        give_up_at = time.monotonic() + self._wait_s
        while True:
            self._settled.clear()
            charges = self._charges(intent)
            full = await self._reserve_all(intent, charges)
            if full is None:
                return
            if (left_s := give_up_at - time.monotonic()) <= 0:
                raise Postponed(
                    f"calls under way may use up budget {full.rule.name!r} of {full.rule.scope} {full.account}",
                    retry_in_s=max(self._wait_s, 1.0),
                )
            with contextlib.suppress(TimeoutError):  # other workers settle too, unheard by this one
                await asyncio.wait_for(self._settled.wait(), min(left_s, _RECHECK_S))

    async def leave(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """Settle the call with what it used."""
        self.note(intent, record, usage)
        await self._settle()

    def note(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """As `leave`, without waiting: the store hears of it a little later."""
        charges = self._charged.pop(intent.id, ())
        spent = Amount(usage.usage.total_tokens, round((usage.cost_usd or 0.0) * 1e6))
        if len(self._unsettled) < _MOST_UNSETTLED:
            self._unsettled += [_Settlement(charge, spent) for charge in charges]
        self._news.set()

    def abandon(self, intent: ModelCallIntent) -> None:
        """The call was not sent: it has used nothing."""
        self._unsettled += [_Settlement(charge, Amount()) for charge in self._charged.pop(intent.id, ())]
        self._news.set()

    # Reserving

    def _charges(self, intent: ModelCallIntent) -> tuple[_Charge, ...]:
        expected: Amount | None = None
        charges = []
        for rule in self._rules.values():
            account = account_of(rule, intent)
            if account is not None:
                expected = expected or self._expected(intent)
                charges.append(_Charge(rule, account[:_LONGEST_ACCOUNT_CHARS], expected))
        return tuple(charges)

    def _expected(self, intent: ModelCallIntent) -> Amount:
        tokens = self._estimates.of(intent)
        usage = TokenUsage(input_tokens=tokens.input_tokens, output_tokens=tokens.output_tokens)
        usd = self._prices.cost_usd(intent.provider, intent.config.model, usage) or 0.0
        return Amount(usage.total_tokens, math.ceil(usd * 1e6))

    async def _reserve_all(self, intent: ModelCallIntent, charges: tuple[_Charge, ...]) -> _Charge | None:
        """Reserve everywhere or nowhere; the account that has no room, if there is one."""
        reserved: list[_Charge] = []
        full: _Charge | None = None
        try:
            for charge in charges:
                if not await self._reserve(charge):
                    full = charge
                    break
                reserved.append(charge)
        except BaseException:
            self._give_back(reserved)
            raise
        if full is None:
            self._charged[intent.id] = tuple(reserved)
        else:
            self._give_back(reserved)
        return full

    async def _reserve(self, charge: _Charge) -> bool:
        now = self._clock()

        def change(account: Account) -> tuple[Account, Verdict]:
            until = now + self._hold_s
            return accounts.reserve(account, charge.rule, self._holder, charge.expected, until=until, now=now)

        try:
            verdict = await self._record(charge).update(change)
        except QueueError as error:
            self._say_store_is_down(error)
            return True
        self._is_store_down = False
        if verdict.may_go:
            return True
        if verdict.is_used_up:
            self._metrics.budget(charge.rule.name).refused += 1
            again_at = accounts.renews_at(await self._record(charge).read(), charge.rule, now)
            raise BudgetExceeded(PERMANENT_PREFIX + used_up(charge.rule, charge.account, verdict.use.spent, again_at))
        return False

    def _give_back(self, charges: list[_Charge]) -> None:
        if charges:
            self._unsettled += [_Settlement(charge, Amount()) for charge in charges]
            self._news.set()

    def _record(self, charge: _Charge) -> SharedRecord[Account]:
        record = self._records.get(charge.key)
        if record is None:
            if len(self._records) >= _MOST_RECORDS:
                self._records.clear()
            record = self._records[charge.key] = open_account(self._state, charge.rule, charge.account)
        return record

    # Settling

    async def _settle(self) -> None:
        """Write what has ended. What the store cannot take now stays for later."""
        taken, self._unsettled = self._unsettled, []
        by_key: dict[str, list[_Settlement]] = {}
        for settlement in taken:
            by_key.setdefault(settlement.charge.key, []).append(settlement)
        left = dict(by_key)
        try:
            for key, settlements in by_key.items():
                await self._settle_one(settlements)
                del left[key]
            self._is_store_down = False
        except QueueError as error:
            self._say_store_is_down(error)
        finally:
            self._unsettled += [settlement for settlements in left.values() for settlement in settlements]
            self._settled.set()

    async def _settle_one(self, settlements: list[_Settlement]) -> None:
        now, charge = self._clock(), settlements[0].charge

        def change(account: Account) -> tuple[Account, list[Warned]]:
            warnings = []
            for item in settlements:
                rule = self._present(item.charge.rule)
                account, warned = accounts.settle(
                    account, rule, self._holder, item.charge.expected, item.spent, now=now
                )
                if warned is not None:
                    warnings.append(warned)
            return account, warnings

        for warned in await self._record(charge).update(change):
            self._warn(charge, warned)

    def _present(self, rule: BudgetRule) -> BudgetRule:
        """The rule as it is now; its limits may have been changed since the call began."""
        now = self._rules.get(rule.name, rule)
        return now if now.period is rule.period else rule

    def _warn(self, charge: _Charge, warned: Warned) -> None:
        rule, spent = self._present(charge.rule), warned.use.spent
        warning = BudgetWarning(
            budget=rule.name,
            scope=rule.scope.value,
            account=charge.account,
            period=rule.period.value,
            is_limit=warned.is_limit,
            tokens_used=spent.tokens,
            tokens_limit=rule.tokens,
            usd_used=spent.microusd / 1e6,
            usd_limit=rule.usd,
            text=used_up(rule, charge.account, spent, None, is_limit=warned.is_limit),
        )
        self._metrics.budget(rule.name).warned += 1
        _log.warning(warning.text, budget=rule.name, account=charge.account)
        if self._on_warning is not None:
            self._warnings.append(warning)
            self._news.set()

    # In the background

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[BudgetGate]:
        """While this is entered, what cancelled runs spent is settled and warnings are handed on."""
        async with AsyncExitStack() as stack:
            keeper = asyncio.create_task(self._keep(), name="budget keeper")
            stack.push_async_callback(self._last_words, keeper)
            yield self

    async def _keep(self) -> None:
        pause_s = _RETRY_S
        while True:
            await self._news.wait()
            self._news.clear()
            await self._settle()
            await self._hand_on_warnings()
            if self._unsettled:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RETRY_MOST_S)
                self._news.set()
            else:
                pause_s = _RETRY_S

    async def _hand_on_warnings(self) -> None:
        taken, self._warnings = self._warnings, []
        for warning in taken:
            if self._on_warning is not None:
                await self._on_warning(warning)

    async def _last_words(self, keeper: asyncio.Task[None]) -> None:
        keeper.cancel()
        await asyncio.wait([keeper])
        await self._settle()
        await self._hand_on_warnings()

    def _say_store_is_down(self, error: QueueError) -> None:
        if not self._is_store_down:
            self._is_store_down = True
            _log.warning("budgets cannot be kept: calls are allowed, and settled later", error=str(error))


def account_key(rule: BudgetRule, account: str) -> str:
    """Where an account is stored."""
    return f"{PREFIX}{rule.name}:{rule.period}:{account}"


def open_account(state: StateStore, rule: BudgetRule, account: str) -> SharedRecord[Account]:
    """The shared record of one account. Those of tasks, sessions, days and months end by themselves."""
    ttl_s = min(_TTL_S.get(rule.scope, math.inf), _PERIOD_TTL_S.get(rule.period, math.inf))
    return SharedRecord(state, account_key(rule, account), Account, ttl_s=None if ttl_s == math.inf else ttl_s)
