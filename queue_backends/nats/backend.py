"""Queue, chunks and state on one JetStream stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from queue_backends.interfaces import Backend, BackendOptions, P
from queue_backends.nats.address import Address, masked, parse_address
from queue_backends.nats.chunk_writing import ChunkWriter
from queue_backends.nats.chunks import NatsChunks
from queue_backends.nats.committing import Committer
from queue_backends.nats.connection import Connection
from queue_backends.nats.counting import Counting
from queue_backends.nats.holding import Holdings
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.listening import Listeners
from queue_backends.nats.queue import NatsQueue
from queue_backends.nats.renewing import NatsRenewer
from queue_backends.nats.setup import SetUp
from queue_backends.nats.state import NatsState
from queue_backends.nats.subjects import Subjects


class NatsBackend(Backend):
    """All three in one stream, so that a run's end is one atomic batch."""

    def __init__(self, address: Address, options: BackendOptions, *, url: str) -> None:
        self._address = address
        self._options = options
        self._connection = Connection(address, name="shoal", lease_s=options.lease_s)
        self._ledger = ledger = Ledger(self._connection, Subjects(address.stream))
        self._set_up = SetUp(ledger, options.lease_s)
        self._holdings = Holdings()
        writer = ChunkWriter(ledger, options)
        counting = Counting(ledger)
        listeners = [Listeners(self._connection) for _ in range(3)]
        self._listeners = listeners
        self._committer = Committer(ledger, self._holdings, writer, counting, options)
        self._queue = NatsQueue(ledger, self._set_up, self._holdings, self._committer, writer, listeners[0], options)
        chunks = NatsChunks(ledger, self._holdings, writer, listeners[1])
        super().__init__(self._queue, chunks, NatsState(ledger, counting, listeners[2]), url=masked(url))
        self._started = False
        self._closed = False

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """One atomic batch for all of them, or a few for many."""
        return await self._committer.commit(outcomes)

    def lease_renewer(self) -> NatsRenewer:
        """Leases are renewed over a connection that belongs to no particular loop yet."""
        home, queue = asyncio.get_running_loop(), self._queue
        connection = Connection(self._address, name="shoal leases", lease_s=self._options.lease_s)
        ledger = Ledger(connection, self._ledger.subjects)
        ledger.replicated = self._ledger.replicated
        return NatsRenewer(
            ledger,
            self._holdings,
            self._options,
            queue.waiting,
            lambda lost: home.call_soon_threadsafe(queue.forget, lost),
        )

    async def start(self) -> None:
        """Connect, check the server, and create what must be there."""
        await self._connection.open()
        await self._set_up.prepare()
        await self._queue.start()
        self._started = True

    async def close(self) -> None:
        """Give back what nobody has seen, then close the connection."""
        if self._closed:
            return
        self._closed = True
        for listeners in self._listeners:
            listeners.close()
        try:
            if self._started and self._connection.is_connected:
                await self._queue.close()
        finally:
            await self._connection.close()


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """Connect to the servers of `url`. Raises `BackendUnavailable` or `BackendMisconfigured`."""
    backend = NatsBackend(parse_address(url), options, url=url)
    try:
        await backend.start()
    except BaseException:
        await backend.close()
        raise
    return backend
