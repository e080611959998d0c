"""A few connections to one database, used in turns, and the driver's errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from worker.datasources.errors import BadVectorStore, StoreUnavailable, VectorStoreError

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]

MOST = 4
"""Connections of one process for one data source."""
CONNECT_LIMIT_S = 10
CALL_LIMIT_S = 60.0
_STATEMENT_LIMIT_MS = 55_000


class Connections:
    """Opened when first needed. `url` is never part of an error or of `repr`."""

    def __init__(self, url: str, where: str) -> None:
        """`where` names the database in errors, without a secret."""
        self._url = url
        self._where = where
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(MOST)
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Connections to {self._where}>"

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction, bounded in time. Raises `StoreUnavailable`, or `BadVectorStore` for what waiting does not
        help."""
        import psycopg

        limit = asyncio.timeout(CALL_LIMIT_S)
        try:
            async with limit, self._slots:
                connection = await self._taken()
                try:
                    async with connection.transaction():
                        yield connection
                finally:
                    await self._returned(connection)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StoreUnavailable(f"{self._where} has not answered within {CALL_LIMIT_S:g} s") from error
        except VectorStoreError:
            raise
        except psycopg.Error as error:
            raise self._translated(error) from error

    async def _taken(self) -> Connection:
        import psycopg

        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and not connection.broken:
                return connection
        connection = await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_LIMIT_S,
            application_name="shoal datasources",
        )
        try:
            await connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(_STATEMENT_LIMIT_MS),))
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _returned(self, connection: Connection) -> None:
        import psycopg.pq

        is_idle = not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if is_idle and not self._is_closed:
            self._idle.append(connection)
        else:
            await connection.close()

    def _translated(self, error: psycopg.Error) -> VectorStoreError:
        import psycopg

        text = " ".join(str(error).replace(self._url, "(url)").split())
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return StoreUnavailable(f"{self._where} cannot be reached: {text}")
        return BadVectorStore(f"{self._where}: {text}")

    async def aclose(self) -> None:
        """Close those that nobody uses; the others are closed when they are given back."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()
