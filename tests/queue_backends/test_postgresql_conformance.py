"""The PostgreSQL backend keeps every promise of the contract, on a real server."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest

from queue_backends.conformance import BackendConformance, InjectRaw, OpenBackend, opener
from queue_backends.postgresql import open_backend as open_postgresql
from tests.postgresql_servers import PostgresqlServer

_INSERT = """
    INSERT INTO shoal.tasks (id, queue_id, state, lane, position, entry)
    SELECT new.id, queues.id, 0, 2, nextval('shoal.positions'), new.entry
    FROM (VALUES (%s, %s::uuid, %s::bytea)) AS new (queue, id, entry) JOIN shoal.queues ON queues.name = new.queue
"""


class TestPostgresqlConformance(BackendConformance):
    """The whole suite."""

    @pytest.fixture
    async def open_backend(self, postgresql_server: PostgresqlServer, stream: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue."""
        async with opener(postgresql_server.url(stream), open_postgresql) as open_again:
            yield open_again

    @pytest.fixture
    async def inject_raw(self, postgresql_server: PostgresqlServer, stream: str) -> AsyncIterator[InjectRaw]:
        """A row as any program that knows the table can insert it."""
        async with await psycopg.AsyncConnection.connect(postgresql_server.url(), autocommit=True) as connection:

            async def inject(fields: dict[str, bytes]) -> None:
                text = {name: value.decode(errors="surrogateescape") for name, value in fields.items()}
                entry = json.dumps(text, ensure_ascii=False).encode(errors="surrogateescape")
                await connection.execute(_INSERT, (stream, uuid.uuid4(), entry))

            yield inject
