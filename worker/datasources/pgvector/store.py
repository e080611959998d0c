"""The store itself: documents in, passages out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from worker.datasources.errors import BadVectorStore
from worker.datasources.passages import EVERYTHING, DocumentHead, NewDocument, Passage, PassageFilter, StoreSize
from worker.datasources.pgvector.connections import Connections
from worker.datasources.pgvector.schema import Tables, tables_of, wrong_dimensions
from worker.datasources.registry import StoreContext
from worker.datasources.vector_store import VectorStore
from worker.settings.masking import masked_url

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    Connection = AsyncConnection[tuple[Any, ...]]

URL_VARIABLE = "SHOAL_PGVECTOR_URL"
_OPTIONS = ("schema", "table", "url_env")
_LEAST_LOOKED_AT = 100
_MOST_LOOKED_AT = 1000
"""What `hnsw.ef_search` may be."""
_ITERATES_FROM = (0, 8)
"""From this version on an index goes on until it has found enough that fits a filter."""


class PgvectorStore:
    """Passages in two tables, searched through an index (HNSW) by cosine."""

    def __init__(self, connections: Connections, tables: Tables) -> None:
        self._connections = connections
        self._tables = tables
        self._iterates: bool | None = None

    # Writing

    async def put(self, documents: Sequence[NewDocument]) -> None:
        """Add or replace documents, in one transaction."""
        whole = {document.head.id: document for document in documents}
        vectors = [_checked(passage.vector) for document in whole.values() for passage in document.passages]
        lengths = {len(vector) for vector in vectors}
        if len(lengths) > 1 or 0 in lengths:
            raise BadVectorStore(f"vectors of one length are needed, and these have {sorted(lengths)} numbers")
        if not whole:
            return
        async with self._connections.transaction() as connection:
            await self._tables.prepare(connection, next(iter(lengths), 0))
            # In one order, so that two writers never wait for each other in a circle.
            for _, document in sorted(whole.items()):
                await self._put(connection, document)

    async def _put(self, connection: Connection, document: NewDocument) -> None:
        head, named = document.head, self._tables.statement
        await connection.execute(
            named(
                """
                INSERT INTO {documents} ({columns}) VALUES (%s, %s, %s, %s::jsonb, %s, %s, %s)
                ON CONFLICT (id) DO UPDATE SET digest = EXCLUDED.digest, title = EXCLUDED.title,
                    metadata = EXCLUDED.metadata, passages = EXCLUDED.passages, chars = EXCLUDED.chars,
                    updated_at = EXCLUDED.updated_at
                """
            ),
            (head.id, head.digest, _text(head.title), _json(head.metadata), head.passages, head.chars, head.updated_at),
        )
        if not await self._tables.dimensions(connection):
            return
        await connection.execute(named("DELETE FROM {passages} WHERE document = %s"), (head.id,))
        rows = [
            (head.id, number, _text(passage.content), _json(passage.metadata), _vector(passage.vector))
            for number, passage in enumerate(document.passages)
        ]
        insert = named(
            "INSERT INTO {passages} (document, number, content, metadata, embedding) VALUES (%s, %s, %s, %s::jsonb, %s)"
        )
        async with connection.cursor() as cursor:
            await cursor.executemany(insert, rows)

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete documents; returns how many there were."""
        async with self._connections.transaction() as connection:
            if not await self._tables.version(connection):
                return 0
            done = await connection.execute(
                self._tables.statement(
                    "DELETE FROM {documents} WHERE id IN "
                    "(SELECT id FROM {documents} WHERE id = ANY(%s) ORDER BY id FOR UPDATE)"
                ),
                (list(ids),),
            )
            return max(done.rowcount, 0)

    async def drop(self) -> None:
        """Delete the tables."""
        async with self._connections.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._tables.lock,))
            if await self._tables.version(connection):  # nobody else's table of the same name
                await connection.execute(self._tables.statement("DROP TABLE IF EXISTS {passages}, {documents}"))

    # Reading

    async def heads(self, ids: Sequence[str]) -> list[DocumentHead | None]:
        """What is known of documents."""
        rows = await self._rows("SELECT {columns} FROM {documents} WHERE id = ANY(%s)", (list(ids),))
        found = {head.id: head for head in map(_head, rows)}
        return [found.get(each) for each in ids]

    async def documents(self, *, prefix: str = "", after: str = "", limit: int = 100) -> list[DocumentHead]:
        """A page of documents by id."""
        query = "SELECT {columns} FROM {documents} WHERE starts_with(id, %s) AND id > %s ORDER BY id LIMIT %s"
        return [_head(row) for row in await self._rows(query, (prefix, after, limit))]

    async def size(self) -> StoreSize:
        """How much there is."""
        rows = await self._rows("SELECT count(*), coalesce(sum(passages), 0) FROM {documents}", ())
        return StoreSize(documents=int(rows[0][0]), passages=int(rows[0][1])) if rows else StoreSize()

    async def _rows(self, text: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        async with self._connections.transaction() as connection:
            if not await self._tables.version(connection):
                return []
            return await (await connection.execute(self._tables.statement(text), values)).fetchall()

    async def search(
        self, vector: Sequence[float], *, limit: int, threshold: float = 0.0, where: PassageFilter = EVERYTHING
    ) -> list[Passage]:
        """The nearest passages, through the index."""
        _checked(vector)
        if limit < 1:
            return []
        async with self._connections.transaction() as connection:
            present = await self._tables.dimensions(connection)
            if not present:
                return []
            if len(vector) != present:
                raise BadVectorStore(wrong_dimensions(len(vector), present))
            await self._tune(connection, limit)
            query, values = self._query(vector, present, limit, where)
            rows = await (await connection.execute(query, values)).fetchall()
        passages = [
            Passage(content=content, metadata=_map(metadata), score=round(_score(distance), 6))
            for content, metadata, distance in rows
        ]
        return [passage for passage in passages if threshold <= 0 or passage.score >= threshold]

    def _query(self, vector: Sequence[float], present: int, limit: int, where: PassageFilter) -> tuple[Any, list[Any]]:
        text = "SELECT p.content, p.metadata::text, p.embedding <=> %s::{kind} AS distance FROM {passages} p"
        values: list[Any] = [_vector(vector)]
        if where != EVERYTHING:
            text += " JOIN {documents} d ON d.id = p.document WHERE starts_with(d.id, %s) AND d.metadata @> %s::jsonb"
            values += [where.prefix, _json(where.metadata)]
        text += " ORDER BY distance LIMIT %s"
        return self._tables.statement(text, present), [*values, limit]

    async def _tune(self, connection: Connection, limit: int) -> None:
        """For this transaction: look at enough of the index."""
        looked_at = min(max(_LEAST_LOOKED_AT, 4 * limit), _MOST_LOOKED_AT)
        await connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", (str(looked_at),))
        if self._iterates is None:
            query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
            row = await (await connection.execute(query)).fetchone()
            version = tuple(int(part) for part in str(row[0]).split(".")[:2]) if row else (0, 0)
            self._iterates = version >= _ITERATES_FROM
        if self._iterates:
            await connection.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connections.aclose()


def open_store(context: StoreContext) -> VectorStore:
    """The factory. Raises `BadVectorStore` for options that do not fit, or without a URL."""
    options = dict(context.datasource.options)
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise BadVectorStore(f"a pgvector store has no options {', '.join(unknown)}; there are: {', '.join(_OPTIONS)}")
    try:
        import psycopg  # noqa: F401 - whether it is there
    except ImportError as error:
        raise BadVectorStore("the store pgvector needs psycopg: pip install 'shoal[postgresql]'") from error
    variable = str(options.get("url_env") or URL_VARIABLE)
    url = context.environ.get(variable, "").strip()
    if not url:
        raise BadVectorStore(f"the database's URL is expected in the environment variable {variable}, which is not set")
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise BadVectorStore(f"the URL in {variable} is none of postgresql://")
    return PgvectorStore(Connections(url, masked_url(url)), tables_of(context.datasource, options))


def _checked(vector: Sequence[float]) -> Sequence[float]:
    if not all(map(math.isfinite, vector)):
        raise BadVectorStore("a vector holds a number that is not finite: the embedding model's answer is broken")
    return vector


def _score(distance: float | None) -> float:
    """A vector of zeros has no direction; the database says NaN."""
    return 0.0 if distance is None or math.isnan(distance) else 1.0 - distance


def _vector(vector: Sequence[float]) -> str:
    """pgvector's text form."""
    return "[" + ",".join(f"{number:.9g}" for number in vector) + "]"


def _text(text: str) -> str:
    """PostgreSQL takes no zero character."""
    return text.replace("\0", "")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode().replace("\\u0000", "")


def _map(metadata: str) -> dict[str, str]:
    return msgspec.json.decode(metadata, type=dict[str, str])


def _head(row: tuple[Any, ...]) -> DocumentHead:
    each, digest, title, metadata, passages, chars, updated_at = row
    return DocumentHead(
        id=each,
        digest=digest,
        title=title,
        metadata=dict(metadata),
        passages=passages,
        chars=chars,
        updated_at=updated_at,
    )
