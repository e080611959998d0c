"""The store itself: documents in, passages out."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from queue_backends import BackendUnavailable, StateStore
from worker.datasources.embedded.index import Entry, Index, Place, gathered, wrong_dimensions
from worker.datasources.embedded.matrix import Found, Matrix
from worker.datasources.embedded.parts import Text, rows_of, texts_of, unit_vectors
from worker.datasources.embedded.preparing import all_prepared
from worker.datasources.errors import BadVectorStore, StoreFull
from worker.datasources.passages import EVERYTHING, DocumentHead, NewDocument, Passage, PassageFilter, StoreSize
from worker.datasources.registry import StoreContext
from worker.datasources.vector_store import VectorStore

if TYPE_CHECKING:
    from worker.datasources.embedded.parts import Vectors

MOST_PASSAGES = 100_000
MOST_DOCUMENTS = 20_000
MOST_VECTOR_BYTES = 512 * 1024 * 1024
"""Of one data source: every process that searches it holds so much in memory."""
_LIMIT_S = 120.0
"""The longest that any call may take."""
_TRIES = 5
_PASSAGES_IN_LOOP = 20
_PAGE = 32
"""So many documents are read into memory before others have a turn."""


class _Moved(Exception):
    """What was found has been replaced meanwhile."""


class EmbeddedStore:
    """Passages in the state store; see the package for how."""

    def __init__(self, state: StateStore, collection: str, *, max_passages: int = MOST_PASSAGES) -> None:
        self._state = state
        self._prefix = f"vectors/{collection}/"
        self._max_passages = max_passages
        self._index = Index(state, self._prefix)
        self._matrix: Matrix | None = None
        self._loaded: dict[str, Place] = {}
        self._loaded_at = -1
        """`changes` of the index that the matrix agrees with."""
        self._loading = asyncio.Lock()

    # Writing

    async def put(self, documents: Sequence[NewDocument]) -> None:
        """Add or replace documents. Raises `StoreFull`, `BadVectorStore`, `BackendUnavailable`."""
        if not documents:
            return
        async with _bounded():
            token = secrets.token_hex(8)
            whole = {document.head.id: document for document in documents}
            if sum(len(document.passages) for document in whole.values()) > _PASSAGES_IN_LOOP:
                dimensions, prepared = await asyncio.to_thread(all_prepared, token, list(whole.values()))
            else:
                dimensions, prepared = all_prepared(token, list(whole.values()))
            await self._index.refresh()
            self._check_room([document.entry.head for document in prepared], dimensions)
            places = [document.entry.place for document in prepared]
            await self._index.announce(token, whole, places, dimensions)
            parts = [(self._prefix + key, part) for document in prepared for key, part in document.parts.items()]
            await gathered(self._write, parts)
            await self._index.commit(token, {document.entry.head.id: document.entry for document in prepared})

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete documents; returns how many there were. Raises `BackendUnavailable`."""
        async with _bounded():
            await self._index.refresh()
            there = [each for each in dict.fromkeys(ids) if each in self._index.documents]
            if not there:
                return 0
            token = secrets.token_hex(8)
            await self._index.announce(token, there)
            return await self._index.commit(token, dict.fromkeys(there))

    async def _write(self, part: tuple[str, bytes]) -> None:
        await self._state.set(*part)

    async def drop(self) -> None:
        """Delete everything. Raises `BackendUnavailable`."""
        async with _bounded():
            for _ in range(_TRIES):
                keys = [key async for key, _ in self._state.scan(self._prefix)]
                if not keys:
                    break
                # The stamps go first: without them there is no document any more.
                await self._state.delete(f"{self._prefix}stamps")
                await gathered(self._state.delete, keys)
        self._forget()

    def _check_room(self, heads: Sequence[DocumentHead], dimensions: int) -> None:
        present = self._index.documents
        before = [present[head.id].head for head in heads if head.id in present]
        passages = self._index.passages + sum(head.passages for head in heads) - sum(head.passages for head in before)
        count = len(present) + len(heads) - len(before)
        most = min(self._max_passages, MOST_VECTOR_BYTES // (4 * max(dimensions, 1)))
        if passages > most:
            raise StoreFull(
                f"there would be {passages} passages, and an embedded store holds at most {most} with {dimensions} "
                "numbers each, because every process that searches keeps them in memory: use the store pgvector"
            )
        if count > MOST_DOCUMENTS:
            raise StoreFull(
                f"there would be {count} documents, and an embedded store holds at most {MOST_DOCUMENTS}: use the "
                "store pgvector"
            )

    # Reading

    async def heads(self, ids: Sequence[str]) -> list[DocumentHead | None]:
        """What is known of documents. Raises `BackendUnavailable`."""
        async with _bounded():
            await self._index.refresh()
        found = [self._index.documents.get(each) for each in ids]
        return [entry.head if entry else None for entry in found]

    async def documents(self, *, prefix: str = "", after: str = "", limit: int = 100) -> list[DocumentHead]:
        """A page of documents by id. Raises `BackendUnavailable`."""
        async with _bounded():
            await self._index.refresh()
        ids = sorted(each for each in self._index.documents if each.startswith(prefix) and each > after)
        return [self._index.documents[each].head for each in ids[:limit]]

    async def size(self) -> StoreSize:
        """How much there is. Raises `BackendUnavailable`."""
        async with _bounded():
            await self._index.refresh()
        return StoreSize(documents=len(self._index.documents), passages=self._index.passages)

    async def search(
        self, vector: Sequence[float], *, limit: int, threshold: float = 0.0, where: PassageFilter = EVERYTHING
    ) -> list[Passage]:
        """The nearest passages. Raises `BadVectorStore`, `BackendUnavailable`."""
        async with _bounded():
            for _ in range(_TRIES):
                try:
                    return await self._search(unit_vectors([vector])[0], limit, threshold, where)
                except _Moved:
                    continue
        raise BackendUnavailable(f"{self._prefix}: passages were replaced faster than they could be read: try again")

    async def _search(self, vector: Vectors, limit: int, threshold: float, where: PassageFilter) -> list[Passage]:
        matrix = await self._current()
        if matrix is None or not len(matrix) or limit < 1:
            return []
        if len(vector) != matrix.dimensions:
            raise BadVectorStore(wrong_dimensions(len(vector), matrix.dimensions))
        known = self._index.documents  # may be newer than the matrix: then what differs is not in `entries`
        entries = {
            each: entry
            for each, place in self._loaded.items()
            if (entry := known.get(each)) is not None and entry.place == place
        }
        chosen = None
        if where != EVERYTHING:
            chosen = [each for each, entry in entries.items() if where.fits(entry.head)]
        found = await matrix.search(vector, limit=limit, threshold=threshold, documents=chosen)
        return await self._passages(found, entries)

    async def _passages(self, found: Sequence[Found], entries: dict[str, Entry]) -> list[Passage]:
        wanted: dict[str, None] = {}
        places = []
        for hit in found:
            if hit.document not in entries:
                raise _Moved
            place = entries[hit.document].place
            part = bisect.bisect_right(place.text_starts, hit.passage) - 1
            key = self._prefix + place.texts(part)
            wanted[key] = None
            places.append((key, hit.passage - place.text_starts[part]))
        parts = dict(zip(wanted, await gathered(self._texts, wanted), strict=True))
        texts = [parts[key][number] for key, number in places]
        return [
            Passage(content=text.content, score=round(hit.score, 6), metadata=text.metadata)
            for hit, text in zip(found, texts, strict=True)
        ]

    async def _texts(self, key: str) -> list[Text]:
        part = await self._state.get(key)
        if part is None:
            raise _Moved
        return texts_of(part)

    # The mirror in memory

    async def _current(self) -> Matrix | None:
        """The matrix, with all that was written until now; None: there is nothing."""
        await self._index.refresh()
        if self._loaded_at == self._index.changes:
            return self._matrix
        async with self._loading:
            changes, dimensions = self._index.changes, self._index.dimensions
            target = {each: entry for each, entry in self._index.documents.items() if entry.head.passages}
            if self._matrix is None or self._matrix.dimensions != dimensions:
                self._matrix, self._loaded = (Matrix(dimensions) if dimensions else None), {}
            if self._matrix is not None:
                await self._load(self._matrix, target, dimensions)
            self._loaded_at = changes
            return self._matrix

    async def _load(self, matrix: Matrix, target: dict[str, Entry], dimensions: int) -> None:
        for gone in self._loaded.keys() - target.keys():
            matrix.remove(gone)
            del self._loaded[gone]
        missing = [entry for each, entry in target.items() if self._loaded.get(each) != entry.place]
        await matrix.reserve(sum(entry.head.passages for entry in missing))
        for start in range(0, len(missing), _PAGE):
            page = missing[start : start + _PAGE]
            for entry, parts in zip(page, await gathered(self._vector_parts, page), strict=True):
                matrix.put(entry.head.id, rows_of(parts, dimensions))
                self._loaded[entry.head.id] = entry.place

    async def _vector_parts(self, entry: Entry) -> list[bytes]:
        parts = []
        for number in range(entry.place.vector_parts):
            part = await self._state.get(self._prefix + entry.place.vectors(number))
            if part is None:
                raise _Moved
            parts.append(part)
        return parts

    def _forget(self) -> None:
        self._index = Index(self._state, self._prefix)
        self._matrix, self._loaded, self._loaded_at = None, {}, -1

    async def aclose(self) -> None:
        """Give up the memory."""
        self._forget()


@contextlib.asynccontextmanager
async def _bounded() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_LIMIT_S):
            yield
    except TimeoutError as error:
        raise BackendUnavailable(f"the embedded vector store has not answered within {_LIMIT_S:g} s") from error


def open_store(context: StoreContext) -> VectorStore:
    """The factory. Option `max_passages` lowers the limit. Raises `BadVectorStore` for other options."""
    options = dict(context.datasource.options)
    most = options.pop("max_passages", MOST_PASSAGES)
    if options:
        raise BadVectorStore(f"an embedded store has no options {', '.join(sorted(options))}; there is: max_passages")
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MOST_PASSAGES:
        raise BadVectorStore(f"options.max_passages is {most!r}: use 1 to {MOST_PASSAGES}")
    try:
        import numpy  # noqa: F401 - whether it is there
    except ImportError as error:
        raise BadVectorStore("the embedded vector store needs numpy: pip install 'shoal[datasources]'") from error
    return EmbeddedStore(context.state, context.collection, max_passages=most)
