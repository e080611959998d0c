"""The tables of one data source: their names, and the steps that make them and bring old ones up to date.

A name only ever reaches a statement through the driver's quoting of identifiers.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from worker.datasources.errors import BadVectorStore
from worker.datasources.model import Datasource

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.sql import Composed, Identifier

    Connection = AsyncConnection[tuple[Any, ...]]

VERSION = 1
MOST_INDEXED = 2000
"""Dimensions: an index of `vector` takes so many, one of `halfvec` twice as many."""
MOST_DIMENSIONS = 4000
_LONGEST_NAME = 48
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_STEPS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE {documents} (
            id text COLLATE "C" PRIMARY KEY,
            digest text NOT NULL,
            title text NOT NULL,
            metadata jsonb NOT NULL,
            passages integer NOT NULL,
            chars bigint NOT NULL,
            updated_at double precision NOT NULL
        )
        """,
    ),
)
"""The steps from each version to the next; the version is the comment of the table of documents."""

_PASSAGES = (
    "DROP TABLE IF EXISTS {passages}",
    """
    CREATE TABLE {passages} (
        document text COLLATE "C" NOT NULL REFERENCES {documents} (id) ON DELETE CASCADE,
        number integer NOT NULL,
        content text NOT NULL,
        metadata jsonb NOT NULL,
        embedding {type} NOT NULL,
        PRIMARY KEY (document, number)
    )
    """,
    "CREATE INDEX {nearest} ON {passages} USING hnsw (embedding {operators})",
)
"""Made when the first vector comes: a column has one number of dimensions."""


class Tables(Struct, frozen=True):
    """Where the passages of one data source are."""

    schema: str
    """Empty: the connection's own."""
    table: str

    def named(self, suffix: str = "") -> Identifier:
        """A table of these, for a statement."""
        from psycopg.sql import Identifier

        name = self.table + suffix
        return Identifier(self.schema, name) if self.schema else Identifier(name)

    def statement(self, text: str, dimensions: int = 0) -> Composed:
        """A statement with its names filled in."""
        from psycopg.sql import SQL, Identifier, Literal

        kind = "vector" if dimensions <= MOST_INDEXED else "halfvec"
        return SQL(text).format(
            documents=self.named("_documents"),
            passages=self.named(),
            nearest=Identifier(f"{self.table}_nearest"),
            type=SQL("{}({})").format(SQL(kind), Literal(dimensions)),
            kind=SQL(kind),
            columns=SQL("id, digest, title, metadata, passages, chars, updated_at"),
            operators=SQL(f"{kind}_cosine_ops"),
        )

    @property
    def lock(self) -> int:
        """The number of the lock that whoever changes the tables themselves has to hold."""
        digest = hashlib.sha256(f"shoal vectors {self.schema}.{self.table}".encode()).digest()
        return int.from_bytes(digest[:8], signed=True)

    async def version(self, connection: Connection) -> int:
        """Of the present tables; 0: there are none."""
        query = "SELECT obj_description(to_regclass(%s), 'pg_class')"
        row = await (await connection.execute(query, (self.named("_documents").as_string(connection),))).fetchone()
        comment = str(row[0] or "") if row else ""
        found = re.search(r"version (\d+)", comment)
        return int(found[1]) if found else 0

    async def dimensions(self, connection: Connection) -> int:
        """Of the vectors; 0: there are no tables."""
        query = "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'embedding'"
        row = await (await connection.execute(query, (self.named().as_string(connection),))).fetchone()
        return int(row[0]) if row else 0

    async def prepare(self, connection: Connection, dimensions: int) -> None:
        """Make the tables, or bring them up to date, for vectors of these dimensions (0: there are none yet).

        Raises `BadVectorStore`, also if there are vectors of other dimensions.
        """
        if await self._is_ready(connection, dimensions):
            return
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (self.lock,))
        present = await self.version(connection)
        if present > VERSION:
            raise BadVectorStore(f"table {self.table} is of a newer version ({present}): update this program")
        for step in _STEPS[present:]:
            for text in step:
                await connection.execute(self.statement(text))
        said = f"COMMENT ON TABLE {{documents}} IS 'shoal vectors, version {VERSION}'"
        await connection.execute(self.statement(said))
        if not await self._is_ready(connection, dimensions):
            await self._make_passages(connection, dimensions)

    async def _is_ready(self, connection: Connection, dimensions: int) -> bool:
        present = await self.version(connection)
        return present == VERSION and (not dimensions or await self.dimensions(connection) == dimensions)

    async def _make_passages(self, connection: Connection, dimensions: int) -> None:
        if dimensions > MOST_DIMENSIONS:
            raise BadVectorStore(
                f"vectors have {dimensions} numbers, and pgvector searches at most {MOST_DIMENSIONS} of them quickly: "
                "ask for fewer with embed_options, such as {'dimensions': 1536}"
            )
        before = await self.dimensions(connection)
        if before:
            query = self.statement("SELECT 1 FROM {passages} LIMIT 1")
            if await (await connection.execute(query)).fetchone() is not None:
                raise BadVectorStore(wrong_dimensions(dimensions, before))
        await _make_extension(connection)
        for text in _PASSAGES:
            await connection.execute(self.statement(text, dimensions))


async def _make_extension(connection: Connection) -> None:
    import psycopg

    row = await (await connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")).fetchone()
    if row is not None:
        return
    try:
        async with connection.transaction():
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise BadVectorStore(
            f"the database has no extension vector, and it cannot be made ({' '.join(str(error).split())}): install "
            "pgvector, and let a superuser say CREATE EXTENSION vector"
        ) from error


def tables_of(source: Datasource, options: dict[str, object]) -> Tables:
    """The tables that a data source's options name. Raises `BadVectorStore`."""
    names = {name: options.get(name, "") for name in ("schema", "table")}
    for option, name in names.items():
        if not isinstance(name, str) or (name and not (_NAME.fullmatch(name) and len(name) <= _LONGEST_NAME)):
            raise BadVectorStore(
                f"options.{option} is {str(name)[:100]!r}: use letters, digits and '_', beginning with a letter, at "
                f"most {_LONGEST_NAME} characters"
            )
    return Tables(str(names["schema"]), str(names["table"]) or _own_name(source))


def _own_name(source: Datasource) -> str:
    address = hashlib.sha256(f"{source.namespace}/{source.slug}".encode()).hexdigest()[:8]
    return f"shoal_{re.sub('[^a-z0-9]', '_', source.slug)[:30]}_{address}"


def wrong_dimensions(given: int, present: int) -> str:
    """What is said of a vector of another length."""
    return (
        f"a vector has {given} numbers, and those that are stored have {present}: was the embedding model changed? "
        "Delete the data source's documents and ingest them anew"
    )
