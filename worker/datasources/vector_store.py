"""What a vector store promises. Three implement it here: `worker.datasources.embedded`, `worker.datasources.pgvector`
and `worker.datasources.qdrant`; a package may bring others (`worker.datasources.registry`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from worker.datasources.passages import EVERYTHING, DocumentHead, NewDocument, Passage, PassageFilter, StoreSize


@runtime_checkable
class VectorStore(Protocol):
    """The passages of one data source, searched by the cosine of their vectors.

    Many processes may use the same store at once. Whatever a method has changed, every search that begins later sees,
    in any process. All raise `VectorStoreError`s, `StoreUnavailable` among them, and `BackendUnavailable`; after either
    the outcome of a write is not known, and repeating it is safe. Every wait is bounded.
    """

    async def put(self, documents: Sequence[NewDocument]) -> None:
        """Add documents, or replace those of the same id: each wholly or not at all.

        Raises `StoreFull`; `BadVectorStore` if a vector has another length than those that are there.
        """
        ...

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete documents; returns how many there were."""
        ...

    async def heads(self, ids: Sequence[str]) -> list[DocumentHead | None]:
        """What is known of documents, in the order of `ids`; None: there is no such document."""
        ...

    async def documents(self, *, prefix: str = "", after: str = "", limit: int = 100) -> list[DocumentHead]:
        """Documents whose id begins with `prefix`, those behind `after` only, by id (as Unicode code points)."""
        ...

    async def search(
        self, vector: Sequence[float], *, limit: int, threshold: float = 0.0, where: PassageFilter = EVERYTHING
    ) -> list[Passage]:
        """The nearest passages, the best first; with a `threshold` above 0 none whose score is lower.

        Raises `BadVectorStore` if the vector has another length than those that are there.
        """
        ...

    async def size(self) -> StoreSize:
        """How much there is."""
        ...

    async def drop(self) -> None:
        """Delete everything. The store may be used again, with vectors of another length too."""
        ...

    async def aclose(self) -> None:
        """Give up connections and memory."""
        ...
