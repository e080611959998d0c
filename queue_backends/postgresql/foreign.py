"""Working inside a transaction that is somebody else's: on their connection, without committing anything."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from queue_backends.errors import BackendMisconfigured
from queue_backends.postgresql.address import Address
from queue_backends.postgresql.arrays import DUMPERS
from queue_backends.postgresql.sessions import Executor, Parameters, run
from queue_backends.postgresql.statements import statement

_SAVEPOINT = b"SAVEPOINT shoal_submit"
_RELEASE = b"RELEASE SAVEPOINT shoal_submit"
_UNDO = b"ROLLBACK TO SAVEPOINT shoal_submit"


class QueueRow(NamedTuple):
    """A queue, as its database has it."""

    id: int
    key: UUID
    """No other database has one with this key."""


class Borrowed:
    """Carries out our statements on a connection whose own set-up stays as it is."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def execute(
        self, query: bytes, params: Parameters | None = None, *, prepare: bool | None = None, binary: bool = False
    ) -> psycopg.AsyncCursor[TupleRow]:
        """Never prepared: the connection may lead through a pooler that changes sessions."""
        cursor = psycopg.AsyncCursor[TupleRow](self._connection, row_factory=tuple_row)
        for kind, dumper in DUMPERS.items():
            cursor.adapters.register_dumper(kind, dumper)
        return await cursor.execute(query, params, prepare=False, binary=binary)


@asynccontextmanager
async def borrowed(connection: Any, queue: QueueRow, address: Address) -> AsyncIterator[Executor]:
    """Somebody's connection, in a part of its transaction that can be undone alone.

    Raises `BackendMisconfigured` for a connection of another kind or to another database, and for one without a
    transaction: what is done there could not be undone with anything of the caller's.
    """
    own = Borrowed(await _driver_connection(connection))
    await own.execute(_SAVEPOINT)
    try:
        await _check_place(own, queue, address)
        yield own
    except BaseException:
        with contextlib.suppress(psycopg.Error):  # a connection that is lost has undone everything
            await own.execute(_UNDO)
            await own.execute(_RELEASE)
        raise
    await own.execute(_RELEASE)


async def _driver_connection(connection: Any) -> psycopg.AsyncConnection[Any]:
    if _is_from("sqlalchemy", connection):
        connection = await _of_sqlalchemy(connection)
    if not isinstance(connection, psycopg.AsyncConnection):
        kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
        raise BackendMisconfigured(
            f"connection= got a {kind}: give it a psycopg.AsyncConnection, or SQLAlchemy's AsyncConnection or "
            "AsyncSession of an engine on postgresql+psycopg"
        )
    if connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE:
        raise BackendMisconfigured(
            "connection= got a connection in autocommit mode without a transaction: the task would exist whatever "
            "becomes of your row; submit inside `async with connection.transaction():`"
        )
    return connection


async def _of_sqlalchemy(connection: Any) -> Any:
    """What is under an `AsyncSession` or an `AsyncConnection`; anything else as it is."""
    if not hasattr(connection, "get_raw_connection"):
        if not inspect.iscoroutinefunction(getattr(connection, "connection", None)):
            return connection
        connection = await connection.connection()  # a session's; it begins the transaction
    if not connection.in_transaction():
        raise BackendMisconfigured(
            "connection= got an SQLAlchemy connection without a transaction, whose commit would do nothing: submit "
            "inside `async with connection.begin():`"
        )
    raw = await connection.get_raw_connection()
    return raw.driver_connection


def _is_from(package: str, value: object) -> bool:
    return any(kind.__module__.partition(".")[0] == package for kind in type(value).__mro__)


async def _check_place(own: Executor, queue: QueueRow, address: Address) -> None:
    try:
        rows = await run(own, statement("queue_key", address.schema), {"queue": queue.id})
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        rows = []
    if rows != [(queue.key,)]:
        raise BackendMisconfigured(
            f"connection= leads to another database than the queue, which is at {address.shown}: "
            "a transaction covers one database"
        )
