"""Queue, chunks and state in one database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from queue_backends.interfaces import Backend, BackendOptions, P
from queue_backends.postgresql.address import Address
from queue_backends.postgresql.announcing import Announcer
from queue_backends.postgresql.chunks import PostgresqlChunks
from queue_backends.postgresql.cleaning import Cleaner
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.durability import gaps_of
from queue_backends.postgresql.foreign import QueueRow
from queue_backends.postgresql.listening import Hub
from queue_backends.postgresql.migrations import migrate
from queue_backends.postgresql.numbering import Numbering
from queue_backends.postgresql.queue import PostgresqlQueue
from queue_backends.postgresql.renewing import PostgresqlRenewer
from queue_backends.postgresql.state import PostgresqlState
from queue_backends.postgresql.writing import Writer


class PostgresqlBackend(Backend):
    """All three in one database, so that a run's end is one transaction."""

    def __init__(self, connections: Connections, queue: QueueRow, options: BackendOptions, *, url: str) -> None:
        self._connections = connections
        self._options = options
        self._queue_id = queue.id
        self._hub = Hub(connections, queue.id)
        self._announcer = Announcer(connections, queue.id)
        self._cleaner = Cleaner(connections, queue.id, options)
        numbering = Numbering(connections, queue.id, options)
        writer = Writer(connections, queue.id, numbering, self._announcer, self._cleaner, options)
        self._writer = writer
        self._queue = PostgresqlQueue(connections, queue, self._hub, writer, self._announcer, self._cleaner, options)
        chunks = PostgresqlChunks(connections, queue.id, self._hub, writer)
        super().__init__(self._queue, chunks, PostgresqlState(connections, queue.id, self._hub, writer), url=url)

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """One statement, which is one transaction, for all of them."""
        return await self._writer.commit(outcomes)

    def lease_renewer(self) -> PostgresqlRenewer:
        """Leases are renewed over a connection that belongs to no particular loop yet."""
        home, queue = asyncio.get_running_loop(), self._queue
        return PostgresqlRenewer(
            self._connections.twin(),
            self._queue_id,
            self._options,
            queue.waiting,
            lambda lost: home.call_soon_threadsafe(queue.forget, lost),
        )

    async def close(self) -> None:
        """Give back what no run saw, say what is to be said, then close the connections."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._connections.close)
            stack.push_async_callback(self._hub.close)
            stack.push_async_callback(self._announcer.close)
            stack.push_async_callback(self._cleaner.close)
            stack.push_async_callback(self._queue.close)


async def open_database(url: str, options: BackendOptions) -> PostgresqlBackend:
    """Connect to the database of `url`, and bring its schema up to date.

    Raises `BackendUnavailable` or `BackendMisconfigured`.
    """
    address = Address.of(url)
    connections = Connections(address, lease_s=options.lease_s)
    try:
        facts = await connections.check()
        await migrate(connections)
        named = {"name": address.stream}
        rows = await connections.execute("open_queue", named)
        if not rows:  # another process has made the queue since the statement began
            rows = await connections.execute("open_queue", named)
        ((queue_id, key),) = rows
    except BaseException:
        await connections.close()
        raise
    backend = PostgresqlBackend(connections, QueueRow(queue_id, key), options, url=url)
    backend.gaps = gaps_of(fsync=facts.fsync, synchronous_commit=facts.synchronous_commit)
    return backend
