"""The gates that every model call of a worker has to pass, put together from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from providers.pricing import PriceBook
from providers.transport import Transport
from queue_backends import StateStore
from worker.budgets.daily_window import DailyWindow
from worker.budgets.gate import BudgetGate
from worker.budgets.live import following
from worker.budgets.warning import BudgetWarning, OnWarning
from worker.budgets.webhook import BudgetWebhook
from worker.call_estimates import CallEstimates
from worker.call_gates import CallGate
from worker.definitions import Definitions
from worker.live_settings import LiveSettings
from worker.metrics import Metrics
from worker.rate_limits import live as rate_limits
from worker.rate_limits.gate import RateLimitGate
from worker.settings import Settings
from worker.teams.notify.service import Notifications

if TYPE_CHECKING:
    from worker.budgets.spend_records import SpendRecords


@asynccontextmanager
async def open_gates(
    settings: Settings,
    state: StateStore,
    live: LiveSettings,
    http: Transport,
    *,
    prices: PriceBook,
    estimates: CallEstimates,
    metrics: Metrics,
    definitions: Definitions | None = None,
) -> AsyncIterator[tuple[CallGate, ...]]:
    """The gates in the order in which a call enters them: what may be spent, then how fast."""
    async with AsyncExitStack() as stack:
        window = DailyWindow(
            state,
            namespace=settings.namespace,
            agent=settings.agent_name,
            limit_tokens=settings.daily_token_limit,
        )
        stack.push_async_callback(window.flush)
        budgets = BudgetGate(
            state,
            settings.budgets,
            prices=prices,
            estimates=estimates,
            metrics=metrics,
            lease_s=settings.backend.lease_s,
            on_warning=_on_warning(settings, state, http),
        )
        await stack.enter_async_context(budgets.kept())
        stack.enter_context(following(budgets, settings.budgets, live, definitions))
        speed = RateLimitGate(
            state, settings.limits, estimates=estimates, metrics=metrics, wait_s=settings.limit_wait_s
        )
        await stack.enter_async_context(speed.kept())
        stack.enter_context(rate_limits.following(speed, settings.limits, live))
        spend = _spend_records(settings)
        if spend is None:
            yield window, budgets, speed
            return
        await stack.enter_async_context(spend.kept())
        yield window, budgets, speed, spend


def _spend_records(settings: Settings) -> SpendRecords | None:
    """Those of kubeswarm's operator, for a worker that it has started for a team."""
    url = settings.spend_url or settings.queue_url.partition("?")[0]
    if not settings.team_name or url.partition("://")[0] not in ("redis", "rediss", "unix"):
        return None
    from worker.budgets.spend_records import SpendRecords  # most workers need no further Redis

    return SpendRecords(
        url,
        namespace=settings.namespace,
        team=settings.team_name,
        role=settings.team_role,
        keep_s=settings.usage_retention_days * 86_400.0,
    )


def _on_warning(settings: Settings, state: StateStore, http: Transport) -> OnWarning:
    """Who hears of a budget that runs out: notification policies, and the webhook of the settings."""
    webhook = BudgetWebhook(http, settings.budget_webhook) if settings.budget_webhook else None
    notifications = Notifications(state)

    async def tell(warning: BudgetWarning) -> None:
        try:
            await notifications.on_budget(warning)
        finally:
            if webhook is not None:
                await webhook(warning)

    return tell
