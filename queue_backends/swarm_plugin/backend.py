"""`grpc://host:port`: a queue behind kubeswarm's plugin protocol. Chunks and state are in this process' memory, or on
whatever engine is configured for them."""

from __future__ import annotations

import os
import socket
import uuid

from queue_backends.capabilities import Capability
from queue_backends.composed import ForeignChunks
from queue_backends.errors import BackendMisconfigured
from queue_backends.interfaces import Backend, BackendOptions, StateStore
from queue_backends.memory import open_backend as open_memory
from queue_backends.swarm_plugin.calls import QueueCalls
from queue_backends.swarm_plugin.deliveries import Deliveries
from queue_backends.swarm_plugin.gaps import GAPS
from queue_backends.swarm_plugin.queue import SwarmQueue


class SwarmBackend(Backend):
    """A plugin's queue, and the rest in memory if it is a `is_whole` backend by itself."""

    gaps = GAPS

    def __init__(self, url: str, queue: SwarmQueue, rest: Backend, *, is_whole: bool) -> None:
        super().__init__(queue, ForeignChunks(queue, rest.chunks), rest.state, url=url)
        self._rest = rest
        if not is_whole:  # chunks and state are another engine's, whose promises are its own
            self.gaps = {capability: gap for capability, gap in GAPS.items() if capability is not Capability.DURABLE}

    async def close(self) -> None:
        """Close the queue, then what it counts in."""
        await self.queue.close()
        await self._rest.close()


async def open_backend(url: str, options: BackendOptions, *, state: StateStore | None = None) -> Backend:
    """Connect to the plugin. `state`: where deliveries are counted, if not in memory.

    Raises `BackendMisconfigured` or `BackendUnavailable`.
    """
    address = url.partition("://")[2].partition("?")[0].rstrip("/")
    if not address.rpartition(":")[2].isdecimal():
        raise BackendMisconfigured(f"{url!r} names no plugin: write grpc://host:port")
    rest = await open_memory("memory://", options)
    name = f"{options.consumer or socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    deliveries = Deliveries(state or rest.state, keep_s=options.unfinished_ttl_s, worker=name)
    calls = QueueCalls(address)
    queue = SwarmQueue(calls, deliveries)
    try:
        await queue.ping()
    except BaseException:
        await calls.close()
        raise
    return SwarmBackend(url, queue, rest, is_whole=state is None)
