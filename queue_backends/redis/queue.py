"""`TaskQueue` on Redis Streams: a stream per priority, one consumer group, leases by idle time."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog

from queue_backends.errors import (
    BackendUnavailable,
    InvalidTask,
    LeaseLost,
    QueueError,
    QueueFull,
    WaitTimeout,
)
from queue_backends.interfaces import (
    Ack,
    BackendOptions,
    CancelOutcome,
    Dead,
    Delivery,
    Outcome,
    QueueStats,
    Release,
    Retry,
    TaskState,
    TaskStatus,
)
from queue_backends.messages import RUN_CANCELLED, DeadLetter, Task, TaskResult, check_task, now_rfc3339, task_to_entry
from queue_backends.redis import inspection
from queue_backends.redis.client import RedisClient, translating
from queue_backends.redis.commit import Committer
from queue_backends.redis.entries import RawFields, delivery_of, flat, task_id_of
from queue_backends.redis.keys import GROUP, LANES, Keys
from queue_backends.redis.pubsub import PubSubHub
from queue_backends.redis.wire import CallTable, Fence, decode_result, encode_result, fence_of, keep_of

log = structlog.get_logger(__name__)

LONGEST_BLOCK_S = 1.0
"""A blocked pull looks this often for delayed tasks, expired leases and a pause, which cannot wake it."""
RESULT_RECHECK_S = 5.0
"""`wait` looks this often by itself: ark's own workers announce no results."""


def consumer_name(wish: str) -> str:
    """A name that no other process has: two consumers of one name would read each other's pending entries."""
    return f"{wish or socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class RedisQueue:
    """`TaskQueue` on Redis Streams."""

    def __init__(
        self, client: RedisClient, keys: Keys, hub: PubSubHub, committer: Committer, options: BackendOptions
    ) -> None:
        self._client = client
        self._keys = keys
        self._hub = hub
        self._committer = committer
        self._options = options
        self._lease_ms = round(options.lease_s * 1000)
        self._reclaim_every_s = min(2.0, options.lease_s / 5)
        self._next_reclaim = 0.0
        self._cursors = ["0-0"] * len(LANES)
        self._surplus: deque[Delivery] = deque()
        self._reply_lost = False
        self._to_cancel: asyncio.Queue[str] = asyncio.Queue()
        self._resumed = asyncio.Event()
        self.consumer = consumer_name(options.consumer)

    # Engines

    async def submit(self, task: Task, *, run_at: float | None = None) -> str:
        """Accept one task."""
        return (await self.submit_many([task], run_at=run_at))[0]

    async def submit_many(self, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """Accept several tasks, a few hundred per script call."""
        keys = self._keys
        enqueued_at = now_rfc3339()
        due_ms = round(run_at * 1000) if run_at is not None else 0
        for task in tasks:
            check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)
        ids: list[str] = []
        for start in range(0, len(tasks), 250):  # a script call holds up everybody else: keep it short
            table = CallTable(*keys.lanes, keys.delayed, keys.delayed_entries, keys.moved)
            packed = [
                (
                    LANES.index(task.priority) + 1,
                    due_ms,
                    table.position(keys.idempotency(task.idempotency_key)) if task.idempotency_key else 0,
                    flat(task_to_entry(task, enqueued_at)),
                )
                for task in tasks[start : start + 250]
            ]
            depth = self._options.max_depth
            idempotency_ms = round(self._options.idempotency_retention_s * 1000)
            if start == 0 and depth:
                await self._check_depth(len(tasks), depth)
            reply = await self._client.script(
                "submit", table.names, table.arguments((GROUP, depth, idempotency_ms, packed))
            )
            if reply == b"full":
                raise _full(self._keys.queue, depth)
            ids += (task_id.decode() for task_id in reply)
        return ids

    async def _check_depth(self, added: int, depth: int) -> None:
        if added > 250:  # several script calls: decide for all of them before the first
            stats = await self.stats()
            if stats.ready + stats.delayed + added > depth:
                raise _full(self._keys.queue, depth)

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
                    if found := (await self.results([task_id]))[0]:
                        return found
                    message = await inbox.get(RESULT_RECHECK_S)
                    if inbox.closed:
                        raise BackendUnavailable(f"the backend was closed while somebody waited for task {task_id}")
                    if message is not None:
                        return decode_result(task_id, message)
        except TimeoutError as error:
            raise WaitTimeout(f"task {task_id} has no result after {timeout_s} s: wait again, or cancel it") from error

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

    # Workers

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks: what is there at once, else the first that comes."""
        deadline = time.monotonic() + wait_s
        while True:
            taken = await self._take(limit)
            if isinstance(taken, list):
                return taken
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return []
            paused, next_due_s = taken
            if paused:
                await self._await_resume(min(remaining, LONGEST_BLOCK_S))
                continue
            block_s = min(remaining, LONGEST_BLOCK_S, next_due_s, max(0.001, self._next_reclaim - time.monotonic()))
            if deliveries := await self._block(limit, block_s):
                return deliveries

    async def _take(self, limit: int) -> list[Delivery] | tuple[bool, float]:
        """Deliveries; or, if there is none, whether the queue is paused and when the next delayed task is due."""
        if self._reply_lost:
            await self._recover()
        if self._surplus:
            return [self._surplus.popleft() for _ in range(min(limit, len(self._surplus)))]
        deliveries: list[Delivery] = []
        keys = self._keys
        reply = await self._group_script(
            "pull",
            [*keys.lanes, keys.delayed, keys.delayed_entries, keys.moved, keys.paused],
            [GROUP, self.consumer, limit],
        )
        paused, next_due_ms, *read = reply
        deliveries = await self._deliveries(read)
        if not paused and len(deliveries) < limit and time.monotonic() >= self._next_reclaim:
            self._next_reclaim = time.monotonic() + self._reclaim_every_s
            deliveries += await self._reclaim(limit - len(deliveries))
        if deliveries:
            return deliveries
        return bool(paused), (max(next_due_ms, 1) / 1000 if next_due_ms >= 0 else LONGEST_BLOCK_S)

    async def _group_script(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return await self._client.script(name, keys, args)
        except QueueError as error:
            if "NOGROUP" not in str(error):
                raise
        await self.create_group()
        return await self._client.script(name, keys, args)

    async def create_group(self) -> None:
        """Create the consumer group where it is missing, from entry 0: what came before the first worker counts."""
        for lane in self._keys.lanes:
            try:
                await self._client.command("XGROUP", "CREATE", lane, GROUP, "0", "MKSTREAM")
            except QueueError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _block(self, limit: int, block_s: float) -> list[Delivery]:
        """Wait for one entry. The check for a pause rides behind it on the same connection, answered in the same
        moment, so that a pause that began meanwhile is seen without a second round trip."""
        lanes = self._keys.lanes
        read = ("XREADGROUP", "GROUP", GROUP, self.consumer, "COUNT", 1, "BLOCK", max(1, round(block_s * 1000)))
        try:
            async with translating(block_s + 10), self._client.redis.pipeline(transaction=False) as pipe:
                pipe.execute_command(*read, "STREAMS", *lanes, *(">" for _ in lanes))
                pipe.execute_command("EXISTS", self._keys.paused)
                reply, paused = await pipe.execute()
        except (asyncio.CancelledError, BackendUnavailable):
            self._reply_lost = True
            raise
        except QueueError as error:
            if "NOGROUP" not in str(error):
                raise
            await self.create_group()
            return []
        deliveries = await self._deliveries(reply or [])
        if paused:
            await self._committer.commit([Release(delivery=delivery) for delivery in deliveries])
            return []
        self._surplus.extend(deliveries[limit:])
        return deliveries[:limit]

    async def _await_resume(self, timeout_s: float) -> None:
        self._resumed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._resumed.wait()
        except TimeoutError:
            return

    async def _deliveries(self, read: Sequence[Any]) -> list[Delivery]:
        """What XREADGROUP returned, as deliveries; what cannot be read is refused."""
        deliveries = []
        for name, entries in read:
            lane = self._keys.lanes.index(name.decode()) + 1
            for entry_id, raw in entries:
                if delivery := await self._accept(Fence(lane, entry_id.decode(), self.consumer, 1), raw):
                    deliveries.append(delivery)
        return deliveries

    async def _accept(self, fence: Fence, raw: RawFields) -> Delivery | None:
        try:
            delivery = delivery_of(fence, raw, self._options)
        except InvalidTask as error:
            await self._refuse(fence, raw, str(error))
            return None
        self._committer.hold(delivery)
        return delivery

    async def _refuse(self, fence: Fence, raw: RawFields, reason: str) -> None:
        keys = self._keys
        task_id = task_id_of(fence.entry, raw)
        log.warning("unreadable entry goes to the dead letters", entry=fence.entry, reason=reason)
        result = encode_result(TaskResult(task_id=task_id, error=reason, finished_at=time.time()))
        await self._client.script(
            "refuse",
            [
                keys.lanes[fence.lane - 1],
                keys.results,
                keys.results_expiry,
                keys.dead,
                keys.moved,
                keys.chunks(task_id),
            ],
            [
                GROUP,
                fence.consumer,
                fence.deliveries,
                fence.entry,
                task_id,
                reason,
                result,
                keys.done_prefix,
                self._options.dead_limit,
                *keep_of(self._options),
            ],
        )

    async def _reclaim(self, limit: int) -> list[Delivery]:
        reply = await self._group_script(
            "reclaim",
            [*self._keys.lanes, self._keys.cancelled],
            [GROUP, self.consumer, self._lease_ms, limit, *self._cursors],
        )
        cursors, *claimed = reply
        self._cursors = [cursor.decode() for cursor in cursors]
        deliveries = []
        for lane, entry_id, raw, count, cancelled in claimed:
            if delivery := await self._accept(Fence(lane, entry_id.decode(), self.consumer, count), raw):
                deliveries.append(delivery)
                if cancelled:
                    self._to_cancel.put_nowait(delivery.task.id)
        return deliveries

    async def _recover(self) -> None:
        """Find entries that the server gave us in a reply that never arrived."""
        for lane, name in enumerate(self._keys.lanes, start=1):
            pending = await self._client.command("XPENDING", name, GROUP, "-", "+", 100, self.consumer)
            for row in inspection.pending_rows(pending):
                fence = Fence(lane, row.entry_id, self.consumer, row.deliveries)
                if self._committer.holds(fence):
                    continue
                for _, raw in await self._client.command("XRANGE", name, row.entry_id, row.entry_id):
                    if delivery := await self._accept(fence, raw):
                        self._surplus.append(delivery)
        self._reply_lost = False

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those of deliveries that wait here for the next pull, too."""
        held = [*deliveries, *self._surplus]
        if not held:
            return []
        keys = self._keys
        table = CallTable(*keys.lanes, keys.cancelled, keys.results)
        packed = []
        for delivery in held:
            fence, task = fence_of(delivery), delivery.task
            chunks = table.position(keys.chunks(task.id))
            ark_list = table.position(task.stream_key) if task.stream_key else 0
            packed.append((fence.lane, fence.entry, fence.consumer, fence.deliveries, task.id, chunks, ark_list))
        lost, cancelled = await self._client.script(
            "renew", table.names, table.arguments((GROUP, keep_of(self._options), packed))
        )
        for task_id in cancelled:
            self._to_cancel.put_nowait(task_id.decode())
        for position in lost:
            self._committer.drop(held[position])
        self._surplus = deque(
            delivery for position, delivery in enumerate(held) if position >= len(deliveries) and position not in lost
        )
        return [held[position] for position in lost if position < len(deliveries)]

    async def ack(self, delivery: Delivery, result: TaskResult) -> None:
        """End the task."""
        await self._commit_one(Ack(delivery=delivery, result=result))

    async def nack(
        self,
        delivery: Delivery,
        error: str,
        *,
        retry_in_s: float | None = None,
        dead: bool = False,
        next_attempt: int = 0,
        result: TaskResult | None = None,
    ) -> None:
        """Give the task back, or give it up."""
        outcome: Outcome
        if dead:
            said = result or TaskResult(task_id=delivery.task.id, error=error, finished_at=time.time())
            outcome = Dead(delivery=delivery, result=said)
        elif retry_in_s is not None:
            outcome = Retry(delivery=delivery, error=error, retry_in_s=retry_in_s, next_attempt=next_attempt)
        else:
            outcome = Release(delivery=delivery, next_attempt=next_attempt)
        await self._commit_one(outcome)

    async def _commit_one(self, outcome: Outcome) -> None:
        if await self._committer.commit([outcome]):
            raise LeaseLost(f"task {outcome.delivery.task.id} has another owner")

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
                        message = await inbox.get(LONGEST_BLOCK_S * 60)
                        verb, _, task_id = (message or b"").decode().partition(" ")
                        if verb == "cancel":
                            self._to_cancel.put_nowait(task_id)
                        elif verb == "resume":
                            self._resumed.set()
            except BackendUnavailable as error:  # renewals see cancellations meanwhile
                log.warning("not listening for cancellations, trying again", error=str(error))

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
        if not letter_ids:
            return 0
        deleted: int = await self._client.command("XDEL", self._keys.dead, *letter_ids)
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
            if self._reply_lost:
                await self._recover()
            await self._committer.commit([Release(delivery=delivery) for delivery in self._surplus])
            self._surplus.clear()
            await self._leave_group()
        except QueueError as error:
            log.warning("could not say goodbye to the queue", error=str(error))

    async def _leave_group(self) -> None:
        """Remove our consumer where nothing is pending: removing one with pending entries would lose them."""
        for lane in self._keys.lanes:
            if not await self._client.command("XPENDING", lane, GROUP, "-", "+", 1, self.consumer):
                await self._client.command("XGROUP", "DELCONSUMER", lane, GROUP, self.consumer)


def _full(queue: str, depth: int) -> QueueFull:
    return QueueFull(f"queue {queue!r} has reached its max_depth of {depth} waiting tasks: try again later")
