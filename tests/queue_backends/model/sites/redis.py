"""On a Redis or Valkey."""

from __future__ import annotations

import redis
import redis.asyncio

from queue_backends import Backend, BackendOptions, open_backend
from queue_backends.interfaces import Delivery
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.queue import RedisQueue
from queue_backends.redis.wire import fence_of
from tests.servers import Server, fresh_stream


class RedisSite:
    """A queue of its own on a server."""

    def __init__(self, server: Server) -> None:
        stream = fresh_stream()
        self._url = server.url(stream)
        self._keys = Keys(stream)
        self._operator = redis.Redis.from_url(server.url())
        self._client = redis.asyncio.Redis.from_url(server.url())
        self._client.response_callbacks.clear()  # the driver's reading of XCLAIM knows no JUSTID

    async def open(self, options: BackendOptions) -> Backend:
        """Another connection."""
        return await open_backend(self._url, options)

    async def end_lease(self, delivery: Delivery) -> None:
        """The entry is idle for longer than any lease; JUSTID leaves its owner and count as they are."""
        fence = fence_of(delivery)
        lane = self._keys.lanes[fence.lane - 1]
        await self._client.execute_command(
            "XCLAIM", lane, GROUP, fence.consumer, 0, fence.entry, "IDLE", 10**9, "JUSTID"
        )

    async def end_delay(self, task_id: str) -> None:
        """It was due long ago."""
        await self._client.zadd(self._keys.delayed, {task_id: 1}, xx=True)

    def look_around(self, backend: Backend) -> None:
        """At once, although the server has just been started, and another worker has just looked."""
        assert isinstance(backend.queue, RedisQueue)
        puller = backend.queue._puller
        puller._next_reclaim = 0.0
        puller._client.availability._silence_ended_at = float("-inf")
        self._operator.delete(self._keys.reclaimer)

    async def close(self) -> None:
        """Close the connections."""
        self._operator.close()
        await self._client.aclose()
