"""Taking tasks: ready ones, due ones, those whose lease has run out, and those whose reply got lost."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import structlog

from queue_backends.errors import BackendUnavailable, InvalidTask, QueueError
from queue_backends.interfaces import BackendOptions, Delivery, Release
from queue_backends.postgresql.arrays import Uuids
from queue_backends.postgresql.channels import Channel
from queue_backends.postgresql.connections import Connections, may_have_arrived
from queue_backends.postgresql.inbox import Inbox
from queue_backends.postgresql.listening import Hub
from queue_backends.postgresql.refusing import letter_of, refusal
from queue_backends.postgresql.rows import TaskRow, delivery_of, unread_delivery
from queue_backends.postgresql.writing import Writer

T = TypeVar("T")

log = structlog.get_logger(__name__)

LATE_CLAIM_S = 5.0
"""So long after it answers again the server may still be about to carry out what it had received before."""
LONGEST_SLEEP_S = 15.0
"""A pull that waits looks this often by itself, in case an announcement was lost on the way."""
SWEPT_AT_ONCE = 500


def consumer_name(wish: str) -> str:
    """A name that no other process has."""
    return f"{wish or socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Outlook(NamedTuple):
    """How things stand where there is nothing to take."""

    is_paused: bool
    due_in_s: float | None
    look_in_s: float | None
    """When the next lease may have run out."""


class Puller:
    """Takes tasks for one process."""

    def __init__(
        self,
        connections: Connections,
        queue_id: int,
        hub: Hub,
        writer: Writer,
        options: BackendOptions,
        cancel_asked: Callable[[str], None],
    ) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._hub = hub
        self._writer = writer
        self._options = options
        self._cancel_asked = cancel_asked
        self._lost_replies: dict[UUID, float | None] = {}
        """Tokens of claims whose reply never came -> when we first looked for what they have taken."""
        self._outlook: Outlook | None = None
        self._listening = AsyncExitStack()
        self._inbox: Inbox | None = None
        self.surplus: deque[Delivery] = deque()
        """Taken beyond what was asked for: the next pull has them first, and renewals keep them until then."""
        self.consumer = consumer_name(options.consumer)

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks: what is there at once, else the first that comes."""
        deadline = time.monotonic() + wait_s
        while True:
            deliveries = await self._to_its_end(self._take(limit))
            remaining = deadline - time.monotonic()
            if deliveries or remaining <= 0:
                return deliveries
            if self._inbox is None:  # from here on nothing that is announced is missed; look once more
                self._inbox = await self._listening.enter_async_context(self._hub.listen(Channel.WORK))
                continue
            await self._inbox.get(min(remaining, self._sleep_s()))

    def _sleep_s(self) -> float:
        """Until something changes by itself: a task is due, or a lease may have run out."""
        longest = min(LONGEST_SLEEP_S, max(0.05, self._options.lease_s / 2))
        if self._outlook is None or self._outlook.is_paused:
            return longest
        moments = [moment for moment in (self._outlook.due_in_s, self._reclaim_in_s()) if moment is not None]
        return max(0.001, min([longest, *moments]))

    def _reclaim_in_s(self) -> float | None:
        """After a long silence of the server nothing is taken over for half a lease: by then all who live have
        renewed."""
        if self._outlook is None or self._outlook.look_in_s is None:
            return None
        return max(
            self._outlook.look_in_s, self._options.lease_s / 2 - self._connections.availability.since_silence_s()
        )

    async def _to_its_end(self, claim: Coroutine[Any, Any, list[Delivery]]) -> list[Delivery]:
        """Let a claim end even if the pull is cancelled: what it has taken waits for the next pull."""
        job = asyncio.create_task(claim, name="claim")
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job], timeout=1.0)
            job.cancel()  # no effect on one that has ended; else it notes that its reply is lost
            await asyncio.wait([job], timeout=1.0)
            if job.done() and not job.cancelled() and job.exception() is None:
                self.surplus.extend(job.result())
            raise

    async def _take(self, limit: int) -> list[Delivery]:
        if self._lost_replies:
            await self._recover()
        if self.surplus:
            return [self.surplus.popleft() for _ in range(min(limit, len(self.surplus)))]
        await self._sweep()
        while True:
            rows, token = await self._claim(limit)
            deliveries = await self._accept(rows, token)
            if deliveries or (not rows and not await self._sweep()):
                return deliveries

    async def _claim(self, limit: int) -> tuple[list[TaskRow], UUID]:
        token = uuid.uuid4()
        parameters = {
            "queue": self._queue_id,
            "limit": limit,
            "token": token,
            "worker": self.consumer,
            "lease": float(self._options.lease_s),
        }
        try:
            rows = await self._connections.execute("claim", parameters)
        except asyncio.CancelledError:
            self._lost_replies[token] = None
            raise
        except BackendUnavailable as error:
            if may_have_arrived(error):
                self._lost_replies[token] = None
            raise
        self._outlook = Outlook(*rows[0][:3])
        return [TaskRow(*row[3:]) for row in rows if row[3] is not None], token

    async def _accept(self, rows: Sequence[TaskRow], token: UUID) -> list[Delivery]:
        deliveries: list[Delivery] = []
        try:
            for row in rows:
                try:
                    delivery = delivery_of(row, token, self.consumer, self._options)
                except InvalidTask as error:
                    await self._refuse(row, token, str(error))
                    continue
                self._writer.hold(delivery)
                deliveries.append(delivery)
                if row.cancel_asked:
                    self._cancel_asked(delivery.task.id)
        except BaseException:
            self.surplus.extend(deliveries)  # they are ours all the same
            self._lost_replies[token] = None
            raise
        return deliveries

    async def _refuse(self, row: TaskRow, token: UUID, reason: str) -> None:
        log.warning("unreadable entry goes to the dead letters", entry=row.entry_id, reason=reason)
        try:
            end = refusal(unread_delivery(row, token, self.consumer), reason)
            await self._writer.refuse(end, letter_of(row, self._options))
        except QueueError as failed:
            log.warning("cannot refuse an unreadable entry yet", entry=row.entry_id, error=str(failed))
            self._lost_replies[token] = None  # it is found again, and refused, at the next pull

    async def _sweep(self) -> bool:
        """Make ready what is due and what lost its lease, if there is any such thing; says whether to look again."""
        seen = self._outlook
        if seen is None:
            return False
        is_due = seen.due_in_s is not None and seen.due_in_s <= 0
        reclaim_in_s = self._reclaim_in_s()
        reclaims = reclaim_in_s is not None and reclaim_in_s <= 0
        if seen.is_paused or not (is_due or reclaims):
            return False
        self._outlook = None
        parameters = {"queue": self._queue_id, "limit": SWEPT_AT_ONCE, "reclaim": reclaims}
        ((woken, looked),) = await self._connections.execute("sweep", parameters)
        return bool(woken or looked)  # a renewed lease runs out later: when, the next look tells

    async def _recover(self) -> None:
        """Find tasks that the server gave us in a reply that never came."""
        rows = await self._connections.execute(
            "recover", {"queue": self._queue_id, "tokens": Uuids(list(self._lost_replies))}
        )
        for *fields, token in rows:
            row = TaskRow(*fields)
            if (row.entry_id, str(token)) not in self._writer.held:
                self.surplus.extend(await self._accept([row], token))
        now = time.monotonic()
        looked = {token: since or now for token, since in self._lost_replies.items()}
        self._lost_replies = {token: since for token, since in looked.items() if now - since < LATE_CLAIM_S}

    async def leave(self) -> None:
        """Give back what no run ever saw."""
        if self._lost_replies:
            await self._recover()
        await self._writer.commit([Release(delivery=delivery) for delivery in self.surplus])
        self.surplus.clear()

    async def close(self) -> None:
        """Listen no more."""
        await self._listening.aclose()
