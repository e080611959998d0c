"""The ops room: what a gateway knows of its fleet, sampled and told to all who watch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

import structlog

from queue_backends import Backend, QueueError, TaskState
from worker.background import BackgroundWork
from worker.budgets.live import rules_in_force
from worker.definitions import Definitions
from worker.fleet.monitor import Monitor, Snapshot
from worker.gateway.approval_desk import ApprovalDesk
from worker.gateway.ops.budgets_view import BudgetsView, budgets_view
from worker.gateway.ops.feed import Feed
from worker.gateway.ops.history import FINE_EVERY_S, History, Sample, sample_of
from worker.gateway.ops.limits_view import LimitsView, limits_view
from worker.gateway.ops.provider_checks import ProviderChecks
from worker.gateway.ops.usage_book import UsageBook, UsageFilter
from worker.gateway.ops.views import RunningView, queue_view, running_views, workers_view
from worker.gateway.run_changes import RunChanges
from worker.known_cost import known_cost_usd
from worker.ledger.grouping import Group
from worker.live_settings import LiveSettings
from worker.settings import Settings
from worker.usage import UsageTotals

TICK_S = 1.0
"""So often the watchers are told what has changed."""
ACCOUNTS_EVERY_S = 5.0
"""So often budgets and rate limits are read for them, and less often where that takes long."""
_ACCOUNTS_SHARE = 20
MOST_RUNNING = 200
"""So many running tasks are told of."""
DAY_S = 86_400.0

log = structlog.get_logger(__name__)


class OpsRoom(BackgroundWork):
    """Entered (`async with`), it samples the queue all the time and reads more while somebody watches."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        live: LiveSettings,
        definitions: Definitions | None = None,
        approvals: ApprovalDesk | None = None,
        run_changes: RunChanges | None = None,
    ) -> None:
        """With `definitions`, the agents' own budgets are among the fleet's."""
        super().__init__(self._observe, name="ops room")
        self._approvals = approvals
        self._run_changes = run_changes
        self._settings = settings
        self._definitions = definitions
        self._backend = backend
        self._live = live
        self._monitor = Monitor(backend)
        self.snapshot = Snapshot(at=0.0)
        """The fleet, a second or two ago."""
        self.history = History()
        self.feed = Feed()
        self.usage = UsageBook(backend.state, keep_s=settings.usage_retention_days * DAY_S)
        self.checks = ProviderChecks(settings, live, backend.state)
        self._sample: Sample | None = None
        self._running: list[RunningView] = []
        self._budgets: BudgetsView | None = None
        self._limits: LimitsView | None = None
        self._accounts_due_at = 0.0

    async def refresh(self) -> Snapshot:
        """The fleet as it is now, asked anew: for those who have just changed something."""
        self.snapshot = await self._monitor.snapshot()
        return self.snapshot

    async def running(self, tenant: str = "") -> list[RunningView]:
        """What runs now, of one tenant or of all, the longest running first, at most `MOST_RUNNING`.

        Raises `BackendUnavailable`.
        """
        statuses = await self._backend.queue.list_tasks(limit=MOST_RUNNING, states=(TaskState.RUNNING,))
        views = running_views(statuses, self.snapshot.workers)
        return await self._running_of(tenant, views) if tenant else views

    async def _running_of(self, tenant: str, views: Sequence[RunningView]) -> list[RunningView]:
        """A tenant's among all; where these are not all that run, those that the workers tell of."""
        if len(views) < MOST_RUNNING:
            return [view for view in views if view.tenant == tenant]
        told = [task for worker in self.snapshot.workers for task in worker.tasks if task.tenant == tenant]
        oldest = sorted(told, key=lambda task: task.started_at)[:MOST_RUNNING]
        statuses = await self._backend.queue.status([task.id for task in oldest])
        running = [status for status in statuses if status.state is TaskState.RUNNING]
        return [view for view in running_views(running, self.snapshot.workers) if view.tenant == tenant]

    async def _observe(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="follow workers")
            group.create_task(self._sample_and_tell(), name="sample the queue")

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(QueueError):  # the snapshots tell that the queue is away
                await self._monitor.look()
                await self._monitor.follow()
            await asyncio.sleep(TICK_S)

    async def _sample_and_tell(self) -> None:
        sampled_at = 0.0
        while True:
            started_at = time.monotonic()
            try:
                snapshot = await self.refresh()
                if started_at - sampled_at >= FINE_EVERY_S * 0.9:
                    sampled_at = started_at
                    self._keep(sample_of(snapshot))
                if self.feed.wanted.is_set():
                    await self._tell(snapshot)
            except Exception:  # a dashboard that stands still for ever would be worse
                log.exception("the ops feed could not be computed, it is tried again")
            await self._pause()

    async def _pause(self) -> None:
        """Until the next tick, or somebody comes who has seen nothing yet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S if self.feed.wanted.is_set() else FINE_EVERY_S):
                await self.feed.arrived.wait()
        self.feed.arrived.clear()

    def _keep(self, sample: Sample | None) -> None:
        self._sample = sample
        if sample is not None:
            self.history.add(sample)

    async def _tell(self, snapshot: Snapshot) -> None:
        with contextlib.suppress(QueueError):  # what was read before stays on show, with the snapshot's problem
            self._running = await self.running()
            await self._read_accounts()
        for tenant in self.feed.audiences:
            parts = self._parts(snapshot, tenant)
            with contextlib.suppress(QueueError):
                running = await self._running_of(tenant, self._running) if tenant else self._running
                parts["running"] = {"tasks": running, "limit": MOST_RUNNING}
            self.feed.show(tenant, parts)

    async def _read_accounts(self) -> None:
        started_at = time.monotonic()
        if started_at < self._accounts_due_at:
            return
        await self.usage.catch_up(limit_s=TICK_S / 4)
        self._budgets = await self.budgets()
        self._limits = await self.limits()
        took_s = time.monotonic() - started_at
        self._accounts_due_at = started_at + max(ACCOUNTS_EVERY_S, _ACCOUNTS_SHARE * took_s)

    async def budgets(self) -> BudgetsView:
        """All budgets in force and their accounts. Raises `BackendUnavailable`."""
        rules = rules_in_force(self._settings.budgets, self._live, self._definitions)
        return await budgets_view(self._backend.state, rules)

    async def limits(self) -> LimitsView:
        """All rate limits in force and their accounts. Raises `BackendUnavailable`."""
        return await limits_view(self._backend.state, self._settings.limits, self._live)

    def _parts(self, snapshot: Snapshot, tenant: str) -> dict[str, object]:
        parts: dict[str, object] = {
            "queue": queue_view(snapshot.at, snapshot.queue, snapshot.problem),
            "workers": workers_view(snapshot.workers, tenant),
            "rates": self._rates(snapshot, tenant),
            "usage": {"records": self.usage.records, "is_complete": self.usage.is_complete},
        }
        if self._sample is not None and not tenant:
            parts["sample"] = self._sample
        if self._approvals is not None:
            waiting = self._approvals.open(tenant)
            parts["approvals"] = {"open": len(waiting), "version": self._approvals.version}
        if self._run_changes is not None:
            parts["runs"] = {"version": self._run_changes.tell(tenant)}
        if self._budgets is not None:
            parts["budgets"] = self._budgets.for_tenant(tenant)
        if self._limits is not None:
            parts["limits"] = self._limits.for_tenant(tenant)
        return parts

    def _rates(self, snapshot: Snapshot, tenant: str) -> dict[str, object]:
        if tenant:
            today = self.usage.total(UsageFilter(since=snapshot.at // DAY_S * DAY_S, tenant=tenant))
            return {"today": _spent(today)}
        known, usd_per_hour = snapshot.today, snapshot.cost_usd_per_hour
        return {
            "tasks_per_minute": round(snapshot.tasks_per_minute, 1),
            "tokens_per_minute": round(snapshot.tokens_per_minute),
            "cost_usd_per_hour": None if usd_per_hour is None else round(usd_per_hour, 4),
            "today": _spent(known) if known else None,
        }


def _spent(used: UsageTotals | Group) -> dict[str, object]:
    return {
        "calls": used.calls,
        "tokens": used.input_tokens + used.output_tokens,
        "cost_usd": known_cost_usd(used),
    }
