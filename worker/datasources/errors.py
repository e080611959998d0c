"""What can go wrong with data sources.

DatasourceError
├── DatasourceNotFound   there is none of that name here, or it is not active
├── QueryFailed          a question could not be answered; the message says why, and whether waiting helps
├── IngestFailed         texts could not be taken in; what was taken in before stays
└── VectorStoreError     the vector store
    ├── BadVectorStore   it cannot be used as it is set up: fix the data source's options, or the machine
    ├── StoreFull        it holds as much as it may: the message names the limit
    └── StoreUnavailable it cannot be reached right now; waiting helps
"""

from __future__ import annotations

from worker.errors import WorkerError


class DatasourceError(WorkerError):
    """Root of what goes wrong with data sources."""


class DatasourceNotFound(DatasourceError):
    """There is no such data source. Its text is Studio's."""


class QueryFailed(DatasourceError):
    """A question could not be answered. Its text begins with `query failed: `, as Studio's does."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(f"query failed: {message}")
        self.retryable = retryable


class IngestFailed(DatasourceError):
    """Texts could not be taken in. What was stored before stays, and is skipped the next time."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class VectorStoreError(DatasourceError):
    """Root of what a vector store raises."""


class BadVectorStore(VectorStoreError):
    """The store cannot be used as it is set up, or with vectors of this size."""


class StoreFull(VectorStoreError):
    """The store holds as much as it may."""


class StoreUnavailable(VectorStoreError):
    """The store cannot be reached right now."""
