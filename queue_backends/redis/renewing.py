"""Keeping leases: one fenced script for many deliveries, from the queue's own loop or from a thread beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from queue_backends.errors import BackendMisconfigured
from queue_backends.interfaces import BackendOptions, Delivery
from queue_backends.redis.client import COMMAND_TIMEOUT_S, RedisClient
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.wire import CallTable, fence_of, keep_of

MOST_PER_CALL = 500
"""Leases renewed by one script call: the server does nothing else meanwhile."""
MOST_REQUESTS = 1000


async def renew_leases(
    client: RedisClient, keys: Keys, options: BackendOptions, deliveries: Sequence[Delivery]
) -> tuple[list[Delivery], list[str]]:
    """Extend each lease. Returns those that are lost, in input order, and the ids of tasks whose cancel was asked."""
    lost: list[Delivery] = []
    to_cancel: list[str] = []
    # One that gets no answer, on a connection that leads nowhere, is tried again while the leases still run.
    limit_s = min(COMMAND_TIMEOUT_S, max(1.0, options.lease_s / 4))
    for first in range(0, len(deliveries), MOST_PER_CALL):
        part = deliveries[first : first + MOST_PER_CALL]
        try:
            positions, cancelled = await _renew(client, keys, options, part, limit_s=limit_s)
        except BackendMisconfigured:  # one task may name a list that the ACL forbids: that must not cost all leases
            positions, cancelled = await _renew(client, keys, options, part, limit_s=limit_s, with_lists=False)
        lost += [part[position] for position in positions]
        to_cancel += [task_id.decode() for task_id in cancelled]
    return lost, to_cancel


async def _renew(
    client: RedisClient,
    keys: Keys,
    options: BackendOptions,
    deliveries: Sequence[Delivery],
    *,
    limit_s: float,
    with_lists: bool = True,
) -> tuple[list[int], list[bytes]]:
    """Positions of what is lost, and the ids of tasks to cancel. The lists are ark's, of tasks that somebody ended."""
    table = CallTable(*keys.lanes, keys.cancelled, keys.results)
    packed = [_pack(delivery, table, keys, with_list=with_lists) for delivery in deliveries]
    payload = table.arguments((GROUP, keep_of(options), packed))
    positions, cancelled = await client.script("renew", table.names, payload, timeout_s=limit_s)
    return positions, cancelled


def _pack(
    delivery: Delivery, table: CallTable, keys: Keys, *, with_list: bool
) -> tuple[int, str, str, int, str, int, int]:
    fence, task = fence_of(delivery), delivery.task
    chunks = table.position(keys.chunks(task.id))
    ark_list = table.position(task.stream_key) if task.stream_key and with_list else 0
    return fence.lane, fence.entry, fence.consumer, fence.deliveries, task.id, chunks, ark_list


class RedisRenewer:
    """`LeaseRenewer` on Redis. It is no consumer: fences name the one that pulled.

    `waiting` gives what the queue keeps for its next pull, whose leases run too; `tell_lost` tells the queue, in its
    own loop, what it no longer has.
    """

    def __init__(
        self,
        client: RedisClient,
        options: BackendOptions,
        waiting: Callable[[], Sequence[Delivery]],
        tell_lost: Callable[[Sequence[Delivery]], object],
    ) -> None:
        self._client = client
        self._keys = Keys(client.stream)
        self._options = options
        self._waiting = waiting
        self._tell_lost = tell_lost
        self._to_cancel: list[str] = []
        self._asked_at_ms = "-inf"

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those that wait for the next pull, too, and they may be among what is lost."""
        held = [*deliveries, *self._waiting()]
        lost, to_cancel = await renew_leases(self._client, self._keys, self._options, held)
        self._to_cancel += to_cancel
        if lost:
            self._tell_lost(lost)
        return lost

    async def cancel_requests(self) -> list[str]:
        """Those that renewals came upon, and what was asked since the last look, by the server's clock."""
        rows = await self._client.command(
            "ZRANGEBYSCORE", self._keys.cancelled, self._asked_at_ms, "+inf", "WITHSCORES", "LIMIT", 0, MOST_REQUESTS
        )
        if rows:
            self._asked_at_ms = rows[-1].decode()
        found, self._to_cancel = self._to_cancel, []
        return [*found, *(task_id.decode() for task_id in rows[::2])]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
