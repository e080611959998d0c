"""The fleet at one moment: queue, workers, running tasks, what is spent. Bounded work, whatever the queue's depth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from msgspec import Struct

from queue_backends import Backend, QueueError, QueueStats
from worker.fleet.presence import LastMinute, Presence, RunningTask, Workers
from worker.usage import UsageReport, UsageTotals

_RETRY_S = 1.0
_LEAST_SPAN_S = 30.0
"""A worker that began a moment ago has no rate yet worth the name: its first tasks would look like a leap."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """What `shoal top` shows. Rates are of the last minute."""

    at: float
    """Unix seconds."""
    queue: QueueStats | None = None
    """None: it could not be asked."""
    workers: tuple[Presence, ...] = ()
    tasks_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    cost_usd_per_hour: float | None = 0.0
    """None: there were calls, and of none the price is known."""
    today: UsageTotals | None = None
    """The UTC day's totals, of all that write usage records."""
    problem: str = ""
    """Why figures are missing or old."""


class Monitor:
    """Takes snapshots. Workers are read once and then followed, so that a snapshot costs two commands."""

    def __init__(self, backend: Backend) -> None:
        self._queue = backend.queue
        self._usage = UsageReport(backend.state)
        self._changes = Workers(backend.state).changes()
        self._last = Snapshot(at=0.0)

    async def look(self) -> None:
        """Read who is there. May raise `BackendUnavailable`."""
        await self._changes.look()

    async def follow(self) -> None:
        """Keep up with the workers, over broken connections too. Endless."""
        while True:
            try:
                await self._changes.follow()
            except QueueError:
                await asyncio.sleep(_RETRY_S)  # the snapshots tell that the queue is away

    async def snapshot(self) -> Snapshot:
        """The present figures; while the queue is away, the last ones and the reason."""
        now = time.time()
        queue, today, problem = self._last.queue, self._last.today, ""
        try:
            queue = await self._queue.stats()
            today = await self._usage.of_day(now)
        except QueueError as error:
            problem = str(error)
        workers = tuple(self._changes.workers)
        self._last = Snapshot(
            at=now,
            queue=queue,
            workers=workers,
            tasks_per_minute=sum(per_minute(worker.last_minute, worker.last_minute.tasks) for worker in workers),
            tokens_per_minute=sum(per_minute(worker.last_minute, worker.last_minute.tokens) for worker in workers),
            cost_usd_per_hour=_usd_per_hour(workers),
            today=today,
            problem=problem,
        )
        return self._last


def per_minute(span: LastMinute, amount: float) -> float:
    """An amount of a worker's last minute as a rate."""
    return 60 * amount / max(span.seconds, _LEAST_SPAN_S)


def usd_per_hour(span: LastMinute) -> float | None:
    """The cost of a worker's last minute as a rate; None: not known."""
    return None if span.known_cost_usd is None else 60 * per_minute(span, span.known_cost_usd)


def _usd_per_hour(workers: Sequence[Presence]) -> float | None:
    rates = [usd_per_hour(worker.last_minute) for worker in workers]
    known = sum(rate for rate in rates if rate is not None)
    return known if known or None not in rates else None


def oldest_tasks(workers: tuple[Presence, ...], limit: int) -> list[tuple[RunningTask, Presence]]:
    """The running tasks that began first, and who has them."""
    tasks = [(task, worker) for worker in workers for task in worker.tasks]
    return sorted(tasks, key=lambda item: item[0].started_at)[:limit]
