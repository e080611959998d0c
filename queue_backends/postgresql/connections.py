"""The few connections of one process: made when they are needed, used one after the other, bounded in time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import psycopg
from psycopg.rows import TupleRow

from queue_backends.availability import Availability
from queue_backends.errors import BackendMisconfigured, BackendUnavailable, QueueError
from queue_backends.postgresql import trouble
from queue_backends.postgresql.address import Address
from queue_backends.postgresql.sessions import (
    CONNECT_TIMEOUT_S,
    Connection,
    Facts,
    Parameters,
    connect,
    cut,
    facts_of,
    has_news,
    run,
)
from queue_backends.postgresql.statements import statement

COMMAND_TIMEOUT_S = 10.0
SHORTEST_SILENCE_S = 0.5
MOST_CONNECTIONS = 4
"""Per backend, beside the one that listens. A statement takes milliseconds, so that a few carry a busy process."""
MOST_TRIES = 6
"""Of a statement that met another transaction."""
OLDEST_SERVER = 140000

T = TypeVar("T")


class Connections:
    """One database, as the rest of this package uses it: statements, bounded in time, and errors of our own."""

    def __init__(self, address: Address, *, lease_s: float = 30.0, most: int = MOST_CONNECTIONS) -> None:
        self.address = address
        self.availability = Availability(long_silence_s=max(lease_s / 2, SHORTEST_SILENCE_S))
        self.on_distrust: Callable[[], None] | None = None
        """Called when open connections lead nowhere, or to a server that was demoted."""
        self._lease_s = lease_s
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._idle: list[tuple[int, Connection]] = []
        self._generation = 0
        self._was_let_in = False
        self._closed = False

    def twin(self) -> Connections:
        """The same database with a connection of its own, for another event loop. What either learns about the
        server's state, both know."""
        other = Connections(self.address, lease_s=self._lease_s, most=1)
        other.availability, other._was_let_in = self.availability, self._was_let_in
        return other

    async def execute(
        self, name: str, parameters: Parameters, *, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> list[TupleRow]:
        """The rows of one of our statements, which is a transaction of its own.

        Raises `BackendUnavailable`: whether it was carried out is unknown then; see `may_have_arrived`.
        """
        text = statement(name, self.address.schema)
        return await self.work(lambda connection: run(connection, text, parameters), timeout_s=timeout_s)

    async def work(self, work: Callable[[Connection], Awaitable[T]], *, timeout_s: float = COMMAND_TIMEOUT_S) -> T:
        """Do `work` with a connection that nobody else uses meanwhile. It is one transaction, and begun anew if it met
        another one in the way."""
        for attempt in range(MOST_TRIES):
            try:
                async with self._guarded(timeout_s):
                    return await self._with_connection(work, timeout_s)
            except BackendUnavailable as error:
                if not trouble.may_be_repeated(error.__cause__ or error) or attempt == MOST_TRIES - 1:
                    raise
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter is no secret
        raise AssertionError("the last try has returned or raised")

    async def _with_connection(self, work: Callable[[Connection], Awaitable[T]], timeout_s: float) -> T:
        async with asyncio.timeout(timeout_s):
            await self._free.acquire()
        connection: Connection | None = None
        generation = self._generation
        try:
            generation, connection = await self._take(timeout_s)
            return await _to_its_end(connection, work(connection), timeout_s)
        finally:
            if connection is not None:
                await self._give_back(generation, connection)
            self._free.release()

    async def _take(self, timeout_s: float) -> tuple[int, Connection]:
        while self._idle:
            generation, connection = self._idle.pop()
            if generation == self._generation and not connection.closed and not has_news(connection):
                return generation, connection
            await connection.close()
        generation = self._generation
        async with asyncio.timeout(min(timeout_s, CONNECT_TIMEOUT_S)):
            try:
                return generation, await connect(self.address)
            except BaseException as error:
                error.add_note(NEVER_SENT)
                raise

    async def _give_back(self, generation: int, connection: Connection) -> None:
        is_clean = connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        if self._closed or not is_clean or connection.closed or generation != self._generation:
            await connection.close()
        else:
            self._idle.append((generation, connection))

    @asynccontextmanager
    async def _guarded(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            yield
        except (psycopg.Error, OSError) as error:  # asyncio's TimeoutError is an OSError
            raise self.met(error, timeout_s) from error
        self.availability.answered()

    def met(self, error: Exception, timeout_s: float = COMMAND_TIMEOUT_S) -> QueueError:
        """Note an error of the driver's, and say what it means."""
        if isinstance(error, TimeoutError) and not str(error):
            error = TimeoutError(f"no answer within {timeout_s:g} s")
        ours = trouble.translated(error)
        if self._was_let_in and isinstance(ours, BackendMisconfigured) and not trouble.answers(error):
            ours = BackendUnavailable(str(ours))  # changed under way: somebody will mend it
        ours = type(ours)(self.address.masked(str(ours)))
        if isinstance(ours, BackendUnavailable) and self._was_let_in and not trouble.may_be_repeated(error):
            self.availability.failed(ours, answers=trouble.answers(error))
        if trouble.is_no_fit_server(error):
            self.distrust()
        elif trouble.is_cut(error):
            self._generation += 1  # the idle ones have met the same end: each would cost its next user a try
        return ours

    def distrust(self) -> None:
        """Use no open connection again: the next ones are made anew, by the address as it resolves then."""
        self._generation += 1
        if self.on_distrust is not None:
            self.on_distrust()

    async def check(self) -> Facts:
        """What the server says of itself. Raises unless it answers, is new enough, and keeps text as we do."""
        shown = self.address.shown
        try:
            facts = await self.work(facts_of)
        except QueueError as error:
            raise type(error)(f"{error} ({shown})") from error.__cause__
        if facts.version < OLDEST_SERVER:
            raise BackendMisconfigured(
                f"the server at {shown} is PostgreSQL {facts.version // 10000}: "
                f"{OLDEST_SERVER // 10000} or newer is needed"
            )
        if facts.encoding != "UTF8":
            raise BackendMisconfigured(f"the database at {shown} has the encoding {facts.encoding}: make one with UTF8")
        self._was_let_in = True
        self.availability.started(facts.up_s)
        return facts

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        while self._idle:
            await self._idle.pop()[1].close()


NEVER_SENT = "no connection"


def may_have_arrived(error: BackendUnavailable) -> bool:
    """Whether the statement may have been carried out all the same: it was sent, and no refusal came back."""
    cause = error.__cause__
    if cause is None or NEVER_SENT in getattr(cause, "__notes__", ()):
        return False
    return not trouble.answers(cause) or trouble.is_cut(cause)


async def _to_its_end(connection: Connection, work: Awaitable[T], timeout_s: float) -> T:
    """`work`, whose connection is cut if it takes too long or is not wanted any more: to ask the server to stop, as the
    driver would, takes as long again if it does not answer."""
    job = asyncio.ensure_future(work)
    try:
        await asyncio.wait([job], timeout=timeout_s)
        if job.done():
            return job.result()
        raise TimeoutError
    finally:
        if not job.done():
            cut(connection)
            await asyncio.wait([job], timeout=1.0)
            job.cancel()
            if job.done() and not job.cancelled():
                job.exception()
