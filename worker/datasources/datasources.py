"""All data sources of a process: which there are, questions to them, and documents into them."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import structlog

from providers import ProviderError
from queue_backends import QueueError, StateStore
from worker.datasources import registry
from worker.datasources.documents import Document
from worker.datasources.embedding_call import NOBODY, Behalf
from worker.datasources.embeddings import Embeddings
from worker.datasources.errors import DatasourceNotFound, QueryFailed, StoreUnavailable, VectorStoreError
from worker.datasources.ingesting import Ingestion, IngestReport, Progress
from worker.datasources.model import Datasource
from worker.datasources.passages import EVERYTHING, DocumentHead, Passage, PassageFilter, StoreSize
from worker.datasources.vector_store import VectorStore
from worker.definitions import Definitions
from worker.objects import Stored

USUAL_RESULTS = 5
MOST_RESULTS = 100
MOST_QUESTION_CHARS = 32_000
_PAGE = 500

log = structlog.get_logger(__name__)


class _Opened(NamedTuple):
    value: Datasource
    store: VectorStore


class Datasources:
    """Stores are opened when first needed, and given up when their data source changes or goes.

    Use it with `aclose`, inside the life of what it is given.
    """

    def __init__(
        self,
        definitions: Definitions,
        state: StateStore,
        embeddings: Embeddings,
        *,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._definitions = definitions
        self._state = state
        self._embeddings = embeddings
        self._environ = environ
        self._stores: dict[int, _Opened] = {}
        self._leaving: list[VectorStore] = []
        self._forget = definitions.datasources.on_change(self._changed)

    # Which there are

    def find(self, slug: str, namespace: str = "") -> Stored[Datasource]:
        """The data source that a member of a namespace means: its own, or else everybody's.

        Raises `DatasourceNotFound`.
        """
        found = self._definitions.datasources.visible(slug, namespace)
        if found is None:
            raise DatasourceNotFound(f"datasource not found: {slug[:100]!r}")
        return found

    # Questions

    async def query(
        self,
        slug: str,
        question: str,
        *,
        namespace: str = "",
        max_results: int = USUAL_RESULTS,
        threshold: float = 0.0,
        where: PassageFilter = EVERYTHING,
        behalf: Behalf = NOBODY,
    ) -> list[Passage]:
        """The passages nearest to a question, the best first.

        As in AI Studio, `max_results` 0 means 5, and a `threshold` counts only above 0. Raises `DatasourceNotFound`,
        also for one that is not active, and `QueryFailed`.
        """
        source = self.find(slug, namespace)
        if not source.value.is_active:
            raise DatasourceNotFound(f"datasource not found: {slug[:100]!r} is not active")
        if not question.strip():
            raise QueryFailed("the question is empty")
        if len(question) > MOST_QUESTION_CHARS:
            raise QueryFailed(f"the question has {len(question)} characters, at most {MOST_QUESTION_CHARS} are allowed")
        if max_results < 0 or max_results > MOST_RESULTS:
            raise QueryFailed(f"max_results is {max_results}: use 0 to {MOST_RESULTS}")
        try:
            store = await self.store_of(source)
            (vector,) = await self._embeddings.embed(source.value, [question], behalf)
            return await store.search(vector, limit=max_results or USUAL_RESULTS, threshold=threshold, where=where)
        except ProviderError as error:
            raise QueryFailed(f"no embedding: {error}", retryable=error.retryable) from error
        except VectorStoreError as error:
            raise QueryFailed(str(error), retryable=isinstance(error, StoreUnavailable)) from error
        except QueueError as error:
            raise QueryFailed(str(error), retryable=True) from error

    # Documents

    async def ingest(
        self,
        slug: str,
        documents: Iterable[Document] | AsyncIterator[Document],
        *,
        namespace: str = "",
        behalf: Behalf = NOBODY,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Take documents in; those that have not changed are left alone.

        Raises `DatasourceNotFound`, `IngestFailed`, `VectorStoreError`s and `BackendUnavailable`; batches that were
        stored before stay, and are skipped the next time.
        """
        source = self.find(slug, namespace)
        store = await self.store_of(source)
        ingestion = Ingestion(source.value, store, self._embeddings, behalf=behalf, progress=progress)
        return await ingestion.run(documents if isinstance(documents, AsyncIterator) else _each(documents))

    async def documents(
        self, slug: str, *, namespace: str = "", prefix: str = "", after: str = "", limit: int = 100
    ) -> list[DocumentHead]:
        """Documents by id. Raises as `ingest`."""
        store = await self.store_of(self.find(slug, namespace))
        return await store.documents(prefix=prefix, after=after, limit=limit)

    async def remove(self, slug: str, ids: Sequence[str], *, namespace: str = "") -> int:
        """Delete documents; returns how many there were. Raises as `ingest`."""
        store = await self.store_of(self.find(slug, namespace))
        return await store.delete(ids)

    async def prune(
        self, slug: str, prefixes: Sequence[str], kept: Set[str], *, spared: Sequence[str] = (), namespace: str = ""
    ) -> int:
        """Delete documents whose id begins with one of these, and is none of those that are kept or begin with what is
        spared; returns how many."""
        store, deleted = await self.store_of(self.find(slug, namespace)), 0
        for prefix in prefixes:
            after = ""
            while page := await store.documents(prefix=prefix, after=after, limit=_PAGE):
                after = page[-1].id
                if gone := [head.id for head in page if head.id not in kept and not head.id.startswith(tuple(spared))]:
                    deleted += await store.delete(gone)
        return deleted

    async def forget(self, source: Stored[Datasource]) -> None:
        """Delete all passages of a data source that was deleted itself. Raises as `ingest`, but for its absence."""
        store = await self.store_of(source)
        try:
            await store.drop()
        finally:
            self._stores.pop(source.id, None)
            await _closed(store)

    async def clear(self, slug: str, *, namespace: str = "") -> None:
        """Delete all documents; vectors of another model may come after that. Raises as `ingest`."""
        await (await self.store_of(self.find(slug, namespace))).drop()

    async def size(self, slug: str, *, namespace: str = "") -> StoreSize:
        """How much there is. Raises as `ingest`."""
        return await (await self.store_of(self.find(slug, namespace))).size()

    # Stores

    async def store_of(self, source: Stored[Datasource]) -> VectorStore:
        """The open store of a data source. Raises `BadVectorStore`."""
        await self._close_leaving()
        opened = self._stores.get(source.id)
        if opened is not None and opened.value == source.value:
            return opened.store
        if opened is not None:
            self._leaving.append(opened.store)
        context = registry.StoreContext(
            datasource=source.value, collection=collection_of(source), state=self._state, environ=self._environ
        )
        store = registry.create(context)
        self._stores[source.id] = _Opened(source.value, store)
        return store

    def _changed(self, before: Stored[Datasource] | None, after: Stored[Datasource] | None) -> None:
        """One that is gone is given up; one that has changed is opened anew by whoever needs it next."""
        if before is not None and after is None and (opened := self._stores.pop(before.id, None)):
            self._leaving.append(opened.store)

    async def _close_leaving(self) -> None:
        while self._leaving:
            await _closed(self._leaving.pop())

    async def aclose(self) -> None:
        """Give up all stores."""
        self._forget()
        stores = [opened.store for opened in self._stores.values()]
        self._stores = {}
        await self._close_leaving()
        for store in stores:
            await _closed(store)


def collection_of(source: Stored[Datasource]) -> str:
    """Its passages' name in a store: never another's, also after it was deleted and made anew."""
    value = source.value
    address = hashlib.sha256(f"{value.namespace}/{value.slug}".encode()).hexdigest()[:8]
    return f"{source.id}-{address}"


async def _closed(store: VectorStore) -> None:
    try:
        async with asyncio.timeout(10.0):
            await store.aclose()
    except Exception:  # it may be anybody's code, and there is nothing left to do with it
        log.exception("a vector store could not be closed")


async def _each(documents: Iterable[Document]) -> AsyncIterator[Document]:
    for document in documents:
        yield document
