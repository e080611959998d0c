"""One connection: how it is made and set up, what it is asked, and how it is ended."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg.rows import TupleRow

from queue_backends.postgresql.address import Address
from queue_backends.postgresql.arrays import DUMPERS

CONNECT_TIMEOUT_S = 5.0

_OF_EACH: Mapping[str, str | int] = {
    "application_name": "shoal",
    "connect_timeout": round(CONNECT_TIMEOUT_S),
    # Seconds without traffic, seconds between probes, probes: a peer that has vanished is known after half a minute.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

_SETTINGS = (
    # The queue's tables are tiny now and huge in a minute, and plans are kept: none may read a table from end to end,
    # or gather all that fits before it takes the first few.
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    # A statement that nobody waits for any more, because its connection is gone, must not take effect much later.
    ("statement_timeout", "15s"),
    ("idle_in_transaction_session_timeout", "30s"),
)

Connection = psycopg.AsyncConnection[TupleRow]
Parameters = Mapping[str, Any]


class Facts(NamedTuple):
    """What a server says of itself."""

    version: int
    """Such as 180006."""
    encoding: str
    fsync: str
    synchronous_commit: str
    up_s: float


class Executor(Protocol):
    """Whatever carries out statements whose parameters are our arrays."""

    async def execute(
        self, query: bytes, params: Parameters | None = None, *, prepare: bool | None = None, binary: bool = False
    ) -> psycopg.AsyncCursor[TupleRow]:
        """As psycopg's connections have it."""
        ...


async def run(connection: Executor, text: bytes, parameters: Parameters) -> list[TupleRow]:
    """A statement's rows, in the server's binary form."""
    cursor = await connection.execute(text, parameters, prepare=True, binary=True)
    return await cursor.fetchall()


async def connect(address: Address) -> Connection:
    """A connection that is ready for our statements. Raises the driver's errors.

    A server that only reads is one to turn away from: after a failover the address may lead to another one soon.
    """
    given = psycopg.conninfo.conninfo_to_dict(address.server)
    ours = {name: value for name, value in _OF_EACH.items() if name not in given}
    server = psycopg.conninfo.make_conninfo(address.server, **ours)
    connection = await psycopg.AsyncConnection.connect(server, autocommit=True)
    try:
        for kind, dumper in DUMPERS.items():
            connection.adapters.register_dumper(kind, dumper)
        names = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SETTINGS)
        cursor = await connection.execute(f"SELECT pg_is_in_recovery(), {names}".encode())
        row = await cursor.fetchone()
        _refuse_standby(is_standby=row is not None and row[0])
    except BaseException:
        await connection.close()
        raise
    return connection


def _refuse_standby(*, is_standby: bool) -> None:
    if is_standby:
        raise psycopg.errors.ReadOnlySqlTransaction("the server is a standby, which only reads")


async def facts_of(connection: Connection) -> Facts:
    """Ask the server."""
    cursor = await connection.execute(
        "SELECT current_setting('server_encoding'), current_setting('fsync'), current_setting('synchronous_commit'), "
        "extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
    )
    (row,) = await cursor.fetchall()
    return Facts(connection.info.server_version, *row)


def has_news(connection: Connection) -> bool:
    """Whether something came while nobody had asked: most often that the connection is at its end."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN | select.POLLERR | select.POLLHUP)
    return bool(waiting.poll(0))


def cut(connection: Connection) -> None:
    """End a connection at once, whoever waits for it."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
