"""Usage records in a PostgreSQL table of its own columns, one row each, by their id. The cursor is a row of
`<table>_cursor`, and moves in the transaction that inserts the records."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import psycopg

from queue_backends import UsageRecord
from worker.errors import BadSetting
from worker.ledger.rows import COLUMNS, Value, row_of
from worker.ledger.sinks.sink import SinkUnavailable
from worker.settings.masking import masked_url

DEFAULT_TABLE = "shoal_usage"
_TIMEOUT_S = 10.0
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]{0,40}")
_TYPES = {str: "text", int: "bigint", float: "double precision", bool: "boolean"}


class PostgresqlSink:
    """One table; it is made if it is not there."""

    def __init__(self, connection: psycopg.AsyncConnection, table: str, shown: str) -> None:
        self._connection = connection
        self._shown = shown
        self._table = table
        columns = ", ".join(COLUMNS)
        slots = ", ".join(f"%({name})s" for name in COLUMNS)
        self._insert = f"INSERT INTO {table} ({columns}) VALUES ({slots}) ON CONFLICT DO NOTHING"  # noqa: S608 - checked
        self._read = f"SELECT place FROM {table}_cursor WHERE id FOR UPDATE"  # noqa: S608 - the name was checked
        self._move = f"UPDATE {table}_cursor SET place = %s WHERE id"  # noqa: S608 - the name was checked

    async def prepare(self) -> None:
        """Make the tables. Raises `SinkUnavailable`."""
        types = {**{name: _TYPES[kind] for name, kind in COLUMNS.items()}, "started_at": "timestamptz"}
        columns = ", ".join(f"{name} {kind}" for name, kind in types.items() if name != "id")
        await self._run(
            f"CREATE TABLE IF NOT EXISTS {self._table} (id text PRIMARY KEY, {columns})",
            f"CREATE INDEX IF NOT EXISTS {self._table.rpartition('.')[2]}_time ON {self._table} (started_at)",
            f"CREATE TABLE IF NOT EXISTS {self._table}_cursor (id boolean PRIMARY KEY CHECK (id), place text NOT NULL)",
            f"INSERT INTO {self._table}_cursor VALUES (true, '') ON CONFLICT DO NOTHING",  # noqa: S608 - checked
        )

    async def cursor(self) -> str:
        """What the last transaction noted."""
        async with self._transaction() as connection:
            return await self._place(connection)

    async def write(self, records: Sequence[UsageRecord], *, before: str, after: str) -> bool:
        """One transaction: all rows and the cursor."""
        async with self._transaction() as connection:
            if await self._place(connection) != before:
                return False
            async with connection.cursor() as cursor:
                await cursor.executemany(self._insert.encode(), [_row(record) for record in records])
            await connection.execute(self._move.encode(), [after])
        return True

    async def close(self) -> None:
        """Give up the connection."""
        await self._connection.close()

    async def _place(self, connection: psycopg.AsyncConnection) -> str:
        row = await (await connection.execute(self._read.encode())).fetchone()
        return str(row[0]) if row else ""

    async def _run(self, *statements: str) -> None:
        async with self._transaction() as connection:
            for statement in statements:
                await connection.execute(statement.encode())

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[psycopg.AsyncConnection]:
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._connection.transaction():
                yield self._connection
        except psycopg.ProgrammingError as error:  # no right to do that, or a table of another shape
            raise BadSetting(f"{self._shown}: {str(error).strip()}") from error
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise SinkUnavailable(f"{self._shown}: {str(error).strip() or type(error).__name__}") from error


def _row(record: UsageRecord) -> dict[str, Value]:
    """PostgreSQL's texts hold no NUL."""
    return {
        name: value.replace("\0", "") if isinstance(value, str) else value for name, value in row_of(record).items()
    }


async def open_sink(url: str) -> PostgresqlSink:
    """The sink at `postgresql://user@host/database?table=usage`; other options are libpq's.

    Raises `BadSetting`, `SinkUnavailable`.
    """
    parts, shown = urlsplit(url), masked_url(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    table = options.pop("table", DEFAULT_TABLE)
    if not _NAME.fullmatch(table):
        raise BadSetting(f"table={table} in {shown}: use letters, digits and _, with a schema if need be")
    address = parts._replace(query=urlencode(options, quote_via=quote)).geturl()  # libpq reads no + as a space
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            connection = await psycopg.AsyncConnection.connect(address, autocommit=True)
    except psycopg.ProgrammingError:  # its text repeats the URL, with what may be a part of the password
        raise BadSetting(f"{shown}: libpq cannot read this address") from None
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise SinkUnavailable(f"{shown}: {str(error).strip() or type(error).__name__}") from error
    sink = PostgresqlSink(connection, table, shown)
    try:
        await sink.prepare()
    except BaseException:
        await sink.close()
        raise
    return sink
