"""`TaskQueue` on Redis Streams: a stream per priority, one consumer group, leases by idle time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence

import structlog

from queue_backends.ending import EndsByCommit
from queue_backends.errors import (
    BackendUnavailable,
    QueueError,
    WaitTimeout,
)
from queue_backends.interfaces import (
    BackendOptions,
    CancelOutcome,
    Delivery,
    Outcome,
    QueueStats,
    TaskState,
    TaskStatus,
)
from queue_backends.messages import RUN_CANCELLED, DeadLetter, Task, TaskResult, now_rfc3339
from queue_backends.redis import inspection
from queue_backends.redis.client import RedisClient
from queue_backends.redis.commit import Committer
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.pubsub import PubSubHub
from queue_backends.redis.pulling import Idle, Puller
from queue_backends.redis.renewing import renew_leases
from queue_backends.redis.submitting import Submitter
from queue_backends.redis.wire import decode_result, encode_result, keep_of

log = structlog.get_logger(__name__)

CONTROL_RECHECK_S = 60.0
WOKEN_AT_ONCE = 200
"""Tasks in one script call, so that it stays short."""
RESULT_RECHECK_S = 5.0
"""`wait` looks this often by itself: ark's own workers announce no results."""


class RedisQueue(EndsByCommit):
    """`TaskQueue` on Redis Streams."""

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        hub: PubSubHub,
        committer: Committer,
        options: BackendOptions,
        *,
        consumer: str = "",
    ) -> None:
        """`consumer`: what to be called in the group, if several queues of this process share a name."""
        self._client = client
        self._keys = keys
        self._hub = hub
        self._committer = committer
        self._options = options
        self._to_cancel: asyncio.Queue[str] = asyncio.Queue()
        self._submitter = Submitter(client, keys, options, self.stats)
        self._puller = Puller(client, keys, committer, options, self._to_cancel.put_nowait)
        self._puller.consumer = consumer or self._puller.consumer

    @property
    def consumer(self) -> str:
        """This process' name in the group."""
        return self._puller.consumer

    async def create_group(self) -> None:
        """Create the consumer group where it is missing."""
        await self._puller.create_group()

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
        found = await self._client.command("HMGET", self._keys.results, *ids)
        return [decode_result(task_id, data) if data else None for task_id, data in zip(ids, found, strict=True)]

    async def wait(self, task_id: str, timeout_s: float) -> TaskResult:
        """The result, announced on the task's own channel."""
        try:
            async with asyncio.timeout(timeout_s), self._hub.listen(self._keys.done(task_id)) as inbox:
                while True:
                    if found := await self._result_if_reachable(task_id):
                        return found
                    message = await inbox.get(RESULT_RECHECK_S)
                    if inbox.closed:
                        raise BackendUnavailable(f"the backend was closed while somebody waited for task {task_id}")
                    if message is not None:
                        return decode_result(task_id, message)
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
        return [await self._cancel(task_id) for task_id in ids]

    async def _cancel(self, task_id: str) -> CancelOutcome:
        keys = self._keys
        result = encode_result(TaskResult(task_id=task_id, error=RUN_CANCELLED, finished_at=time.time()))
        reply = await self._client.script(
            "cancel",
            [
                *keys.lanes,
                keys.results,
                keys.results_expiry,
                keys.delayed,
                keys.delayed_entries,
                keys.moved,
                keys.cancelled,
                keys.chunks(task_id),
            ],
            [GROUP, task_id, result, keys.done_prefix, keys.control, RUN_CANCELLED, *keep_of(self._options)],
        )
        return CancelOutcome(reply.decode())

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Make delayed tasks ready; whoever is blocked in a pull has them at once."""
        keys, woken = self._keys, list[bool]()
        for first in range(0, len(ids), WOKEN_AT_ONCE):
            some = ids[first : first + WOKEN_AT_ONCE]
            reply = await self._client.script(
                "wake", [*keys.lanes, keys.delayed, keys.delayed_entries, keys.moved], some
            )
            woken += map(bool, reply)
        return woken

    # Workers

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks: what is there at once, else the first that comes."""
        return await self._puller.pull(limit, wait_s)

    async def take(self, limit: int) -> list[Delivery] | Idle:
        """Take what is ready, without waiting; or say that there is nothing, and what may come."""
        return await self._puller.take(limit)

    def take_waiting(self, limit: int) -> list[Delivery]:
        """Deliveries that were taken before, and handed to nobody."""
        waiting = self._puller.surplus
        return [waiting.popleft() for _ in range(min(limit, len(waiting)))]

    def keep_waiting(self, deliveries: Sequence[Delivery]) -> None:
        """These are for the next pull; renewals keep them until then."""
        self._puller.keep(deliveries)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those of deliveries that wait here for the next pull, too."""
        waiting = self.waiting()
        lost, cancelled = await renew_leases(self._client, self._keys, self._options, [*deliveries, *waiting])
        for task_id in cancelled:
            self._to_cancel.put_nowait(task_id)
        self.forget(lost)
        ours = {id(delivery) for delivery in deliveries}
        return [delivery for delivery in lost if id(delivery) in ours]

    def waiting(self) -> tuple[Delivery, ...]:
        """Deliveries that the next pull will hand out. May be called from another thread."""
        return tuple(self._puller.surplus)

    def forget(self, lost: Sequence[Delivery]) -> None:
        """These are somebody else's now."""
        gone = {(delivery.entry_id, delivery.token) for delivery in lost}
        for delivery in lost:
            self._committer.lose(delivery)
        kept = [delivery for delivery in self._puller.surplus if (delivery.entry_id, delivery.token) not in gone]
        self._puller.surplus = deque(kept)

    async def _commit(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return await self._committer.commit(outcomes)

    async def cancellations(self) -> AsyncIterator[str]:
        """Announced ones, and those that renewals and reclaims came upon."""
        listening = asyncio.create_task(self._listen_control(), name="queue control listener")
        try:
            while True:
                yield await self._to_cancel.get()
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _listen_control(self) -> None:
        while True:
            try:
                async with self._hub.listen(self._keys.control) as inbox:
                    while True:
                        message = await inbox.get(CONTROL_RECHECK_S)
                        verb, _, task_id = (message or b"").decode().partition(" ")
                        if verb == "cancel":
                            self._to_cancel.put_nowait(task_id)
                        elif verb == "resume":
                            self._puller.resumed.set()
            except BackendUnavailable:
                continue  # it has waited long enough by itself; renewals see cancellations meanwhile

    # Operators

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task."""
        return [await inspection.status(self._client, self._keys, task_id) for task_id in ids]

    async def list_tasks(self, *, limit: int = 50, states: Sequence[TaskState] = ()) -> list[TaskStatus]:
        """Tasks by state."""
        return await inspection.list_tasks(self._client, self._keys, limit, states)

    async def stats(self) -> QueueStats:
        """The queue's figures now."""
        return await inspection.stats(self._client, self._keys)

    async def dead_letters(self, *, limit: int = 50) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return await inspection.dead_letters(self._client, self._keys, limit)

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """Bring letters back."""
        keys = self._keys
        brought_back = []
        for letter in await inspection.letters_by_id(self._client, keys, letter_ids):
            names = [
                *keys.lanes,
                keys.results,
                keys.results_expiry,
                keys.dead,
                keys.moved,
                keys.chunks(letter.task_id),
            ]
            if await self._client.script("requeue", names, [letter.id, letter.task_id]):
                brought_back.append(letter.task_id)
        return brought_back

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Delete letters."""
        known = [letter_id for letter_id in letter_ids if inspection.is_entry_id(letter_id)]
        if not known:
            return 0
        deleted: int = await self._client.command("XDEL", self._keys.dead, *known)
        return deleted

    async def pause(self) -> None:
        """Deliver nothing any more."""
        await self._client.pipeline(
            [("SET", self._keys.paused, now_rfc3339()), ("PUBLISH", self._keys.control, "pause")], transaction=True
        )

    async def resume(self) -> None:
        """Deliver again."""
        await self._client.pipeline(
            [("DEL", self._keys.paused), ("PUBLISH", self._keys.control, "resume")], transaction=True
        )

    async def ping(self) -> None:
        """Return if the server answers."""
        await self._client.command("PING", timeout_s=5)

    async def close(self) -> None:
        """Give back what no run ever saw, and leave the group. Deliveries still held are left to their leases."""
        try:
            await self._submitter.close()
            await self._puller.leave()
        except QueueError as error:
            log.warning("could not say goodbye to the queue", error=str(error))
