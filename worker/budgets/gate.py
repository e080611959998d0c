"""The gate that keeps the fleet's budgets: reserve before each model call, settle after it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from providers import BudgetExceeded
from providers.errors import PERMANENT_PREFIX
from providers.pricing import PriceBook
from providers.tool_loop import TurnRecord
from queue_backends import QueueError, StateStore, TokenUsage, UsageRecord
from worker.budgets.account import Amount
from worker.budgets.accounts import Accounts
from worker.budgets.charge import Charge, OpenAccount
from worker.budgets.parts import in_parts
from worker.budgets.recounts import Recounts, ended_at, spent_by
from worker.budgets.rules import TEAM_PREFIX, BudgetRule, Rules, account_of
from worker.budgets.settling import Settling
from worker.budgets.warning import OnWarning, Warner
from worker.budgets.wording import used_up
from worker.call_estimates import CallEstimates
from worker.call_gates import ModelCallIntent, is_charged_as_expected
from worker.errors import Postponed
from worker.metrics import Metrics

_WAIT_S = 5.0
_RECHECK_S = 0.5
_RETRY_S = 1.0
_RETRY_MOST_S = 30.0
_LONGEST_HOLD_S = 30.0

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class BudgetGate:
    """Budgets of the whole fleet, as one gate before each model call; to be entered by `kept`.

    Each call is charged to one account of every rule that is about it. A call that others under way may leave no room
    for waits for them, at most `wait_s`, and is postponed then. What is reserved is free again `lease_s` (at most 30 s)
    after its worker has died. An account that was lost is added up from the usage log. A store that is away allows
    calls; what they spend is settled when it is back.
    """

    def __init__(
        self,
        state: StateStore,
        rules: Rules,
        *,
        prices: PriceBook,
        estimates: CallEstimates,
        metrics: Metrics,
        lease_s: float,
        on_warning: OnWarning | None = None,
        wait_s: float = _WAIT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._prices = prices
        self._estimates = estimates
        self._metrics = metrics
        self._wait_s = wait_s
        self._clock = clock
        self._numbers = itertools.count()
        self._accounts = Accounts(state, hold_s=min(lease_s, _LONGEST_HOLD_S), clock=clock)
        self._charged: dict[str, tuple[Charge, ...]] = {}
        self._warner = Warner(metrics, on_warning)
        self._settling = Settling(self._accounts, self._rule_now, warn=self._warner.warn)
        self._steps: set[asyncio.Task[Any]] = set()
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._recounts = Recounts(state, clock=clock, on_done=self._settled.set)
        self._has_calls = asyncio.Event()
        """Calls are under way: what is held for them has to be said again and again."""
        self._is_store_down = False
        self._rules: Rules = {}
        self.change(rules)

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
        self._rules = dict(sorted(rules.items()))  # all workers reserve in the same order: no two wait for each other
        self._settled.set()

    # Around a call

    async def enter(self, intent: ModelCallIntent) -> None:
        """Reserve what the call is expected to use.

        Raises `BudgetExceeded` (permanent) where a limit is used up, `Postponed` where calls under way leave no room.
        """
        give_up_at = time.monotonic() + self._wait_s
        while True:
            self._settled.clear()
            full = await self._reserve_all(intent, self._charges(intent))
            if full is None:
                return
            if (left_s := give_up_at - time.monotonic()) <= 0:
                raise Postponed(
                    f"calls under way may use up budget {full.rule.name!r} of {full.rule.scope} {full.account.name}",
                    retry_in_s=max(self._wait_s, 1.0),
                )
            with contextlib.suppress(TimeoutError):  # other workers settle too, unheard by this one
                async with asyncio.timeout(min(left_s, _RECHECK_S)):  # `wait_for` loses cancellations before 3.12
                    await self._settled.wait()

    async def leave(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """Settle the call with what it used. While the store is away it is not waited for."""
        self.note(intent, record, usage)
        if not self._is_store_down:
            await self._whole(self._settle())

    def note(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """As `leave`, without waiting: the store hears of it a little later."""
        for charge in self._charged.pop(intent.id, ()):
            self._settling.add(charge, _spent(charge, usage), ended_at(usage))
            self._news.set()

    def abandon(self, intent: ModelCallIntent) -> None:
        """The call was not sent: it has used nothing."""
        self._give_back(self._charged.pop(intent.id, ()))

    # Reserving

    def _charges(self, intent: ModelCallIntent) -> list[Charge]:
        expected: Amount | None = None
        charges = []
        for rule in (*self._rules.values(), *intent.budgets):
            name = account_of(rule, intent)
            if name is not None:
                expected = expected or self._expected(intent)
                account = self._accounts.of(rule, name)
                charges.append(Charge(rule=rule, account=account, expected=expected, number=next(self._numbers)))
        return charges

    def _expected(self, intent: ModelCallIntent) -> Amount:
        tokens = self._estimates.of(intent)
        usage = TokenUsage(input_tokens=tokens.input_tokens, output_tokens=tokens.output_tokens)
        usd = self._prices.cost_usd(intent.provider, intent.config.model, usage) or 0.0
        return Amount(usage.total_tokens, math.ceil(usd * 1e6))

    async def _reserve_all(self, intent: ModelCallIntent, charges: list[Charge]) -> Charge | None:
        """Reserve everywhere or nowhere; the account that has no room, if there is one."""
        reserved: list[Charge] = []
        try:
            for charge in charges:
                if (held := await self._whole(self._reserve(charge, intent))) is None:
                    self._give_back(reserved)
                    return charge
                reserved.append(held)
        except BaseException:
            self._give_back(reserved)
            raise
        self._charged[intent.id] = tuple(reserved)
        if reserved:
            expected = reserved[0].expected
            intent.receipt.charged_to = tuple(charge.account.key for charge in reserved)
            intent.receipt.expected = expected.tokens, expected.microusd
            self._has_calls.set()
        return None

    async def _reserve(self, charge: Charge, intent: ModelCallIntent) -> Charge | None:
        try:
            verdict = await self._accounts.reserve(charge, intent)
        except QueueError as error:
            self._say_store_is_down(error)
            charge.account.held.hold(charge.number, charge.expected)
            return charge
        self._is_store_down = False
        if verdict.is_due:
            self._recounts.ask(charge.account)
        if verdict.is_used_up and not verdict.may_go:
            self._metrics.budget(charge.rule.name).refused += 1
            text = used_up(charge.rule, charge.account.name, verdict.use.spent, verdict.again_at)
            raise BudgetExceeded(PERMANENT_PREFIX + text)
        return charge if verdict.may_go else None

    def _give_back(self, charges: tuple[Charge, ...] | list[Charge]) -> None:
        for charge in charges:
            self._settling.add(charge, Amount(), self._clock())
            self._news.set()

    # Settling

    async def _settle(self) -> None:
        if self._settling.has_some:
            error = await self._settling.write()
            if error is None:
                self._is_store_down = False
            else:
                self._say_store_is_down(error)
                self._news.set()
        self._settled.set()

    def _rule_now(self, rule: BudgetRule) -> BudgetRule | None:
        """The rule as it is now; its limits may have been changed since the call began."""
        now = self._rules.get(rule.name)
        if now is None and rule.name.startswith(TEAM_PREFIX):  # it came with its task, and is as the task's plan has it
            return rule
        return now if now is not None and (now.scope, now.period) == (rule.scope, rule.period) else None

    async def _whole(self, step: Coroutine[Any, Any, T]) -> T:
        """Do a step that is not cut in two: if the caller is cancelled it goes on, and what it reserved is given
        back."""
        task = asyncio.create_task(step)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._unwanted)
            raise

    def _unwanted(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is None and isinstance(held := task.result(), Charge):
            self._give_back([held])

    # In the background

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[BudgetGate]:
        """While this is entered, what cancelled runs spent is settled and warnings are handed on."""
        async with self._warner.kept():
            keepers = [
                asyncio.create_task(self._keep(), name="budget keeper"),
                asyncio.create_task(self._hold_on(), name="budget holds"),
                asyncio.create_task(self._recounts.run(), name="budget recounts"),
            ]
            try:
                yield self
            finally:
                for keeper in keepers:
                    keeper.cancel()
                while self._steps or not all(keeper.done() for keeper in keepers):
                    await asyncio.wait([*keepers, *self._steps])
                await self._settle()

    async def _hold_on(self) -> None:
        """Put off, again and again, the moment at which what is held counts no more."""
        while True:
            await self._has_calls.wait()
            await asyncio.sleep(self._accounts.hold_s / 6)
            if not self._accounts.have_calls:
                self._has_calls.clear()
            await in_parts(self._accounts.soon_free(), lambda account: self._whole(self._hold_longer(account)))

    async def _hold_longer(self, account: OpenAccount) -> None:
        try:
            await self._accounts.hold_longer(account)
        except QueueError as error:
            self._say_store_is_down(error)
        except Exception:  # noqa: BLE001 - such as an account that somebody has written by hand: the others go on
            _log.exception("what is held in a budget's account cannot be said", account=account.key)

    async def _keep(self) -> None:
        pause_s = _RETRY_S
        while True:
            await self._news.wait()
            self._news.clear()
            await self._whole(self._settle())
            if self._is_store_down:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RETRY_MOST_S)
            else:
                pause_s = _RETRY_S

    def _say_store_is_down(self, error: QueueError) -> None:
        if not self._is_store_down:
            self._is_store_down = True
            _log.warning("budgets cannot be kept: calls are allowed, and settled later", error=str(error))


def _spent(charge: Charge, usage: UsageRecord) -> Amount:
    """What a call has used. One that was answered, or cut, by a provider that does not say what it used has used what
    was expected of it; one that failed, nothing."""
    return charge.expected if is_charged_as_expected(usage) else spent_by(usage)
