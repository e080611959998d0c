"""A worker's heartbeat: it tells of itself every few seconds, and looks whether an operator wants it to leave."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import psutil
import structlog

from queue_backends import BackendUnavailable, QueueError
from worker.fleet.presence import (
    BEAT_S,
    MOST_CIRCUITS,
    MOST_TASKS,
    CircuitState,
    DrainRequest,
    LastMinute,
    Presence,
    RunningTask,
    Workers,
)
from worker.health import HealthServer
from worker.known_cost import is_unpriced
from worker.metrics import Metrics
from worker.task_run import TaskRun
from worker.usage import UsageLedger
from worker.version import version
from worker.worker import Worker

EARLY_BEAT_S = 2.0
"""As often at most it tells that the number of its tasks has changed."""
LOOK_S = 1.0
"""How often it looks for a request: one GET, which is less than to hear of every other worker's heartbeat."""
_GOODBYE_S = 2.0
_MINUTE_S = 60.0

log = structlog.get_logger(__name__)


class _Totals(NamedTuple):
    """What a worker had done by some moment, since its start."""

    at: float
    """By the monotonic clock."""
    tasks: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    calls: int = 0
    unpriced_calls: int = 0


class Heartbeat:
    """Tells what the worker does. While the broker is away it says nothing; others log that."""

    def __init__(
        self,
        workers: Workers,
        worker_id: str,
        worker: Worker,
        *,
        metrics: Metrics,
        ledger: UsageLedger,
        server: HealthServer | None = None,
        drain: Callable[[DrainRequest], None],
    ) -> None:
        self.id = worker_id
        self._workers = workers
        self._worker = worker
        self._metrics = metrics
        self._ledger = ledger
        self._server = server
        self._drain = drain
        self._process = psutil.Process()
        self._host = socket.gethostname()
        self._version = version()
        self._started_at = time.time()
        self._history = deque([_Totals(at=time.monotonic())])
        """At moments of the last minute."""
        self._now = asyncio.Event()
        self._is_leaving = False
        self._was_asked = False
        self._has_complained = False
        self._told_at = -math.inf
        self._told_running = 0

    def leaving(self) -> None:
        """Tell at once that the worker drains."""
        self._is_leaving = True
        self._now.set()

    async def run(self) -> None:
        """Tell and look until cancelled; then say goodbye."""
        try:
            while True:
                try:
                    await self._tell_and_look()
                except QueueError as error:
                    self._complain(error)
                await self._pause()
        finally:
            with contextlib.suppress(QueueError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._workers.forget(self.id)

    async def _tell_and_look(self) -> None:
        if self._is_due():
            await self._beat()
        if not self._was_asked and (request := await self._workers.drain_requested(self.id)):
            self._was_asked = True
            self._drain(request)

    def _complain(self, error: QueueError) -> None:
        """Once; and not of a broker that is away, which is logged by those who have work for it."""
        if not (self._has_complained or isinstance(error, BackendUnavailable)):
            self._has_complained = True
            log.warning("this worker cannot tell of itself: shoal top and shoal drain miss it", error=str(error))

    def _is_due(self) -> bool:
        silent_s = time.monotonic() - self._told_at
        has_changed = self._worker.running != self._told_running
        return self._now.is_set() or silent_s >= BEAT_S or (has_changed and silent_s >= EARLY_BEAT_S)

    async def _beat(self) -> None:
        self._now.clear()
        self._told_at = time.monotonic()
        self._told_running = self._worker.running
        await self._workers.tell(self.presence())

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._now.wait()

    def presence(self) -> Presence:
        """What there is to tell now."""
        figures = self._metrics.worker
        agents = self._metrics.agents()
        failed = sum(agent.failed for agent in agents)
        done = failed + sum(agent.completed for agent in agents)
        return Presence(
            id=self.id,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            started_at=self._started_at,
            beat_at=time.time(),
            draining=self._is_leaving,
            slots=figures.slots,
            running=self._worker.running,
            tasks=tuple(_running(run) for run in islice(self._worker.runs, MOST_TASKS)),
            tasks_done=done,
            tasks_failed=failed,
            tokens=self._ledger.tokens,
            cost_usd=round(self._ledger.cost_usd, 6),
            is_unpriced=is_unpriced(self._ledger.calls, self._ledger.unpriced_calls),
            last_minute=self._last_minute(done),
            rss_bytes=self._process.memory_info().rss,
            health_port=self._server.port if self._server else 0,
            circuits=tuple(
                CircuitState(provider=provider, model=model, circuit=circuit)
                for provider, model, circuit in self._metrics.routing.circuits()[:MOST_CIRCUITS]
            ),
        )

    def _last_minute(self, done: int) -> LastMinute:
        ledger, history = self._ledger, self._history
        now = _Totals(
            at=time.monotonic(),
            tasks=done,
            tokens=ledger.tokens,
            cost_usd=ledger.cost_usd,
            calls=ledger.calls,
            unpriced_calls=ledger.unpriced_calls,
        )
        history.append(now)
        while len(history) > 2 and history[1].at <= now.at - _MINUTE_S:
            history.popleft()
        then = history[0]
        return LastMinute(
            seconds=round(now.at - then.at, 1),
            tasks=now.tasks - then.tasks,
            tokens=now.tokens - then.tokens,
            cost_usd=round(now.cost_usd - then.cost_usd, 6),
            is_unpriced=is_unpriced(now.calls - then.calls, now.unpriced_calls - then.unpriced_calls),
        )


def _running(run: TaskRun) -> RunningTask:
    spent = run.ending.spent
    return RunningTask(
        id=run.task.id,
        agent=run.task.agent,
        started_at=run.started_at,
        tenant=run.task.tenant,
        tokens=spent.usage.total_tokens,
        cost_usd=spent.cost_usd,
    )
