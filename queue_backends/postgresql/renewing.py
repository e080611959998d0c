"""Keeping leases: one fenced statement for many deliveries, from the queue's own loop or from a thread beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from queue_backends.interfaces import BackendOptions, Delivery
from queue_backends.postgresql.arrays import Uuids
from queue_backends.postgresql.connections import COMMAND_TIMEOUT_S, Connections
from queue_backends.postgresql.names import fence_of

MOST_PER_CALL = 500
MOST_REQUESTS = 1000


async def renew_leases(
    connections: Connections, queue_id: int, options: BackendOptions, deliveries: Sequence[Delivery]
) -> tuple[list[Delivery], list[str]]:
    """Extend each lease. Returns those that are lost, in input order, and the ids of tasks whose cancel was asked."""
    lost: list[Delivery] = []
    to_cancel: list[str] = []
    # One that gets no answer, on a connection that leads nowhere, is tried again while the leases still run.
    limit_s = min(COMMAND_TIMEOUT_S, max(1.0, options.lease_s / 4))
    for first in range(0, len(deliveries), MOST_PER_CALL):
        part = deliveries[first : first + MOST_PER_CALL]
        fences = [fence_of(delivery) for delivery in part]
        parameters = {
            "queue": queue_id,
            "ids": Uuids([task_id for task_id, _ in fences]),
            "tokens": Uuids([token for _, token in fences]),
            "lease": float(options.lease_s),
        }
        rows = await connections.execute("renew", parameters, timeout_s=limit_s)
        held = {(task_id, token) for task_id, token, _ in rows}
        lost += [delivery for delivery, fence in zip(part, fences, strict=True) if fence not in held]
        to_cancel += [str(task_id) for task_id, _, is_asked in rows if is_asked]
    return lost, to_cancel


class PostgresqlRenewer:
    """`LeaseRenewer` on PostgreSQL.

    `waiting` gives what the queue keeps for its next pull, whose leases run too; `tell_lost` tells the queue, in its
    own loop, what it no longer has.
    """

    def __init__(
        self,
        connections: Connections,
        queue_id: int,
        options: BackendOptions,
        waiting: Callable[[], Sequence[Delivery]],
        tell_lost: Callable[[Sequence[Delivery]], object],
    ) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._options = options
        self._waiting = waiting
        self._tell_lost = tell_lost
        self._to_cancel: list[str] = []
        self._asked_at = 0.0

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those that wait for the next pull, too, and they may be among what is lost."""
        held = [*deliveries, *self._waiting()]
        lost, to_cancel = await renew_leases(self._connections, self._queue_id, self._options, held)
        self._to_cancel += to_cancel
        if lost:
            self._tell_lost(lost)
        return lost

    async def cancel_requests(self) -> list[str]:
        """Those that renewals came upon, and what was asked since the last look, by the server's clock."""
        parameters = {"queue": self._queue_id, "since": self._asked_at, "limit": MOST_REQUESTS}
        rows = await self._connections.execute("cancel_requests", parameters)
        if rows:
            self._asked_at = rows[-1][1]
        found, self._to_cancel = self._to_cancel, []
        return [*found, *(str(row[0]) for row in rows)]

    async def close(self) -> None:
        """Close the connection."""
        await self._connections.close()
