"""Says that a budget has reached its soft limit, or its limit: in the log, in the metrics, and to a hook."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct

from worker.budgets.charging import Warned
from worker.budgets.rules import BudgetRule
from worker.budgets.wording import used_up
from worker.metrics import Metrics

_MOST_WAITING = 1_000
_LAST_WORDS_S = 10.0

_log = structlog.get_logger(__name__)


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


OnWarning = Callable[[BudgetWarning], Awaitable[None]]


class Warner:
    """Hands warnings to a hook one after the other, so that a slow one holds up nothing else."""

    def __init__(self, metrics: Metrics, hook: OnWarning | None) -> None:
        self._metrics = metrics
        self._hook = hook
        self._waiting: deque[BudgetWarning] = deque(maxlen=_MOST_WAITING)
        self._news = asyncio.Event()
        self._is_ending = False

    def warn(self, rule: BudgetRule, account: str, warned: Warned) -> None:
        """Log and count it; the hook hears of it a little later."""
        spent = warned.use.spent
        warning = BudgetWarning(
            budget=rule.name,
            scope=rule.scope.value,
            account=account,
            period=rule.period.value,
            is_limit=warned.is_limit,
            tokens_used=spent.tokens,
            tokens_limit=rule.tokens,
            usd_used=spent.microusd / 1e6,
            usd_limit=rule.usd,
            text=used_up(rule, account, spent, None, is_limit=warned.is_limit),
        )
        self._metrics.budget(rule.name).warned += 1
        _log.warning(warning.text, budget=rule.name, account=account)
        if self._hook is not None:
            self._waiting.append(warning)
            self._news.set()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While this is entered, warnings are handed on; at its end, those that are left, if that is quick."""
        telling = asyncio.create_task(self._tell(), name="budget warnings")
        try:
            yield
        finally:
            self._is_ending = True
            self._news.set()
            await asyncio.wait([telling], timeout=_LAST_WORDS_S)
            telling.cancel()
            await asyncio.wait([telling])
            if self._waiting:
                _log.warning("warnings of budgets were not handed on in time", warnings=len(self._waiting))

    async def _tell(self) -> None:
        while self._waiting or not self._is_ending:
            if not self._waiting:
                await self._news.wait()
                self._news.clear()
                continue
            warning = self._waiting.popleft()
            try:
                if self._hook is not None:
                    await self._hook(warning)
            except Exception:  # noqa: BLE001 - a hook is anybody's code
                _log.exception("the hook of a budget's warning has failed", budget=warning.budget)
