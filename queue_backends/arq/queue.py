"""`TaskQueue` on arq's queues: a sorted set per priority, leases in arq's own marks of jobs in progress."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

import structlog

from queue_backends.arq.cancelling import Cancellations
from queue_backends.arq.commit import ArqCommitter
from queue_backends.arq.health import Health
from queue_backends.arq.inspection import Inspection
from queue_backends.arq.names import ArqKeys
from queue_backends.arq.pulling import Puller
from queue_backends.arq.renewing import renew_leases
from queue_backends.arq.results import result_of
from queue_backends.arq.submitting import ArqSubmitter
from queue_backends.arq.wire import Scripts
from queue_backends.ending import EndsByCommit
from queue_backends.errors import BackendUnavailable, QueueError, WaitTimeout
from queue_backends.interfaces import (
    BackendOptions,
    CancelOutcome,
    Delivery,
    Outcome,
    QueueStats,
    TaskState,
    TaskStatus,
)
from queue_backends.messages import DeadLetter, Task, TaskResult, now_rfc3339
from queue_backends.redis.client import RedisClient
from queue_backends.redis.inspection import is_entry_id
from queue_backends.redis.pubsub import PubSubHub

log = structlog.get_logger(__name__)

RESULT_RECHECK_S = 5.0
"""`wait` looks this often by itself: arq's own workers announce no results."""
WAKES_OF_A_RESUME = 16
WOKEN_AT_ONCE = 200
"""Tasks in one script call, so that it stays short."""


class ArqQueue(EndsByCommit):
    """`TaskQueue` on arq's queues."""

    def __init__(
        self,
        client: RedisClient,
        keys: ArqKeys,
        scripts: Scripts,
        hub: PubSubHub,
        committer: ArqCommitter,
        options: BackendOptions,
        poll_s: float,
    ) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self._hub = hub
        self._committer = committer
        self._options = options
        self._inspection = Inspection(client, keys, options)
        self._submitter = ArqSubmitter(client, keys, scripts, options, self.stats)
        self._puller = Puller(client, keys, scripts, committer, options, poll_s, self._cancel_asked)
        health = Health(client, keys, committer)
        self._cancellations = Cancellations(keys, scripts, hub, self._puller.consumer, health)

    @property
    def consumer(self) -> str:
        """This process' name, which its leases carry."""
        return self._puller.consumer

    def _cancel_asked(self, task_id: str) -> None:
        self._cancellations.note(task_id)

    # Engines

    async def submit(self, task: Task, *, run_at: float | None = None) -> str:
        """Accept one task."""
        return await self._submitter.submit(task, run_at)

    async def submit_many(self, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """Accept several tasks, a few hundred per script call."""
        return await self._submitter.submit_many(tasks, run_at)

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """Results, in the order of `ids`."""
        if not ids:
            return []
        found = await self._client.command("MGET", *(self._keys.result(task_id) for task_id in ids))
        return [result_of(task_id, data) if data else None for task_id, data in zip(ids, found, strict=True)]

    async def wait(self, task_id: str, timeout_s: float) -> TaskResult:
        """The result, once the task's own channel says that it is there."""
        try:
            async with asyncio.timeout(timeout_s), self._hub.listen(self._keys.done(task_id)) as inbox:
                while True:
                    if found := await self._result_if_reachable(task_id):
                        return found
                    await inbox.get(RESULT_RECHECK_S)
                    if inbox.closed:
                        raise BackendUnavailable(f"the backend was closed while somebody waited for task {task_id}")
        except TimeoutError as error:
            raise WaitTimeout(f"task {task_id} has no result after {timeout_s} s: wait again, or cancel it") from error

    async def _result_if_reachable(self, task_id: str) -> TaskResult | None:
        """A server that is away meanwhile is no reason to stop waiting: once it is back, the inbox says so."""
        try:
            return (await self.results([task_id]))[0]
        except BackendUnavailable:
            return None

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        """End tasks."""
        return [CancelOutcome((await self._scripts.call("cancel", task_id)).decode()) for task_id in ids]

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Make delayed tasks ready; arq's own workers see it when they look next."""
        woken = list[bool]()
        for first in range(0, len(ids), WOKEN_AT_ONCE):
            woken += map(bool, await self._scripts.call("wake", list(ids[first : first + WOKEN_AT_ONCE])))
        return woken

    # Workers

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks: what is there at once, else the first that comes."""
        return await self._puller.pull(limit, wait_s)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those of deliveries that wait here for the next pull, too."""
        lost, cancelled = await renew_leases(self._scripts, self._options, [*deliveries, *self.waiting()])
        for task_id in cancelled:
            self._cancel_asked(task_id)
        self.forget(lost)
        ours = {id(delivery) for delivery in deliveries}
        return [delivery for delivery in lost if id(delivery) in ours]

    def waiting(self) -> tuple[Delivery, ...]:
        """Deliveries that the next pull will hand out. May be called from another thread."""
        return tuple(self._puller.surplus)

    def forget(self, lost: Sequence[Delivery]) -> None:
        """These are somebody else's now."""
        gone = {delivery.token for delivery in lost}
        for delivery in lost:
            self._committer.lose(delivery)
        self._puller.surplus = deque(delivery for delivery in self._puller.surplus if delivery.token not in gone)

    async def _commit(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return await self._committer.commit(outcomes)

    def cancellations(self) -> AsyncIterator[str]:
        """Asked through Shoal or through arq's `Job.abort()`."""
        return self._cancellations.listen()

    # Operators

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task."""
        return [await self._inspection.status(task_id) for task_id in ids]

    async def list_tasks(self, *, limit: int = 50, states: Sequence[TaskState] = ()) -> list[TaskStatus]:
        """Tasks by state."""
        return await self._inspection.list_tasks(limit, states)

    async def stats(self) -> QueueStats:
        """The queue's figures now."""
        return await self._inspection.stats()

    async def dead_letters(self, *, limit: int = 50) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return await self._inspection.dead_letters(limit)

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """Bring letters back."""
        letters = await self._inspection.letters_by_id(letter_ids)
        return [letter.task_id for letter in letters if await self._scripts.call("requeue", letter.id, letter.task_id)]

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Delete letters."""
        known = [letter_id for letter_id in letter_ids if is_entry_id(letter_id)]
        if not known:
            return 0
        deleted: int = await self._client.command("XDEL", self._keys.dead, *known)
        return deleted

    async def pause(self) -> None:
        """Deliver nothing any more. Workers of arq's own know of no pause."""
        await self._client.command("SET", self._keys.paused, now_rfc3339())

    async def resume(self) -> None:
        """Deliver again."""
        await self._client.pipeline(
            [("DEL", self._keys.paused), ("LPUSH", self._keys.wake, *["1"] * WAKES_OF_A_RESUME)], transaction=True
        )

    async def ping(self) -> None:
        """Return if the server answers."""
        await self._client.command("PING", timeout_s=5)

    async def close(self) -> None:
        """Give back what no run ever saw. Deliveries still held are left to their leases."""
        try:
            await self._submitter.close()
            await self._puller.leave()
        except QueueError as error:
            log.warning("could not say goodbye to the queue", error=str(error))
