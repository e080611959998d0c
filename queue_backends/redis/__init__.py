"""`redis://`, `rediss://` and `unix://`: queue, chunks and state on one Redis or Valkey server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import MappingProxyType

from queue_backends.interfaces import Backend, BackendOptions, P
from queue_backends.redis.chunks import Numbering, RedisChunks
from queue_backends.redis.client import RedisClient
from queue_backends.redis.commit import Committer
from queue_backends.redis.durability import gaps_of
from queue_backends.redis.keys import Keys
from queue_backends.redis.lifetime import keep_for
from queue_backends.redis.pubsub import PubSubHub
from queue_backends.redis.queue import RedisQueue
from queue_backends.redis.renewing import RedisRenewer
from queue_backends.redis.rights import check_rights
from queue_backends.redis.state import RedisState

__all__ = ["RedisBackend", "open_backend"]


class RedisBackend(Backend):
    """All three on one server, so that a run's end is one atomic step."""

    def __init__(self, client: RedisClient, options: BackendOptions, *, consumer: str = "") -> None:
        keys = Keys(client.stream)
        hub = PubSubHub(client, keys.control)
        numbering = Numbering(client, keys, options.chunk_bytes)
        self._client = client
        self._keys = keys
        self._options = options
        self._started = False
        self._hub = hub
        self._committer = Committer(client, keys, numbering, options)
        queue = RedisQueue(client, keys, hub, self._committer, options, consumer=consumer)
        chunks = RedisChunks(client, keys, hub, numbering, options)
        super().__init__(queue, chunks, RedisState(client, keys, hub), url=client.url)
        self._queue = queue

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """One script call for all of them."""
        return await self._committer.commit(outcomes)

    def lease_renewer(self) -> RedisRenewer:
        """Leases are renewed over a connection that belongs to no particular loop yet."""
        home, queue = asyncio.get_running_loop(), self._queue
        return RedisRenewer(
            self._client.twin(),
            self._options,
            queue.waiting,
            lambda lost: home.call_soon_threadsafe(queue.forget, lost),
        )

    async def start(self) -> None:
        """Check the server and create what must be there."""
        await self._client.check()
        self.gaps = MappingProxyType({**self.gaps, **gaps_of(self._client.facts)})
        await check_rights(self._client, Keys(self._client.stream))
        await self._queue.create_group()
        self._started = True

    async def keep_for(self, lifetime_s: float) -> None:
        """See `queue_backends.temporary`."""
        await keep_for(self._client, self._keys, lifetime_s)

    async def close(self) -> None:
        """Say goodbye to the group, then close the connections."""
        if self._started:
            await self._queue.close()
        await self._hub.close()
        await self._client.close()


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """Connect to the server of `url`. Raises `BackendUnavailable` or `BackendMisconfigured`."""
    backend = RedisBackend(RedisClient(url, lease_s=options.lease_s), options)
    try:
        await backend.start()
    except BaseException:
        await backend.close()
        raise
    return backend
