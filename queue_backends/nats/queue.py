"""`TaskQueue` on JetStream: the parts put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from queue_backends.ending import EndsByCommit
from queue_backends.errors import BackendUnavailable, WaitTimeout
from queue_backends.interfaces import (
    BackendOptions,
    CancelOutcome,
    Delivery,
    Outcome,
    QueueStats,
    TaskState,
    TaskStatus,
)
from queue_backends.messages import DeadLetter, Task, TaskResult
from queue_backends.nats.cancelling import Canceller, CancelRequests
from queue_backends.nats.chunk_writing import ChunkWriter
from queue_backends.nats.claiming import Claimer
from queue_backends.nats.committing import Committer
from queue_backends.nats.fetching import Fetcher
from queue_backends.nats.holding import Holdings
from queue_backends.nats.inspection import Inspector
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.letters import Letters
from queue_backends.nats.listening import Listeners
from queue_backends.nats.pulling import Puller, worker_name
from queue_backends.nats.reaping import Reaper
from queue_backends.nats.renewing import renew_leases
from queue_backends.nats.setup import SetUp
from queue_backends.nats.subjects import TASK_LANES, is_token
from queue_backends.nats.submitting import Submitter
from queue_backends.nats.waking import Waker

FOR_EVER = "2200-01-01T00:00:00Z"
RECHECK_S = 5.0
"""A waiter looks for itself this often, in case the announcement was lost on the way."""
RETRY_S = 0.5


class NatsQueue(EndsByCommit):
    """`TaskQueue` on one stream."""

    def __init__(
        self,
        ledger: Ledger,
        set_up: SetUp,
        holdings: Holdings,
        committer: Committer,
        writer: ChunkWriter,
        listeners: Listeners,
        options: BackendOptions,
    ) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._holdings = holdings
        self._committer = committer
        self._listeners = listeners
        self._options = options
        self.consumer = worker_name(options.consumer)
        self._requests = CancelRequests(ledger, holdings)
        self._fetcher = fetcher = Fetcher(ledger, set_up, options.lease_s)
        claimer = Claimer(ledger, fetcher, holdings, committer, writer, options, self.consumer, self._requests.asked)
        self.reaper = Reaper(ledger, options.chunk_retention_s)
        self._puller = Puller(ledger, set_up, fetcher, claimer, committer, self.reaper, options)
        self._inspector = Inspector(ledger, holdings)
        self._submitter = Submitter(ledger, options, self._inspector.waiting)
        self._letters = Letters(ledger, options.unfinished_ttl_s)
        self._canceller = Canceller(ledger, writer, options)
        self._waker = Waker(ledger, options)

    async def start(self) -> None:
        """Listen for cancels, and for the end of a pause."""
        await self._requests.start()
        await self._ledger.connection.listen(self._subjects.resumed, self._resumed)

    async def _resumed(self, _: object) -> None:
        self._fetcher.hurry()

    async def submit(self, task: Task, *, run_at: float | None = None) -> str:
        """Accept one task."""
        return await self._submitter.submit(task, run_at)

    async def submit_many(self, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """Accept several tasks; up to 250 of them, and some megabytes, in one step."""
        return await self._submitter.submit_many(tasks, run_at)

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks."""
        return await self._puller.pull(limit, wait_s)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those that wait for the next pull, too."""
        waiting = self.waiting() if deliveries else []
        held = [*deliveries, *waiting]
        lost, to_cancel = await renew_leases(self._ledger, self._holdings, self._options, held)
        for task_id in to_cancel:
            self._requests.asked(task_id)
        self.forget(lost)
        return [delivery for delivery in lost if delivery not in waiting]

    def waiting(self) -> list[Delivery]:
        """What is kept for the next pull."""
        return list(self._puller.surplus)

    def forget(self, lost: Sequence[Delivery]) -> None:
        """These are somebody else's, or nobody's."""
        for delivery in lost:
            self._holdings.forget(delivery)
            if delivery in self._puller.surplus:
                self._puller.surplus.remove(delivery)

    async def _commit(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return await self._committer.commit(outcomes)

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """Results that are still kept."""
        return await self._inspector.results(ids)

    async def wait(self, task_id: str, timeout_s: float) -> TaskResult:
        """The result, when there is one. Waits while the server is away, too."""
        if not is_token(task_id):
            raise WaitTimeout(f"task {task_id!r} has no result: it is no task id")
        deadline = time.monotonic() + timeout_s
        async with self._listeners.listen(self._subjects.live_of(self._subjects.task(task_id))) as inbox:
            while True:
                pause_s = RECHECK_S
                try:
                    inbox.missed = False
                    if (found := (await self.results([task_id]))[0]) is not None:
                        return found
                except BackendUnavailable:
                    if inbox.closed:
                        raise
                    pause_s = RETRY_S
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise WaitTimeout(f"task {task_id} has no result after {timeout_s} s: wait again, or cancel it")
                await inbox.get(min(remaining, pause_s))

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        """End tasks."""
        return await self._canceller.cancel(ids)

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Make delayed tasks ready."""
        return await self._waker.wake(ids)

    def cancellations(self) -> AsyncIterator[str]:
        """Each request once per delivery, for tasks that this queue object delivered."""
        return self._requests.iterate()

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task."""
        return await self._inspector.status(ids)

    async def list_tasks(self, *, limit: int = 50, states: Sequence[TaskState] = ()) -> list[TaskStatus]:
        """Tasks by state."""
        return await self._inspector.list_tasks(limit, states)

    async def stats(self) -> QueueStats:
        """The queue's figures now."""
        return await self._inspector.stats()

    async def dead_letters(self, *, limit: int = 50) -> list[DeadLetter]:
        """Letters, newest first."""
        return await self._letters.newest(limit)

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """Bring letters back."""
        return await self._letters.requeue([letter_id for letter_id in letter_ids if is_token(letter_id)])

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Delete letters."""
        return await self._letters.purge([letter_id for letter_id in letter_ids if is_token(letter_id)])

    async def pause(self) -> None:
        """Deliver nothing any more."""
        await self._pause({"pause_until": FOR_EVER})

    async def resume(self) -> None:
        """Deliver again."""
        await self._pause(None)
        await self._ledger.connection.publish(self._subjects.resumed)  # the server wakes nobody who waits already

    async def _pause(self, body: object) -> None:
        stream = self._subjects.stream
        await asyncio.gather(
            *(self._ledger.connection.api(f"CONSUMER.PAUSE.{stream}.{lane}", body) for lane in TASK_LANES)
        )

    async def ping(self) -> None:
        """Ask the server for the stream's facts."""
        await self._ledger.info()

    async def close(self) -> None:
        """Give back what no run ever saw; let what is on its way arrive."""
        await self._submitter.close()
        await self._puller.leave()
        await self._committer.close()
        await self._ledger.close()
