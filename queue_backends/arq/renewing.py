"""Keeping leases: one fenced script for many deliveries, from the queue's own loop or from a thread beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from queue_backends.arq.wire import Scripts, fence_of
from queue_backends.interfaces import BackendOptions, Delivery
from queue_backends.redis.client import COMMAND_TIMEOUT_S, RedisClient
from queue_backends.redis.renewing import MOST_PER_CALL


async def renew_leases(
    scripts: Scripts, options: BackendOptions, deliveries: Sequence[Delivery]
) -> tuple[list[Delivery], list[str]]:
    """Extend each lease. Returns those that are lost, in input order, and the ids of tasks whose cancel was asked."""
    lost: list[Delivery] = []
    to_cancel: list[str] = []
    # One that gets no answer, on a connection that leads nowhere, is tried again while the leases still run.
    limit_s = min(COMMAND_TIMEOUT_S, max(1.0, options.lease_s / 4))
    for first in range(0, len(deliveries), MOST_PER_CALL):
        part = deliveries[first : first + MOST_PER_CALL]
        fences = [tuple(fence_of(delivery)) for delivery in part]
        positions, cancelled = await scripts.call("renew", fences, timeout_s=limit_s)
        lost += [part[position] for position in positions]
        to_cancel += [task_id.decode() for task_id in cancelled]
    return lost, to_cancel


class ArqRenewer:
    """`LeaseRenewer` on an arq queue.

    `waiting` gives what the queue keeps for its next pull, whose leases run too; `tell_lost` tells the queue, in its
    own loop, what it no longer has.
    """

    def __init__(
        self,
        client: RedisClient,
        scripts: Scripts,
        options: BackendOptions,
        consumer: str,
        waiting: Callable[[], Sequence[Delivery]],
        tell_lost: Callable[[Sequence[Delivery]], object],
    ) -> None:
        self._client = client
        self._scripts = scripts.on(client)
        self._options = options
        self._consumer = consumer
        self._waiting = waiting
        self._tell_lost = tell_lost
        self._to_cancel: list[str] = []

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those that wait for the next pull, too, and they may be among what is lost."""
        held = [*deliveries, *self._waiting()]
        lost, to_cancel = await renew_leases(self._scripts, self._options, held)
        self._to_cancel += to_cancel
        if lost:
            self._tell_lost(lost)
        return lost

    async def cancel_requests(self) -> list[str]:
        """Those that renewals came upon, and what was asked lately, through Shoal or arq."""
        asked = await self._scripts.call("aborts", self._consumer)
        found, self._to_cancel = self._to_cancel, []
        return [*found, *(task_id.decode() for task_id in asked)]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
