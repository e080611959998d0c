"""Data sources: texts that agents search by meaning."""

from typing import TYPE_CHECKING, Any

from worker.datasources.errors import (
    BadVectorStore,
    DatasourceError,
    DatasourceNotFound,
    IngestFailed,
    QueryFailed,
    StoreFull,
    StoreUnavailable,
    VectorStoreError,
)
from worker.datasources.model import Datasource
from worker.datasources.passages import (
    DocumentHead,
    NewDocument,
    NewPassage,
    Passage,
    PassageFilter,
    StoreSize,
)
from worker.datasources.vector_store import VectorStore

if TYPE_CHECKING:
    from worker.datasources.datasources import Datasources

__all__ = [
    "BadVectorStore",
    "Datasource",
    "DatasourceError",
    "DatasourceNotFound",
    "Datasources",
    "DocumentHead",
    "IngestFailed",
    "NewDocument",
    "NewPassage",
    "Passage",
    "PassageFilter",
    "QueryFailed",
    "StoreFull",
    "StoreSize",
    "StoreUnavailable",
    "VectorStore",
    "VectorStoreError",
]


def __getattr__(name: str) -> Any:
    """`Datasources` needs the definitions, which need this package."""
    if name == "Datasources":
        from worker.datasources.datasources import Datasources

        return Datasources
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
