"""Taking tasks: lane by lane, and delayed ones when they are due."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from queue_backends.errors import BackendUnavailable
from queue_backends.interfaces import BackendOptions, Delivery, Release
from queue_backends.messages import Priority
from queue_backends.nats.claiming import Claimer
from queue_backends.nats.clients import COMMAND_TIMEOUT_S
from queue_backends.nats.committing import Committer
from queue_backends.nats.entries import own_headers, shown_task
from queue_backends.nats.fetching import Fetcher
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.offers import Offer
from queue_backends.nats.reaping import Reaper
from queue_backends.nats.refusals import Conflict
from queue_backends.nats.setup import SetUp
from queue_backends.nats.subjects import LATER, TASK_LANES
from queue_backends.nats.writes import Write

LOOK_FOR_DUE_EVERY_S = 0.1
MOST_DUE = 250
MOST_PER_FETCH = 250

log = structlog.get_logger(__name__)


def worker_name(wish: str) -> str:
    """A name that no other process has."""
    return f"{wish or socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Puller:
    """Takes tasks for one worker."""

    def __init__(
        self,
        ledger: Ledger,
        set_up: SetUp,
        fetcher: Fetcher,
        claimer: Claimer,
        committer: Committer,
        reaper: Reaper,
        options: BackendOptions,
    ) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._set_up = set_up
        self._fetcher = fetcher
        self._claimer = claimer
        self._committer = committer
        self._reaper = reaper
        self._options = options
        self._looked_for_due_at = float("-inf")
        self.surplus: deque[Delivery] = deque()
        """Taken for a caller who has left: the next pull has them first, and renewals keep them until then."""

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks: what is there at once, else the first that comes."""
        deadline = time.monotonic() + wait_s
        while True:
            if deliveries := await self._to_its_end(self._take(limit)):
                return deliveries
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return []
            if deliveries := await self._to_its_end(self._await_first(limit, remaining)):
                return deliveries

    async def _to_its_end(self, taking: Coroutine[Any, Any, list[Delivery]]) -> list[Delivery]:
        """A caller who leaves must not leave tasks behind that are claimed for him."""
        job = asyncio.create_task(taking, name="pull")
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            self._fetcher.hurry()
            try:
                await asyncio.wait([job], timeout=COMMAND_TIMEOUT_S)
            finally:
                job.cancel()
            if job.done() and not job.cancelled() and job.exception() is None:
                self.surplus.extend(job.result())
            raise

    async def _take(self, limit: int) -> list[Delivery]:
        if self.surplus:
            return [self.surplus.popleft() for _ in range(min(limit, len(self.surplus)))]
        await self._set_up.lease()
        await self._reaper.reap_now_and_then()
        await self._claimer.retry_unconfirmed()
        if time.monotonic() - self._looked_for_due_at > LOOK_FOR_DUE_EVERY_S:
            await self._move_due()
        taken: list[Delivery] = []
        try:
            for lane in TASK_LANES:
                await self._take_from(lane, limit, taken)
                if len(taken) >= limit:
                    break
        except BackendUnavailable as error:
            if not taken:
                raise
            log.warning("a pull was cut short", error=str(error))
        return taken

    async def _take_from(self, lane: str, limit: int, taken: list[Delivery]) -> None:
        """Until there are enough, or the lane is empty: what is offered may be refused, and hides no task behind it."""
        while (wanted := limit - len(taken)) > 0:
            wanted = min(wanted, MOST_PER_FETCH)
            offers = await self._fetcher.fetch(lane, wanted)
            if offers:
                taken += await self._claimer.claim(offers)
            if len(offers) < wanted:
                return

    async def _move_due(self) -> None:
        """What waits for its moment is looked at once, and put off until then."""
        while True:
            self._looked_for_due_at = time.monotonic()
            offers = await self._fetcher.fetch(LATER, MOST_DUE)
            await self._move(offers)
            if len(offers) < MOST_DUE:
                return

    async def _move(self, offers: Sequence[Offer]) -> None:
        for offer in sorted(offers, key=lambda offer: offer.entry.due_at or 0.0):
            left_s = (offer.entry.due_at or 0.0) - time.time()
            if left_s > 0:
                await self._fetcher.put_off(offer, left_s)
            else:
                await self._make_ready(offer)

    async def _make_ready(self, offer: Offer) -> None:
        """Into its lane; whoever does it first."""
        task = shown_task(offer.task_id, offer.stored.data)
        lane = Priority(task.priority).value
        headers = own_headers(offer.stored)
        try:
            await self._ledger.write(
                Write(self._subjects.lane(lane, offer.task_id), offer.stored.data, expected=0, headers=headers)
            )
        except Conflict:
            log.debug("a due task is in its lane already", task=offer.task_id)
        await self._committer.acknowledge([offer.ack_subject])

    async def _await_first(self, limit: int, wait_s: float) -> list[Delivery]:
        offers = await self._fetcher.wait(wait_s)
        due = [offer for offer in offers if offer.is_delayed]
        order = {lane: position for position, lane in enumerate(TASK_LANES)}
        ready = sorted((offer for offer in offers if not offer.is_delayed), key=lambda offer: order[offer.consumer])
        await self._move(due)
        await self._fetcher.put_back(ready[limit:])
        return await self._claimer.claim(ready[:limit])

    async def leave(self) -> None:
        """Give back what no run ever saw."""
        if self.surplus:
            await self._committer.commit([Release(delivery=delivery) for delivery in self.surplus])
