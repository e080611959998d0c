"""One partition: a whole queue of its own, all keys of which are in one slot."""

from __future__ import annotations

import asyncio

from queue_backends.interfaces import BackendOptions
from queue_backends.redis import RedisBackend
from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import Keys
from queue_backends.redis.queue import RedisQueue
from queue_backends.redis.renewing import RedisRenewer
from queue_backends.redis.state import RedisState
from queue_backends.redis_cluster.client import ClusterClient
from queue_backends.redis_cluster.slot_map import SlotMap, slot_of


class Partition(RedisBackend):
    """The single-server backend on the slot's master, wherever that is: its hot path is the same."""

    queue: RedisQueue

    def __init__(self, number: int, client: ClusterClient, options: BackendOptions, consumer: str) -> None:
        super().__init__(client, options, consumer=consumer)
        self.number = number
        self.client = client
        self.options = options
        self.keys = Keys(client.stream)
        self.slot = slot_of(client.stream)

    def renewer(self, slots: SlotMap) -> RedisRenewer:
        """As `lease_renewer`, with a map that several partitions share in the renewer's loop."""
        home, queue = asyncio.get_running_loop(), self.queue
        return RedisRenewer(
            self.client.twin(slots),
            self.options,
            queue.waiting,
            lambda lost: home.call_soon_threadsafe(queue.forget, lost),
        )

    @property
    def keys_and_logs(self) -> RedisState:
        """The partition's part of the state."""
        assert isinstance(self.state, RedisState)  # noqa: S101 - made by our own base
        return self.state

    def state_through(self, client: RedisClient) -> RedisState:
        """For names that are keys as they stand, wherever they are."""
        return RedisState(client, self.keys, self._hub)
