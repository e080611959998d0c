"""On a Redis Cluster: as on a single Redis, on whichever server has the partition."""

from __future__ import annotations

import redis
import redis.asyncio

from queue_backends import Backend, BackendOptions, open_backend
from queue_backends.interfaces import Delivery
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.queue import RedisQueue
from queue_backends.redis.wire import fence_of
from queue_backends.redis_cluster.backend import ClusterBackend
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.url import parse
from tests.cluster_servers import Cluster
from tests.servers import fresh_stream

PARTITIONS = 3


class RedisClusterSite:
    """A queue of its own on a cluster that nobody harms."""

    def __init__(self, cluster: Cluster) -> None:
        self._url = cluster.url(fresh_stream(), partitions=PARTITIONS)
        self._cluster = cluster
        self._ids = Ids(PARTITIONS)

    async def open(self, options: BackendOptions) -> Backend:
        """Connections of its own."""
        return await open_backend(self._url, options)

    def _keys(self, partition: int) -> Keys:
        return Keys(parse(self._url).partition_queue(partition, self._ids.partitions))

    async def _execute(self, keys: Keys, *command: str | int) -> None:
        async with redis.asyncio.Redis(port=self._cluster.master_of(keys.queue).port) as client:
            client.response_callbacks.clear()  # the driver's reading of XCLAIM knows no JUSTID
            await client.execute_command(*command)

    async def end_lease(self, delivery: Delivery) -> None:
        """The entry is idle for longer than any lease; JUSTID leaves its owner and count as they are."""
        keys = self._keys(self._ids.partition_of(delivery))
        fence = fence_of(self._ids.inside(delivery))
        lane = keys.lanes[fence.lane - 1]
        claim = ("XCLAIM", lane, GROUP, fence.consumer, 0, fence.entry)
        await self._execute(keys, *claim, "IDLE", 10**9, "JUSTID")

    async def end_delay(self, task_id: str) -> None:
        """It was due long ago."""
        place = self._ids.place(task_id)
        keys = self._keys(place.partition)
        await self._execute(keys, "ZADD", keys.delayed, "XX", 1, place.name)

    def look_around(self, backend: Backend) -> None:
        """In every partition, at once, although the servers have just been started, and another has just looked."""
        assert isinstance(backend, ClusterBackend)
        for partition in backend._partitions:
            assert isinstance(partition.queue, RedisQueue)
            puller = partition.queue._puller
            puller._next_reclaim = 0.0
            puller._client.availability._silence_ended_at = float("-inf")
            with redis.Redis(port=self._cluster.master_of(partition.keys.queue).port) as operator:
                operator.delete(partition.keys.reclaimer)

    async def close(self) -> None:
        """Nothing is held."""
