"""Taking tasks: ready ones, due ones, those whose lease has run out, and those whose reply got lost."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import structlog

from queue_backends.errors import BackendUnavailable, InvalidTask, QueueError
from queue_backends.interfaces import BackendOptions, Delivery, Release
from queue_backends.messages import TaskResult
from queue_backends.redis import inspection
from queue_backends.redis.client import RedisClient
from queue_backends.redis.commit import Committer
from queue_backends.redis.entries import RawFields, delivery_of, task_id_of
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.to_its_end import to_its_end
from queue_backends.redis.wire import Fence, encode_result, keep_of

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 2.0
"""How often a worker asks whether leases have run out, or a fifth of a short lease. One of all workers is told."""
LONGEST_BLOCK_S = 1.0
"""A blocked pull looks this often for delayed tasks, expired leases and a pause, which cannot wake it."""
REPLY_WITHIN_S = 10.0
"""After the end of the block itself."""
MOST_PENDING = 10_000
LATE_CLAIM_S = 5.0
CONSUMER_IDLE_MS = 3_600_000
"""A consumer that has done nothing for so long, and holds nothing, belongs to a process that was killed."""
SWEEP_EVERY_S = 600.0


def consumer_name(wish: str) -> str:
    """A name that no other process has: two consumers of one name would read each other's pending entries."""
    return f"{wish or socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Idle(NamedTuple):
    """Nothing is ready."""

    is_paused: bool
    next_due_s: float
    """When to look again: the next delayed task may be ready then."""


class Puller:
    """Takes tasks for one consumer of the group."""

    __slots__ = (
        "_cancel_asked",
        "_client",
        "_committer",
        "_keys",
        "_lease_ms",
        "_next_reclaim",
        "_next_sweep",
        "_options",
        "_own_expired",
        "_reclaim_every_s",
        "_reply_lost_at",
        "_server_ahead_ms",
        "_turn_ms",
        "consumer",
        "resumed",
        "surplus",
    )

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        committer: Committer,
        options: BackendOptions,
        cancel_asked: Callable[[str], None],
    ) -> None:
        self._client = client
        self._keys = keys
        self._committer = committer
        self._options = options
        self._cancel_asked = cancel_asked
        self._lease_ms = round(options.lease_s * 1000)
        self._reclaim_every_s = min(LOOK_EVERY_S, options.lease_s / 5)
        self._turn_ms = max(1, round(self._reclaim_every_s * 1000))
        self._next_reclaim = 0.0
        self._next_sweep = time.monotonic() + SWEEP_EVERY_S
        self._own_expired: dict[str, float] = {}
        """Our own entries whose lease has run out, as lane/id -> when that was first seen."""
        self._server_ahead_ms: float | None = None
        """The server's clock minus our own, measured with each look for expired leases."""
        self._reply_lost_at: float | None = None
        self.surplus: deque[Delivery] = deque()
        """Taken beyond what was asked for: the next pull has them first, and renewals keep them until then."""
        self.resumed = asyncio.Event()
        self.consumer = consumer_name(options.consumer)

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks: what is there at once, else the first that comes."""
        deadline = time.monotonic() + wait_s
        while True:
            taken = await to_its_end(self._take(limit), self._leave_over)
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

    async def take(self, limit: int) -> list[Delivery] | Idle:
        """What is ready at once, beside what is left over from before; or, if that is nothing, what may come."""
        taken = await to_its_end(self._take(limit, with_surplus=False), self._leave_over)
        return taken if isinstance(taken, list) else Idle(*taken)

    def keep(self, deliveries: Iterable[Delivery]) -> None:
        """For the next pull."""
        self.surplus.extend(deliveries)

    def _leave_over(self, taken: list[Delivery] | tuple[bool, float]) -> None:
        """This pull was cancelled."""
        self.keep(taken if isinstance(taken, list) else ())

    async def _take(self, limit: int, *, with_surplus: bool = True) -> list[Delivery] | tuple[bool, float]:
        """Deliveries; or, if there is none, whether the queue is paused and when the next delayed task is due."""
        if self._reply_lost_at is not None:
            await self._recover()
        if self.surplus and with_surplus:
            return [self.surplus.popleft() for _ in range(min(limit, len(self.surplus)))]
        # What lost its lease comes first: behind a long queue it would wait for ever.
        reclaimed = await self._look_around(limit) if time.monotonic() >= self._next_reclaim else []
        if len(reclaimed) == limit:
            return reclaimed
        keys = self._keys
        try:
            paused, next_due_ms, *read = await self._claim(
                "pull",
                [*keys.lanes, keys.delayed, keys.delayed_entries, keys.moved, keys.paused],
                [GROUP, self.consumer, limit - len(reclaimed)],
            )
            deliveries = await self._deliveries(read)
        except BaseException:
            self.keep(reclaimed)  # they are ours all the same
            raise
        if reclaimed or deliveries:
            return reclaimed + deliveries
        if read:  # all of it unreadable: there may be more behind it
            return False, 0.0
        return bool(paused), (max(next_due_ms, 1) / 1000 if next_due_ms >= 0 else LONGEST_BLOCK_S)

    async def _look_around(self, limit: int) -> list[Delivery]:
        """What lost its lease; and, now and then, consumers that nobody is any more.

        While the server was away nobody could renew. So when it is back, nothing is taken over for half a lease: until
        then all who live have renewed.
        """
        self._next_reclaim = time.monotonic() + self._reclaim_every_s
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_EVERY_S
            await self._sweep()
        if self._client.availability.since_silence_s() < self._options.lease_s / 2:
            return []
        return await self._reclaim(limit)

    async def _claim(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """A script's reply with entries that are ours from now on; makes the group if it has vanished."""
        try:
            with self._noting_lost_replies():
                return await self._client.script(name, keys, args)
        except QueueError as error:
            if "NOGROUP" not in str(error):
                raise
        await self.create_group()
        with self._noting_lost_replies():
            return await self._client.script(name, keys, args)

    @contextmanager
    def _noting_lost_replies(self) -> Iterator[None]:
        """A claim without its reply leaves entries that are ours and unknown to us: the next pull looks for them."""
        try:
            yield
        except (asyncio.CancelledError, BackendUnavailable):
            self._reply_lost_at = time.monotonic()
            raise

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
        unheard: list[list[Any]] = []
        try:
            reply, paused = await self._client.blocking(
                [(*read, "STREAMS", *lanes, *(">" for _ in lanes)), ("EXISTS", self._keys.paused)],
                timeout_s=block_s + REPLY_WITHIN_S,
                unheard=unheard.append,
            )
        except (asyncio.CancelledError, BackendUnavailable):
            for reply, paused in unheard:
                with suppress(QueueError):  # else the cancel would be lost; it is noted as a lost reply
                    self.keep(await self._blocked_read(reply, paused))
            if not unheard:
                self._reply_lost_at = time.monotonic()
            raise
        except QueueError as error:
            if "NOGROUP" not in str(error):
                raise
            await self.create_group()
            return []
        deliveries = await self._blocked_read(reply, paused)
        self.keep(deliveries[limit:])
        return deliveries[:limit]

    async def _blocked_read(self, reply: Sequence[Any] | None, paused: int) -> list[Delivery]:
        """What a blocked read gave. What came into a queue that is paused meanwhile is given back."""
        deliveries = await self._deliveries(reply or ())
        if paused:
            with self._looked_for_again(deliveries):
                await self._committer.commit([Release(delivery=delivery) for delivery in deliveries])
            return []
        return deliveries

    async def _await_resume(self, timeout_s: float) -> None:
        self.resumed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self.resumed.wait()
        except TimeoutError:
            return

    async def _deliveries(self, read: Sequence[Any]) -> list[Delivery]:
        """What XREADGROUP returned, as deliveries; what cannot be read is refused."""
        claimed: list[tuple[Fence, RawFields]] = []
        for name, entries in read:
            lane = self._keys.lanes.index(name.decode()) + 1
            claimed += [(Fence(lane, entry_id.decode(), self.consumer, 1), raw) for entry_id, raw in entries]
        return await self._accepted(claimed)

    async def _accepted(self, claimed: Iterable[tuple[Fence, RawFields]]) -> list[Delivery]:
        """Claimed entries as deliveries that we hold; what cannot be read is refused."""
        deliveries: list[Delivery] = []
        unreadable: list[tuple[Fence, RawFields, str]] = []
        for fence, raw in claimed:
            try:
                delivery = delivery_of(fence, raw, self._options)
            except InvalidTask as error:
                unreadable.append((fence, raw, str(error)))
            else:
                self._committer.hold(delivery)
                deliveries.append(delivery)
        if unreadable:
            with self._looked_for_again(deliveries):
                for fence, raw, reason in unreadable:
                    await self._refuse_or_postpone(fence, raw, reason)
        return deliveries

    @contextmanager
    def _looked_for_again(self, deliveries: Sequence[Delivery]) -> Iterator[None]:
        """If this is cancelled or fails, the next pull looks which of them are still ours: nobody has got them."""
        try:
            yield
        except BaseException:
            for delivery in deliveries:
                self._committer.drop(delivery)
            self._reply_lost_at = time.monotonic()
            raise

    async def _refuse_or_postpone(self, fence: Fence, raw: RawFields, reason: str) -> None:
        try:
            await self._refuse(fence, raw, reason)
        except QueueError as failed:
            log.warning("cannot refuse an unreadable entry yet", entry=fence.entry, error=str(failed))
            self._reply_lost_at = time.monotonic()  # it is found again, and refused, at the next pull

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
        reply = await self._claim(
            "reclaim",
            [*self._keys.lanes, self._keys.cancelled, self._keys.paused, self._keys.reclaimer],
            [GROUP, self.consumer, self._lease_ms, limit, self._server_ms(), self._turn_ms, *self._given_up()],
        )
        server_ms, own, *claimed = reply
        self._server_ahead_ms = server_ms - time.monotonic() * 1000
        if own is not None:  # it was our turn
            self._note_own_expired([entry.decode() for entry in own])
        deliveries: list[Delivery] = []
        with self._looked_for_again(deliveries):
            for lane, entry_id, raw, count, cancelled in claimed:
                accepted = await self._accepted([(Fence(lane, entry_id.decode(), self.consumer, count), raw)])
                deliveries += accepted
                if cancelled and accepted:
                    self._cancel_asked(accepted[0].task.id)
        return deliveries

    def _server_ms(self) -> int:
        """The server's clock at this moment, as far as its last answer tells; 0 before the first one."""
        return 0 if self._server_ahead_ms is None else round(time.monotonic() * 1000 + self._server_ahead_ms)

    def _given_up(self) -> list[str]:
        """Our own entries that nobody has renewed for another whole lease since they were found expired."""
        before = time.monotonic() - self._options.lease_s
        return [entry for entry, since in self._own_expired.items() if since < before]

    def _note_own_expired(self, entries: Sequence[str]) -> None:
        now = time.monotonic()
        self._own_expired = {entry: self._own_expired.get(entry, now) for entry in entries}
        places = [entry.partition("/") for entry in entries]
        if not all(self._committer.holds_entry(int(lane), entry) for lane, _, entry in places):
            self._reply_lost_at = now

    async def _recover(self) -> None:
        """Find entries that the server gave us in a reply that never arrived. The server may still be about to carry
        out what it had received, so this is done at every pull for a while."""
        for lane, name in enumerate(self._keys.lanes, start=1):
            for row in await inspection.pending(self._client, name, "-", "+", MOST_PENDING, self.consumer):
                fence = Fence(lane, row.entry_id, self.consumer, row.deliveries)
                if self._committer.holds_entry(lane, fence.entry):
                    continue
                for _, raw in await self._client.command("XRANGE", name, row.entry_id, row.entry_id):
                    self.keep(await self._accepted([(fence, raw)]))
        if self._reply_lost_at is not None and time.monotonic() - self._reply_lost_at > LATE_CLAIM_S:
            self._reply_lost_at = None

    async def _sweep(self) -> None:
        """Forget consumers of processes that were killed; nothing else would ever remove them."""
        for lane in self._keys.lanes:
            for facts in await self._client.command("XINFO", "CONSUMERS", lane, GROUP):
                consumer = dict(zip(facts[::2], facts[1::2], strict=True))
                if consumer[b"pending"] == 0 and consumer[b"idle"] > CONSUMER_IDLE_MS:
                    await self._forget_consumer(lane, consumer[b"name"])

    async def _forget_consumer(self, lane: str, name: str | bytes) -> None:
        try:
            await self._client.command("XGROUP", "DELCONSUMER", lane, GROUP, name)
        except QueueError as error:
            if "NOGROUP" not in str(error) and "key to exist" not in str(error):
                raise

    async def leave(self) -> None:
        """Give back what no run ever saw, and leave the group where nothing is pending: removing a consumer with
        pending entries would lose them."""
        if self._reply_lost_at is not None:
            await self._recover()
        await self._committer.commit([Release(delivery=delivery) for delivery in self.surplus])
        self.surplus.clear()
        for lane in self._keys.lanes:
            if not await inspection.pending(self._client, lane, "-", "+", 1, self.consumer):
                await self._forget_consumer(lane, self.consumer)
