"""The pull loop: takes as many tasks as there are free slots, keeps their leases, and ends in good order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

import structlog

from queue_backends import Ack, Backend, BackendUnavailable, Dead, Delivery, Outcome, QueueError, Release, Retry, Task
from worker.committer import Committer
from worker.early_cancels import EarlyCancels
from worker.health import HealthState
from worker.leases import DeliveryKey, LeaseKeeper, key_of
from worker.metrics import Metrics
from worker.parking import LastLooks, Parking
from worker.sessions.conversations import SUMMARY_OF
from worker.streaming import ChunkPublisher
from worker.stubborn import find_stubborn
from worker.surroundings import Surroundings
from worker.task_run import Stop, TaskRun
from worker.teams.marks import PARENT
from worker.time_limits import end_in_time

PULL_WAIT_S = 5.0
LONGEST_RETRY_S = 2.0
GOODBYE_S = 10.0
"""After the grace period: so long for cancelled runs to clean up and for their tasks to be handed back."""
HEED_S = 1.0
"""After that: so long for the rest, which is heard by nobody any more."""
MOST_NAMES = 20

log = structlog.get_logger(__name__)


class Worker:
    """Runs tasks until it is told to stop, and then ends within the grace period and some seconds, whatever they do.

    `surround` builds what the runs share around the publisher, which is the worker's own.
    """

    __slots__ = (
        "_around",
        "_backend",
        "_committer",
        "_concurrency",
        "_defect",
        "_early_cancels",
        "_ends",
        "_given_up",
        "_grace_s",
        "_health",
        "_last_looks",
        "_leases",
        "_loop",
        "_metrics",
        "_most_per_pull",
        "_parked",
        "_publisher",
        "_pull_is_due",
        "_running",
        "_runs",
        "_slot_freed",
        "_stopping",
    )

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
        # Half of the slots: these run while the server reads the others' tasks and writes what ended (measured: 500
        # naps at once take 4 % less time so, tasks that do nothing 3 %).
        self._most_per_pull = (concurrency + 1) // 2
        self._grace_s = grace_s
        self._publisher = ChunkPublisher(backend, metrics.worker)
        self._committer = Committer(backend, metrics.worker, self._committed, lambda: self._pull_is_due)
        self._around = surround(self._publisher)
        self._running: dict[DeliveryKey, TaskRun] = {}
        """Runs by fencing key, in the order in which they began: they occupy a slot."""
        self._parked: dict[DeliveryKey, Parking] = {}
        """What those wait for that were put down, until that is written."""
        self._last_looks = LastLooks(backend)
        self._given_up: set[DeliveryKey] = set()
        """Those of them that do not end though they were told to."""
        self._leases = LeaseKeeper(
            backend,
            metrics.worker,
            self._health,
            lease_s=lease_s,
            longest_run_s=self._around.limits.timeout_s,
            on_lost=self._leases_lost,
            on_cancel=self._cancels_asked,
        )
        """Holds what is running, and what has ended and is not written yet."""
        self._early_cancels = EarlyCancels()
        self._slot_freed = asyncio.Event()
        self._pull_is_due = False
        """One has been answered, and the next one is about to be sent."""
        self._stopping = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()
        """What runs are run in, also those that were given up."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ends: asyncio.TaskGroup | None = None
        self._defect: Exception | None = None
        """What has failed in the worker itself, and ends it."""
        self._metrics.slots = concurrency
        self._metrics.silent_s = self._health.silent_s

    @property
    def running(self) -> int:
        """How many tasks are being run now."""
        return len(self._running)

    @property
    def runs(self) -> Iterable[TaskRun]:
        """The tasks that are being run now, those that began first at the front."""
        return self._running.values()

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
                services.create_task(self._leases.run(), name="leases"),
                services.create_task(find_stubborn(self._still_minded, self._give_up), name="stubborn runs"),
                services.create_task(end_in_time(lambda: self.runs, self._around.limits.timeout_s), name="time limits"),
                services.create_task(self._listen_for_cancels(), name="cancel listener"),
                services.create_task(self._last_looks.run(), name="last looks"),
            ]
            if (conversations := self._around.conversations) is not None:
                side += [
                    services.create_task(conversations.run(), name="conversations"),
                    services.create_task(conversations.look_after(), name="conversations that wait"),
                ]
            if (teams := self._around.teams) is not None:
                side.append(services.create_task(teams.ends.run(), name="ends of delegated tasks"))
            try:
                await self._work()
            finally:
                for task in side:
                    task.cancel()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as ends:
            self._loop, self._ends = asyncio.get_running_loop(), ends
            pulling = ends.create_task(self._pull(), name="pull loop")
            try:
                await self._stopping.wait()
                await self._drain(pulling, self._grace_s)
                await self._leave_behind()
            except asyncio.CancelledError:
                await self._drain(pulling, 0.0)
                for run in self._runs:
                    run.cancel()
                await self._leave_behind()
                raise
        if self._defect is not None:
            raise self._defect

    # Pulling

    async def _pull(self) -> None:
        delay_s = 0.1
        while True:
            free = self._concurrency - len(self._running)
            self._health.free_slots = free
            # What waits for its commit holds memory, not a slot: bounded too, in case commits are slow.
            if free <= 0 or len(self._leases) >= 4 * self._concurrency:
                self._slot_freed.clear()
                await self._slot_freed.wait()
                continue
            try:
                deliveries = await self._backend.queue.pull(min(free, self._most_per_pull), PULL_WAIT_S)
            except QueueError as error:
                self._pull_failed(error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_RETRY_S)
                continue
            for delivery in deliveries:
                self._start(delivery)
            self._pull_is_due = True
            try:
                await asyncio.sleep(0)  # they begin before anything else is done
            finally:
                self._pull_is_due = False
            delay_s = 0.1
            self._health.pulled()

    def _pull_failed(self, error: QueueError) -> None:
        """That the broker is away is said once, by the backend; another trouble here, as long as it stays the same."""
        if not isinstance(error, BackendUnavailable) and str(error) != self._health.problem:
            log.warning("cannot pull, trying again", error=str(error))
        self._health.pull_failed(str(error))

    def _start(self, delivery: Delivery) -> None:
        run = TaskRun(delivery, self._around)
        self._running[run.key] = run
        self._leases.hold(delivery, run.key)
        self._metrics.pulled += 1
        self._metrics.running = len(self._running)
        if self._early_cancels.take(delivery.task.id):
            run.stop(Stop.CANCELLED)
        assert self._loop is not None  # noqa: S101 - the pull loop runs in it
        # Not in a task group, which hears of each end by way of the event loop: 2 µs a task (measured).
        run.job = self._loop.create_task(self._run_one(run), name=delivery.task.id)
        self._runs.add(run.job)

    async def _run_one(self, run: TaskRun) -> None:
        outcome: Outcome | None = None
        try:
            try:
                outcome = await run.outcome()
            except Exception as error:  # noqa: BLE001 - the run's own handling has failed: that must not end the worker
                outcome = _unforeseen(run, error)
            except BaseException:  # cancelled from above
                self._settle(run, Release(delivery=run.delivery))
                raise
            finally:
                run.close(outcome)
            self._settle(run, outcome)
        except Exception as error:  # noqa: BLE001 - raised by `run`, once the others have ended in good order
            self._defect = error
            self.stop()
        finally:
            if run.job is not None:
                self._runs.discard(run.job)

    async def _end_one(self, run: TaskRun) -> None:
        """Let a run say its last words that does not end by itself."""
        try:
            outcome = await run.abandoned()
        except Exception as error:  # noqa: BLE001 - as above
            outcome = _unforeseen(run, error)
        self._settle(run, outcome)

    def _settle(self, run: TaskRun, outcome: Outcome | None) -> None:
        if self._running.pop(run.key, None) is None:
            return  # it was given up, and has ended after all
        if run.stop_reason is not None:
            self._given_up.discard(run.key)
            if run.stop_reason is Stop.PARKED and isinstance(outcome, Retry):
                self._parked[run.key] = run.parking
        self._metrics.running = len(self._running)
        self._slot_freed.set()
        if outcome is not None:
            self._committer.add(outcome)
        else:
            self._leases.drop(run.delivery)

    def _committed(self, outcomes: Sequence[Outcome], lost: Collection[int]) -> None:
        self._leases.drop(*(outcome.delivery for outcome in outcomes))
        self._slot_freed.set()
        for outcome in outcomes:
            written = id(outcome) not in lost
            if self._parked and (parking := self._parked.pop(key_of(outcome.delivery), None)) and written:
                self._last_looks.put_down(outcome.delivery.task.id, parking.waits)
            if not written:
                log.warning("lease lost before the result was written", task=outcome.delivery.task.id)
            task = outcome.delivery.task
            if (task.meta or task.conversation_id) and isinstance(outcome, Ack | Dead):
                self._tell_of_end(task)

    def _tell_of_end(self, task: Task) -> None:
        """The conversation or the team that it belongs to, if any."""
        around = self._around
        if (task.conversation_id or SUMMARY_OF in task.meta) and around.conversations is not None:
            around.conversations.ended(task)
        if PARENT in task.meta and around.teams is not None:
            around.teams.ends.ended(task)

    # Runs that shall end

    def _leases_lost(self, lost: Sequence[Delivery]) -> None:
        for delivery in lost:
            if run := self._running.get(key_of(delivery)):
                log.warning("lease lost, the run is stopped", task=delivery.task.id)
                self._metrics.lease_lost += 1
                run.stop(Stop.LEASE_LOST)
            self._leases.drop(delivery)

    async def _listen_for_cancels(self) -> None:
        async for task_id in self._backend.queue.cancellations():
            self._cancels_asked([task_id])

    def _cancels_asked(self, task_ids: Sequence[str]) -> None:
        unknown = set(task_ids)
        for run in self._running.values():
            if run.task.id in unknown:
                unknown.discard(run.task.id)
                run.stop(Stop.CANCELLED)
        for task_id in unknown:
            self._early_cancels.add(task_id)

    def _still_minded(self) -> Iterable[TaskRun]:
        return (run for key, run in self._running.items() if key not in self._given_up)

    def _give_up(self, run: TaskRun) -> None:
        assert self._ends is not None  # noqa: S101 - a run was started inside that group
        self._given_up.add(run.key)
        self._ends.create_task(self._end_one(run), name=f"end of {run.task.id}")

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
            log.error("some tasks could not be handed back; their leases will run out", tasks=len(self._leases))

    async def _leave_behind(self) -> None:
        """What goes on though it was told to end, more than once, is waited for no longer."""
        if self._runs:
            await asyncio.wait(self._runs, timeout=HEED_S)
        if self._runs:
            names = sorted(run.get_name() for run in self._runs)
            log.error("runs that do not end are left behind", tasks=names[:MOST_NAMES], runs=len(names))

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


def _unforeseen(run: TaskRun, error: Exception) -> Outcome:
    log.error("a run ended in an unforeseen way", task=run.task.id, exc_info=error)
    return run.crashed(error)
