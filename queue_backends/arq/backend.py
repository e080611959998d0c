"""Queue, chunks and state of an arq queue, on one Redis or Valkey server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import MappingProxyType

from queue_backends.arq.chunks import ArqChunks
from queue_backends.arq.commit import ArqCommitter
from queue_backends.arq.gaps import GAPS
from queue_backends.arq.names import ArqKeys
from queue_backends.arq.queue import ArqQueue
from queue_backends.arq.queue_url import taken_apart
from queue_backends.arq.renewing import ArqRenewer
from queue_backends.arq.wire import Scripts
from queue_backends.interfaces import Backend, BackendOptions, P
from queue_backends.redis.chunks import Numbering
from queue_backends.redis.client import RedisClient
from queue_backends.redis.durability import gaps_of
from queue_backends.redis.pubsub import PubSubHub
from queue_backends.redis.rights import check_rights
from queue_backends.redis.state import RedisState


class ArqBackend(Backend):
    """All three on one server, so that a run's end is one atomic step."""

    gaps = GAPS

    def __init__(self, url: str, options: BackendOptions) -> None:
        server, queue_name, poll_s = taken_apart(url)
        client = RedisClient(server, lease_s=options.lease_s)
        keys = ArqKeys(queue_name)
        hub = PubSubHub(client, keys.control)
        numbering = Numbering(client, keys, options.chunk_bytes)
        self._client = client
        self._keys = keys
        self._hub = hub
        self._options = options
        self._started = False
        self._scripts = Scripts(client, keys, options)
        self._committer = ArqCommitter(client, keys, self._scripts, numbering, options)
        queue = ArqQueue(client, keys, self._scripts, hub, self._committer, options, poll_s)
        chunks = ArqChunks(client, keys, self._scripts, hub, numbering, options)
        super().__init__(queue, chunks, RedisState(client, keys, hub), url=url)
        self._queue = queue

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """One script call for all of them."""
        return await self._committer.commit(outcomes)

    def lease_renewer(self) -> ArqRenewer:
        """Leases are renewed over a connection that belongs to no particular loop yet."""
        home, queue = asyncio.get_running_loop(), self._queue
        return ArqRenewer(
            self._client.twin(),
            self._scripts,
            self._options,
            queue.consumer,
            queue.waiting,
            lambda lost: home.call_soon_threadsafe(queue.forget, lost),
        )

    async def start(self) -> None:
        """Check the server."""
        await self._client.check()
        self.gaps = MappingProxyType({**GAPS, **gaps_of(self._client.facts)})
        await self._check_rights()
        self._started = True

    async def _check_rights(self) -> None:
        """Raise `BackendMisconfigured` if the ACL keeps us from our own keys, or from arq's."""
        await check_rights(self._client, self._keys)
        keys = self._keys
        names = [*keys.lanes, keys.job("a"), keys.progress("a"), keys.retry("a"), keys.result("a"), keys.abort]
        await self._client.script("rights", [keys.rights, *names], [])

    async def close(self) -> None:
        """Give back what is not running, then close the connections."""
        if self._started:
            await self._queue.close()
        await self._hub.close()
        await self._client.close()


async def connected(url: str, options: BackendOptions) -> Backend:
    """A backend that has been checked. Raises `BackendUnavailable` or `BackendMisconfigured`."""
    backend = ArqBackend(url, options)
    try:
        await backend.start()
    except BaseException:
        await backend.close()
        raise
    return backend
