"""Taking entries from consumers: what is there at once, or the first that comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec
import structlog
from nats.aio.msg import Msg

from queue_backends.errors import BackendMisconfigured, BackendUnavailable, QueueError
from queue_backends.nats.calls import Call, status_of
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.offers import Offer
from queue_backends.nats.setup import NANOSECONDS, SetUp
from queue_backends.nats.subjects import LATER, TASK_LANES

LONGEST_WAIT_S = 5.0
"""A waiting request is made anew after this time: the server forgets those of before its restart, or of a leader that
is no more."""
SHORTEST_WAIT_S = 0.2
"""With short leases it is made anew more often: who waits must hear from the server, or believes that it was away."""
ENDED = frozenset({"404", "408"})
"""No messages, and the end of the wait."""

log = structlog.get_logger(__name__)


class Fetcher:
    """Speaks to the consumers of one queue."""

    def __init__(self, ledger: Ledger, set_up: SetUp, lease_s: float) -> None:
        self._ledger = ledger
        self._connection = ledger.connection
        self._set_up = set_up
        self._round_s = min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, lease_s / 4))
        self._waits: set[asyncio.Event] = set()
        self._inbox = ""
        self._number = 0
        self._call: Call | None = None
        self._turn = asyncio.Lock()
        self._next = f"{self._connection.api_prefix}.CONSUMER.MSG.NEXT.{ledger.subjects.stream}"

    async def fetch(self, consumer: str, limit: int) -> list[Offer]:
        """Up to `limit` entries that are there now."""
        most_bytes = max(16 * 1024 * 1024, 2 * self._connection.max_payload)
        body = msgspec.json.encode({"batch": limit, "no_wait": True, "max_bytes": most_bytes})
        async with self._turn:
            if not self._inbox:
                self._inbox = self._connection.new_inbox()
                await self._connection.listen(f"{self._inbox}.*", self._receive)
            messages: list[Msg] = []
            self._number += 1
            self._call = call = Call(f"{self._next}.{consumer}", messages, limit)
            try:
                await self._connection.perform(call, body, reply=f"{self._inbox}.{self._number}")
            except BackendUnavailable as error:
                await self._repair(error)
                raise
            finally:
                self._call = None
        return [Offer(message) for message in messages]

    async def _receive(self, message: Msg) -> None:
        """An entry keeps its own subject on its way here; a status has that of the request."""
        if status_of(message) and message.subject.rpartition(".")[2] != str(self._number):
            return
        if self._call is not None and not self._call.future.done():
            self._call.receive(message)
        elif not status_of(message):
            await self.put_back([Offer(message)])  # of a request that was given up

    async def _repair(self, error: BackendUnavailable) -> None:
        """Nobody answers for the consumer: it may be gone, with all its stream."""
        if "JetStream does not answer" in str(error):
            with contextlib.suppress(BackendUnavailable, BackendMisconfigured):
                await self._set_up.again()

    async def wait(self, wait_s: float) -> list[Offer]:
        """The first entry that any consumer has; a few, if several have one at the same moment; none after `wait_s`."""
        arrived: list[Msg] = []
        waiting = {LATER, *TASK_LANES}
        over = asyncio.Event()

        async def receive(message: Msg) -> None:
            status = status_of(message)
            if not status:
                arrived.append(message)
                over.set()
                return
            waiting.discard(message.subject.rpartition(".")[2])
            if not waiting or status not in ENDED:
                over.set()

        wait_s = min(wait_s, self._round_s)
        inbox = self._connection.new_inbox()
        listening = await self._connection.listen(f"{inbox}.*", receive)
        self._connection.on_return.add(over.set)
        self._waits.add(over)
        try:
            body = msgspec.json.encode({"batch": 1, "expires": max(1_000_000, round(wait_s * NANOSECONDS))})
            for consumer in tuple(waiting):
                await self._connection.publish(f"{self._next}.{consumer}", body, reply=f"{inbox}.{consumer}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s + 0.5):
                    await over.wait()
        finally:
            self._connection.on_return.discard(over.set)
            self._waits.discard(over)
            self._connection.forget(listening)
            # What is on its way to us would else wait for the end of a lease that nobody has.
            if await listening.drain():
                self._connection.availability.answered()
        return [Offer(message) for message in arrived]

    def hurry(self) -> None:
        """End every wait now."""
        for over in self._waits:
            over.set()

    async def put_off(self, offer: Offer, delay_s: float) -> None:
        """Let it be offered again, after a time."""
        body = b"-NAK " + msgspec.json.encode({"delay": max(1_000_000, round(delay_s * NANOSECONDS))})
        await self._connection.publish(offer.ack_subject, body if delay_s > 0 else b"-NAK")

    async def put_back(self, offers: Sequence[Offer]) -> None:
        """Let them be offered to somebody else at once."""
        for offer in offers:
            try:
                await self.put_off(offer, 0)
            except QueueError as error:
                log.debug("an entry stays until its lease ends", task=offer.task_id, error=str(error))
