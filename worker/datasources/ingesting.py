"""Documents into a vector store: what has not changed is left alone, the rest is cut, embedded and stored in batches.

Each batch is stored before the next one is begun, so whoever is interrupted goes on where he was by doing it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from msgspec import Struct

from providers import ProviderError
from worker.datasources.documents import (
    MOST_CHARS,
    Document,
    digest_of,
    embedded_text,
    head_of,
    metadata_of,
    passages_of,
)
from worker.datasources.embedding_call import NOBODY, Behalf
from worker.datasources.embeddings import Embeddings
from worker.datasources.errors import IngestFailed
from worker.datasources.model import Datasource
from worker.datasources.passages import NewDocument, NewPassage
from worker.datasources.vector_store import VectorStore

BATCH_DOCUMENTS = 32
BATCH_CHARS = 400_000
"""A batch is full when it has so many documents, or so many characters."""
MOST_PASSAGES = 20_000
"""Of one document."""
_THREAD_CHARS = 20_000
"""More than so much text is cut in a thread."""


class IngestReport(Struct, kw_only=True):
    """What has been done so far."""

    added: int = 0
    """Documents, as the next three."""
    replaced: int = 0
    unchanged: int = 0
    deleted: int = 0
    passages: int = 0
    """Stored just now."""
    empty: list[str] = []
    """Ids of documents without any text; they are stored, and never found."""

    @property
    def documents(self) -> int:
        """How many were looked at."""
        return self.added + self.replaced + self.unchanged


Progress = Callable[[IngestReport], None]
"""Is told after each batch. Must return at once."""


class Ingestion:
    """One taking in of documents into one data source."""

    def __init__(
        self,
        source: Datasource,
        store: VectorStore,
        embeddings: Embeddings,
        *,
        behalf: Behalf = NOBODY,
        progress: Progress | None = None,
    ) -> None:
        self._source = source
        self._store = store
        self._embeddings = embeddings
        self._made_by = embeddings.made_by(source)
        self._behalf = behalf
        self._progress = progress
        self.report = IngestReport(empty=[])

    async def run(self, documents: AsyncIterator[Document]) -> IngestReport:
        """Take all in. Raises `IngestFailed`, `VectorStoreError`s and `BackendUnavailable`."""
        batch: list[Document] = []
        chars = 0
        async for document in documents:
            batch.append(_checked(document))
            chars += len(document.text)
            if len(batch) >= BATCH_DOCUMENTS or chars >= BATCH_CHARS:
                await self._take(batch)
                batch, chars = [], 0
        if batch:
            await self._take(batch)
        return self.report

    async def _take(self, batch: Sequence[Document]) -> None:
        whole = {document.id: document for document in batch}
        known = dict(zip(whole, await self._store.heads(list(whole)), strict=True))
        digests = {each: digest_of(document, self._source, self._made_by) for each, document in whole.items()}
        changed = [
            document
            for each, document in whole.items()
            if (head := known[each]) is None or head.digest != digests[each]
        ]
        self.report.unchanged += len(whole) - len(changed)
        if changed:
            ready = await self._embedded(changed, digests)
            await self._store.put(ready)
            for document in ready:
                self._count(document, is_new=known[document.head.id] is None)
        if self._progress is not None:
            self._progress(self.report)

    def _count(self, document: NewDocument, *, is_new: bool) -> None:
        if is_new:
            self.report.added += 1
        else:
            self.report.replaced += 1
        self.report.passages += document.head.passages
        if not document.head.passages:
            self.report.empty.append(document.head.id)

    async def _embedded(self, documents: Sequence[Document], digests: dict[str, str]) -> list[NewDocument]:
        cut = []
        for document in documents:
            if len(document.text) > _THREAD_CHARS:
                chunks = await asyncio.to_thread(passages_of, document, self._source)
            else:
                chunks = passages_of(document, self._source)
            if len(chunks) > MOST_PASSAGES:
                raise IngestFailed(
                    f"document {document.id!r} has {len(chunks)} passages, at most {MOST_PASSAGES} are allowed: "
                    "split it, or raise the data source's chunk_tokens"
                )
            cut.append((document, chunks))
        texts = [embedded_text(document, chunk) for document, chunks in cut for chunk in chunks]
        vectors = iter(await self._vectors(texts))
        return [
            NewDocument(
                head=head_of(document, digests[document.id], len(chunks)),
                passages=[
                    NewPassage(content=chunk.content, vector=next(vectors), metadata=metadata_of(document, chunk))
                    for chunk in chunks
                ],
            )
            for document, chunks in cut
        ]

    async def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        try:
            return await self._embeddings.embed(self._source, texts, self._behalf)
        except ProviderError as error:
            raise IngestFailed(f"no embeddings: {error}", retryable=error.retryable) from error


def _checked(document: Document) -> Document:
    if not document.id or len(document.id) > 1000 or "\0" in document.id:
        raise IngestFailed(f"a document's id is {document.id[:100]!r}: give it 1 to 1000 characters")
    if _is_broken(document):
        raise IngestFailed(f"document {document.id!r} holds half a character (a lone surrogate): decode it anew")
    if len(document.text) > MOST_CHARS:
        raise IngestFailed(
            f"document {document.id!r} has {len(document.text)} characters, at most {MOST_CHARS} are allowed: split it"
        )
    return document


def _is_broken(document: Document) -> bool:
    texts = (document.id, document.title, document.text, *document.metadata, *document.metadata.values())
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return True
    return False
