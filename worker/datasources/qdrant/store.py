"""The store itself: documents in, passages out."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from worker.datasources.embedded.index import wrong_dimensions
from worker.datasources.errors import BadVectorStore
from worker.datasources.passages import EVERYTHING, DocumentHead, NewDocument, Passage, PassageFilter, StoreSize
from worker.datasources.qdrant.collections import Collections
from worker.datasources.qdrant.connection import Connection, is_absent
from worker.datasources.qdrant.points import (
    either,
    head_id,
    head_of,
    head_point,
    left_over,
    of_documents,
    of_editions,
    passage_of,
    passage_points,
)

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_BATCH = 64
"""Points in one request: with 1,536 numbers each and long texts, about two megabytes."""
_PAGE = 1000
_SPARE = 20
"""So many more passages are looked at than are wanted, for some may be of an edition that does not count."""
_MOST_LOOKED_AT = 10_000
_LEFT_OVER_S = 3600.0
"""No writer takes so long; clocks of processes differ by less."""


class QdrantStore:
    """Passages in a collection of their own, searched through its index (HNSW) by cosine."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._names = Collections(name)

    # Writing

    async def put(self, documents: Sequence[NewDocument]) -> None:
        """Add or replace documents: each is there once its own point is written, after its passages."""
        whole = {document.head.id: document for document in documents}
        lengths = {len(_checked(passage.vector)) for each in whole.values() for passage in each.passages}
        if len(lengths) > 1 or 0 in lengths:
            raise BadVectorStore(f"vectors of one length are needed, and these have {sorted(lengths)} numbers")
        if not whole:
            return
        editions, now = {each: secrets.token_hex(12) for each in whole}, time.time()
        async with self._connection.call() as client:
            await self._names.prepare(client, next(iter(lengths), 0))
            before = await self._editions(client, list(whole))
            points = [point for each in whole.values() for point in passage_points(each, editions[each.head.id], now)]
            for start in range(0, len(points), _BATCH):
                await client.upsert(self._names.passages, points[start : start + _BATCH], wait=True)
            heads = [head_point(each.head, editions[each.head.id]) for each in whole.values()]
            for start in range(0, len(heads), _BATCH):
                await client.upsert(self._names.documents, heads[start : start + _BATCH], wait=True)
            await self._sweep(client, list(whole), list(before.values()), list(editions.values()))

    async def _sweep(
        self, client: AsyncQdrantClient, ids: Sequence[str], gone: Sequence[str], valid: Sequence[str]
    ) -> None:
        """Delete passages that do not count any more. Those of a writer that is at work now are left alone."""
        old = left_over(ids, valid, time.time() - _LEFT_OVER_S)
        chosen = either(of_editions(gone), old) if gone else old
        try:
            await client.delete(self._names.passages, chosen, wait=True)
        except Exception as error:
            if not is_absent(error):
                raise

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete documents; returns how many there were."""
        async with self._connection.call() as client:
            before = await self._editions(client, list(dict.fromkeys(ids)))
            if before:
                await client.delete(self._names.documents, [head_id(each) for each in before], wait=True)
                await self._sweep(client, list(before), list(before.values()), [])
            return len(before)

    async def drop(self) -> None:
        """Delete the collections."""
        async with self._connection.call() as client:
            await self._names.drop(client)

    # Reading

    async def heads(self, ids: Sequence[str]) -> list[DocumentHead | None]:
        """What is known of documents."""
        async with self._connection.call() as client:
            found = {payload["id"]: head_of(payload) for payload in await self._retrieved(client, ids)}
        return [found.get(each) for each in ids]

    async def documents(self, *, prefix: str = "", after: str = "", limit: int = 100) -> list[DocumentHead]:
        """A page of documents by id. The server does not sort by text: all ids are read for it."""
        async with self._connection.call() as client:
            ids = sorted(each for each in await self._ids(client, prefix) if each > after)[: max(limit, 0)]
            found = {payload["id"]: head_of(payload) for payload in await self._retrieved(client, ids)}
        return [found[each] for each in ids if each in found]

    async def size(self) -> StoreSize:
        """How much there is."""
        documents = passages = 0
        async with self._connection.call() as client:
            async for payload in self._heads(client, ["passages"]):
                documents += 1
                passages += int(payload["passages"])
        return StoreSize(documents=documents, passages=passages)

    async def search(
        self, vector: Sequence[float], *, limit: int, threshold: float = 0.0, where: PassageFilter = EVERYTHING
    ) -> list[Passage]:
        """The nearest passages, through the index."""
        _checked(vector)
        if limit < 1:
            return []
        async with self._connection.call() as client:
            present = await self._names.dimensions(client)
            if not present:
                return []
            if len(vector) != present:
                raise BadVectorStore(wrong_dimensions(len(vector), present))
            ids = await self._ids(client, where.prefix) if where.prefix else None
            found = [] if ids == [] else await self._nearest(client, vector, limit, ids, where)
        return [passage for passage in found if threshold <= 0 or passage.score >= threshold]

    async def _nearest(
        self,
        client: AsyncQdrantClient,
        vector: Sequence[float],
        limit: int,
        ids: Sequence[str] | None,
        where: PassageFilter,
    ) -> list[Passage]:
        looked_at, chosen = limit + _SPARE, of_documents(ids, where.metadata)
        while True:
            answer = await client.query_points(
                self._names.passages, query=list(vector), query_filter=chosen, limit=looked_at, with_payload=True
            )
            hits = [(hit.payload or {}, hit.score) for hit in answer.points]
            valid = await self._editions(client, list(dict.fromkeys(str(payload["document"]) for payload, _ in hits)))
            found = [
                passage_of(payload, score)
                for payload, score in hits
                if valid.get(payload["document"]) == payload["edition"]
            ]
            if len(found) >= limit or len(hits) < looked_at or looked_at >= _MOST_LOOKED_AT:
                return found[:limit]
            looked_at = min(4 * looked_at, _MOST_LOOKED_AT)

    async def _editions(self, client: AsyncQdrantClient, ids: Sequence[str]) -> dict[str, str]:
        """Of those documents that there are: which edition of it counts."""
        return {payload["id"]: payload["edition"] for payload in await self._retrieved(client, ids)}

    async def _retrieved(self, client: AsyncQdrantClient, ids: Sequence[str]) -> list[dict[str, Any]]:
        payloads: list[dict[str, Any]] = []
        for start in range(0, len(ids), _PAGE):
            page = [head_id(each) for each in ids[start : start + _PAGE]]
            try:
                found = await client.retrieve(self._names.documents, page, with_payload=True)
            except Exception as error:
                if is_absent(error):
                    return []
                raise
            payloads += [record.payload for record in found if record.payload]
        return payloads

    async def _ids(self, client: AsyncQdrantClient, prefix: str) -> list[str]:
        ids = [str(payload["id"]) async for payload in self._heads(client, ["id"])]
        return [each for each in ids if each.startswith(prefix)]

    async def _heads(self, client: AsyncQdrantClient, fields: list[str]) -> AsyncIterator[dict[str, Any]]:
        """Of all documents."""
        offset: Any = None
        while True:
            try:
                page, offset = await client.scroll(
                    self._names.documents, limit=_PAGE, offset=offset, with_payload=fields, with_vectors=False
                )
            except Exception as error:
                if is_absent(error):
                    return
                raise
            for record in page:
                yield record.payload or {}
            if offset is None:
                return

    async def aclose(self) -> None:
        """Close the client."""
        await self._connection.aclose()


def _checked(vector: Sequence[float]) -> Sequence[float]:
    if not all(map(math.isfinite, vector)):
        raise BadVectorStore("a vector holds a number that is not finite: the embedding model's answer is broken")
    return vector
