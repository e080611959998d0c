"""The schema and its versions: applied once, under a lock, in one transaction."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import re
from typing import Any

from psycopg import errors

from queue_backends.errors import BackendMisconfigured
from queue_backends.postgresql.address import Address
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.sessions import Connection
from queue_backends.postgresql.statements import in_schema

MIGRATE_TIMEOUT_S = 60.0
_NUMBERED = re.compile(r"(\d+)_(\w+)\.sql")


@functools.cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """Number, name and SQL of each, in order."""
    folder = importlib.resources.files("queue_backends.postgresql.schema")
    found = [(match, file) for file in folder.iterdir() if (match := _NUMBERED.fullmatch(file.name))]
    return tuple(sorted((int(match[1]), match[2], file.read_text(encoding="utf-8")) for match, file in found))


def script(schema: str) -> str:
    """All SQL of an empty database, for those who apply it by their own means."""
    return f"BEGIN;\n{_steps(schema, after=0)}COMMIT;\n"


def _steps(schema: str, *, after: int, has_schema: bool = False) -> str:
    """The SQL that a schema of version `after` lacks. Its name has been checked to need no escaping."""
    parts = [] if has_schema else [f'CREATE SCHEMA "{schema}";\n']
    parts += [] if after else [in_schema(_VERSIONS, schema)]
    for number, name, text in migrations():
        if number > after:
            done = f"INSERT INTO shoal.schema_version (version, name) VALUES ({number}, '{name}');\n"  # noqa: S608 - ours
            parts.append(in_schema(f"-- {number:04} {name}\n{text}{done}", schema))
    return "\n".join(parts)


def grants(schema: str, role: str) -> str:
    """The rights of a role that works with the schema and does not own it."""
    quoted = '"' + role.replace('"', '""') + '"'
    return "".join(
        f"GRANT {what} TO {quoted};\n"
        for what in (
            f'USAGE ON SCHEMA "{schema}"',
            f'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}"',
            f'USAGE ON ALL SEQUENCES IN SCHEMA "{schema}"',
            f'EXECUTE ON ALL FUNCTIONS IN SCHEMA "{schema}"',
        )
    )


async def migrate(connections: Connections) -> int:
    """Bring the schema to this program's version; returns the version it had.

    Raises `BackendMisconfigured` for a schema that is newer than the program, or a role that may not make it.
    """
    address = connections.address
    return await connections.work(functools.partial(_migrate, address=address), timeout_s=MIGRATE_TIMEOUT_S)


async def _migrate(connection: Connection, *, address: Address) -> int:
    schema = address.schema
    found = 0
    try:
        found = await _version(connection, schema)
        if found == _latest():
            return found
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.execute(f"SELECT pg_advisory_xact_lock({_lock_number(schema)})".encode())
            found = await _version(connection, schema)  # another process may have done it meanwhile
            if found != _latest():
                has_schema = await _value(connection, _HAS_SCHEMA, schema)
                await connection.execute(_steps(schema, after=found, has_schema=has_schema).encode())
    except errors.InsufficientPrivilege as error:
        raise BackendMisconfigured(_what_to_run(address, found, str(error), connection.info.user)) from error
    return found


def _latest() -> int:
    return migrations()[-1][0]


async def _version(connection: Connection, schema: str) -> int:
    """0: there is none yet."""
    table = f'"{schema}".schema_version'
    if not await _value(connection, _HAS_VERSIONS, schema):
        return 0
    found = int(await _value(connection, f"SELECT coalesce(max(version), 0) FROM {table}"))  # noqa: S608 - a checked name
    if found > _latest():
        raise BackendMisconfigured(
            f'schema "{schema}" is at version {found}, and this program knows up to {_latest()}: '
            "upgrade shoal here, or name another schema with ?schema="
        )
    return found


# Read from the catalogue as any table is: what functions such as to_regclass have found stays in the session's cache,
# and waiting for an advisory lock does not renew it.
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)"
_HAS_VERSIONS = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relname = 'schema_version'
    )
"""


async def _value(connection: Connection, query: str, *parameters: str) -> Any:
    cursor = await connection.execute(query.encode(), parameters or None)
    row = await cursor.fetchone()
    return row[0] if row else None


_VERSIONS = """CREATE TABLE IF NOT EXISTS shoal.schema_version (
    version int PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


def _lock_number(schema: str) -> int:
    """Of the advisory lock: no other schema's, and hardly another program's."""
    return int.from_bytes(hashlib.sha256(f"shoal schema {schema}".encode()).digest()[:8], signed=True)


def _what_to_run(address: Address, found: int, reason: str, role: str) -> str:
    """One line for whoever operates the database."""
    what = f"upgrade schema {address.schema!r} from version {found}" if found else f"make schema {address.schema!r}"
    return (
        f"role {role!r} may not {what} ({reason.splitlines()[0]}): let somebody who may run "
        f"`python -m queue_backends.postgresql.migrate --grant {role} URL`"
    )
