"""From the name of a kind of vector store to a store."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Mapping

from msgspec import Struct

from queue_backends import StateStore
from worker.datasources.errors import BadVectorStore
from worker.datasources.model import Datasource
from worker.datasources.vector_store import VectorStore

ENTRY_POINTS = "shoal.vector_stores"


class StoreContext(Struct, frozen=True, kw_only=True):
    """What a store is made of."""

    datasource: Datasource
    collection: str
    """Unique to the data source among all that ever were in this fleet."""
    state: StateStore
    environ: Mapping[str, str] = os.environ


StoreFactory = Callable[[StoreContext], VectorStore]
"""Makes a store without I/O. Raises `BadVectorStore` for options that do not fit."""

_registered: dict[str, StoreFactory] = {}


def register(name: str, factory: StoreFactory) -> None:
    """Make `name` create stores with `factory`. The last registration of a name wins."""
    _registered[name] = factory


def available() -> list[str]:
    """All names that can be created, sorted."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return sorted({"embedded", "pgvector", "qdrant", *_registered, *(point.name for point in points)})


def create(context: StoreContext) -> VectorStore:
    """The store of a data source. Raises `BadVectorStore`, with all names there are if it is of none of them."""
    name = context.datasource.store
    factory = _registered.get(name) or _built_in(name)
    if factory is None:
        points = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
        factory = next((point.load() for point in points), None)
    if factory is None:
        raise BadVectorStore(f"no kind of vector store is called {name!r}; there are: {', '.join(available())}")
    return factory(context)


def _built_in(name: str) -> StoreFactory | None:
    if name == "embedded":
        from worker.datasources.embedded import open_store as embedded  # numpy

        return embedded
    if name == "pgvector":
        from worker.datasources.pgvector import open_store as pgvector  # psycopg

        return pgvector
    if name == "qdrant":
        from worker.datasources.qdrant import open_store as qdrant  # its client is imported when it is first used

        return qdrant
    return None
