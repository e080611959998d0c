"""The pull loop: takes as many tasks as there are free slots, keeps their leases, and ends in good order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog

from queue_backends import Backend, Delivery, Outcome, QueueError, Release
from worker.committer import Committer
from worker.health import HealthState
from worker.metrics import Metrics
from worker.streaming import ChunkPublisher
from worker.task_run import Stop, Surroundings, TaskRun

PULL_WAIT_S = 5.0
LONGEST_RETRY_S = 2.0
GOODBYE_S = 10.0
"""After the grace period: so long for cancelled runs to clean up and for their tasks to be handed back."""

log = structlog.get_logger(__name__)


class Worker:
    """Runs tasks until it is told to stop.

    `surround` builds what the runs share around the publisher, which is the worker's own.
    """

    def __init__(
        self,
        backend: Backend,
        surround: Callable[[ChunkPublisher], Surroundings],
        *,
        metrics: Metrics,
        health: HealthState | None = None,
        concurrency: int = 100,
        lease_s: float = 30.0,
        grace_s: float = 30.0,
    ) -> None:
        self._backend = backend
        self._metrics = metrics.worker
        self._health = health or HealthState()
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._publisher = ChunkPublisher(backend, metrics.worker)
        self._committer = Committer(backend, metrics.worker, self._committed)
        self._around = surround(self._publisher)
        self._running: dict[str, TaskRun] = {}
        """Runs by fencing key: they occupy a slot."""
        self._held: dict[str, Delivery] = {}
        """Deliveries whose lease is ours to renew: running ones, and those whose outcome is on its way."""
        self._recent_cancels: deque[str] = deque(maxlen=1000)
        """Asked for while no run had the task: it may be on its way here in the reply to a pull."""
        self._slot_freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._runs: asyncio.TaskGroup | None = None
        self._metrics.slots = concurrency

    @property
    def running(self) -> int:
        """How many tasks are being run now."""
        return len(self._running)

    def stop(self) -> None:
        """Take no more tasks; `run` then returns once those in hand are finished or, after the grace period, handed
        back. Safe to call from a signal handler of the loop, and more than once."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called. Cancelling this hands back at once what is running."""
        async with asyncio.TaskGroup() as services:
            side = [
                services.create_task(self._publisher.run(), name="chunk publisher"),
                services.create_task(self._committer.run(), name="committer"),
                services.create_task(self._renew_leases(), name="lease renewal"),
                services.create_task(self._listen_for_cancels(), name="cancel listener"),
            ]
            try:
                await self._work()
            finally:
                for task in side:
                    task.cancel()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as runs:
            self._runs = runs
            pulling = runs.create_task(self._pull(), name="pull loop")
            try:
                await self._stopping.wait()
                await self._drain(pulling, self._grace_s)
            except asyncio.CancelledError:
                await self._drain(pulling, 0.0)
                raise

    # Pulling

    async def _pull(self) -> None:
        delay_s = 0.1
        while True:
            free = self._concurrency - len(self._running)
            self._health.free_slots = free
            # What waits for its commit holds memory, not a slot: bounded too, in case commits are slow.
            if free <= 0 or len(self._held) >= 4 * self._concurrency:
                self._slot_freed.clear()
                await self._slot_freed.wait()
                continue
            try:
                deliveries = await self._backend.queue.pull(free, PULL_WAIT_S)
            except QueueError as error:
                log.warning("cannot pull, trying again", error=str(error), retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_RETRY_S)
                continue
            delay_s = 0.1
            self._health.pulled()
            self._metrics.last_pull_at = time.monotonic()
            for delivery in deliveries:
                self._start(delivery)

    def _start(self, delivery: Delivery) -> None:
        assert self._runs is not None  # noqa: S101 - the pull loop runs inside that group
        key = _key(delivery)
        run = TaskRun(delivery, self._around)
        self._running[key] = run
        self._held[key] = delivery
        self._metrics.pulled += 1
        self._metrics.running = len(self._running)
        if self._recent_cancels and delivery.task.id in self._recent_cancels:
            run.stop(Stop.CANCELLED)
        self._runs.create_task(self._run_one(key, run), name=delivery.task.id)

    async def _run_one(self, key: str, run: TaskRun) -> None:
        outcome: Outcome | None = Release(delivery=run.delivery)  # if it is cancelled from above
        try:
            outcome = await run.outcome()
        except Exception as error:  # the run's own error handling has failed: that must not end the worker
            log.exception("a run ended in an unforeseen way", task=run.task.id)
            outcome = run.crashed(error)
        finally:
            del self._running[key]
            self._metrics.running = len(self._running)
            self._slot_freed.set()
            if outcome is not None:
                self._committer.add(outcome)
            else:
                self._held.pop(key, None)

    def _committed(self, outcome: Outcome, written: bool) -> None:
        self._held.pop(_key(outcome.delivery), None)
        self._slot_freed.set()
        if not written:
            log.warning("lease lost before the result was written", task=outcome.delivery.task.id)

    # Leases and cancels

    async def _renew_leases(self) -> None:
        pause_s = self._lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._lease_s / 3
            if not self._held:
                continue
            try:
                lost = await self._backend.queue.renew(list(self._held.values()))
            except QueueError as error:
                log.warning("cannot renew leases, trying again", error=str(error))
                pause_s = min(1.0, pause_s)  # the leases run on: be there as soon as the broker is back
                continue
            for delivery in lost:
                self._lease_lost(delivery)

    def _lease_lost(self, delivery: Delivery) -> None:
        key = _key(delivery)
        if run := self._running.get(key):
            log.warning("lease lost, the run is stopped", task=delivery.task.id)
            self._metrics.lease_lost += 1
            run.stop(Stop.LEASE_LOST)
        self._held.pop(key, None)

    async def _listen_for_cancels(self) -> None:
        async for task_id in self._backend.queue.cancellations():
            runs = [run for run in self._running.values() if run.task.id == task_id]
            for run in runs:
                run.stop(Stop.CANCELLED)
            if not runs:
                self._recent_cancels.append(task_id)

    # Leaving

    async def _drain(self, pulling: asyncio.Task[None], grace_s: float) -> None:
        """Pull no more, let runs finish for `grace_s`, then hand the rest back at once."""
        self._health.is_draining = True
        pulling.cancel()
        await asyncio.wait([pulling])
        if self._running:
            log.info("draining", running=len(self._running), grace_s=grace_s)
        if await self._emptied(grace_s):
            return
        log.info("grace period is over, handing tasks back", running=len(self._running))
        for run in list(self._running.values()):
            run.stop(Stop.RELEASED)
        if not await self._emptied(GOODBYE_S):
            log.error("some tasks could not be handed back; their leases will run out", tasks=len(self._held))

    async def _emptied(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while self._running:
                    self._slot_freed.clear()
                    await self._slot_freed.wait()
                await self._committer.drained()
        except TimeoutError:
            return False
        return True


def _key(delivery: Delivery) -> str:
    return f"{delivery.entry_id} {delivery.token}"
