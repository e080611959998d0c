"""Keeping leases, from the queue's own loop or from a thread beside it.

The lease is JetStream's: an entry that is not heard of within `ack_wait` is offered again. Renewing tells the server
that the entry is in progress, after a look at the task's record: whether it still names this delivery.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from queue_backends.interfaces import BackendOptions, Delivery
from queue_backends.nats.clients import COMMAND_TIMEOUT_S
from queue_backends.nats.holding import Holdings
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.records import Stage, decode_record
from queue_backends.nats.writes import Write

MOST_REQUESTS = 1000


class Beat(Struct, frozen=True):
    """Which deliveries a worker has just renewed: told to whoever is offered one of them too early."""

    tokens: list[str]


decode_beat = msgspec.json.Decoder(Beat).decode


async def renew_leases(
    ledger: Ledger, holdings: Holdings, options: BackendOptions, deliveries: Sequence[Delivery]
) -> tuple[list[Delivery], list[str]]:
    """Extend each lease. Returns those that are lost, in input order, and the ids of tasks whose cancel was asked."""
    if not deliveries:
        return [], []
    # One that gets no answer, on a connection that leads nowhere, is tried again while the leases still run.
    limit_s = min(COMMAND_TIMEOUT_S, max(1.0, options.lease_s / 4))
    try:
        async with asyncio.timeout(limit_s):
            return await _renew(ledger, holdings, options, deliveries)
    except TimeoutError:
        await ledger.connection.distrust()
        raise ledger.connection.silent("a renewal", limit_s) from None


async def _renew(
    ledger: Ledger, holdings: Holdings, options: BackendOptions, deliveries: Sequence[Delivery]
) -> tuple[list[Delivery], list[str]]:
    subjects, connection = ledger.subjects, ledger.connection
    found = await ledger.last_of([subjects.task(delivery.task.id) for delivery in deliveries], fresh=True)
    lost: list[Delivery] = []
    to_cancel: list[str] = []
    tokens: list[str] = []
    for delivery in deliveries:
        held, stored = holdings.get(delivery), found.get(subjects.task(delivery.task.id))
        record = decode_record(stored) if stored else None
        if held is None or record is None or record.stage is not Stage.RUNNING or record.token != delivery.token:
            lost.append(delivery)
            continue
        await connection.publish(held.ack_subject, b"+WPI")
        tokens.append(delivery.token)
        if record.cancel:
            to_cancel.append(delivery.task.id)
    if tokens:
        beat = Write(
            subjects.beat(deliveries[0].worker), msgspec.json.encode(Beat(tokens)), ttl_s=max(2.0, 2 * options.lease_s)
        )
        await ledger.write(beat)  # answered after all that was sent before it has arrived
        now = time.monotonic()
        for token in tokens:
            if (held := holdings.holds(token)) is not None:
                held.renewed_at = now
    return lost, to_cancel


class NatsRenewer:
    """`LeaseRenewer` on NATS, over a connection of its own that is made by the first call.

    `waiting` gives what the queue keeps for its next pull, whose leases run too; `tell_lost` tells the queue, in its
    own loop, what it no longer has.
    """

    def __init__(
        self,
        ledger: Ledger,
        holdings: Holdings,
        options: BackendOptions,
        waiting: Callable[[], Sequence[Delivery]],
        tell_lost: Callable[[Sequence[Delivery]], object],
    ) -> None:
        self._ledger = ledger
        self._holdings = holdings
        self._options = options
        self._waiting = waiting
        self._tell_lost = tell_lost
        self._to_cancel: dict[str, None] = {}
        self._opening: asyncio.Lock | None = None
        self._opened = False

    async def _open(self) -> None:
        if self._opened:
            return
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if not self._opened:
                await self._ledger.connection.open()
                await self._ledger.connection.listen(self._ledger.subjects.cancel, self._cancel_asked)
                self._opened = True

    async def _cancel_asked(self, message: object) -> None:
        data = getattr(message, "data", b"")
        if len(self._to_cancel) < MOST_REQUESTS:
            self._to_cancel[data.decode(errors="replace")] = None

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those that wait for the next pull, too, and they may be among what is lost."""
        await self._open()
        held = [*deliveries, *self._waiting()]
        lost, to_cancel = await renew_leases(self._ledger, self._holdings, self._options, held)
        self._to_cancel.update(dict.fromkeys(to_cancel))
        if lost:
            self._tell_lost(lost)
        return lost

    async def cancel_requests(self) -> list[str]:
        """Those that renewals came upon, and what was asked since the last look."""
        await self._open()
        found, self._to_cancel = list(self._to_cancel), {}
        return found

    async def close(self) -> None:
        """Close the connection."""
        if self._opened:
            await self._ledger.connection.close()
