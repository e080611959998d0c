"""The vector stores of vector memories: one for each tenant, collection and embedding model."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit, urlunsplit

import structlog
from msgspec import Struct
from msgspec.structs import replace

from providers.lexical_vectors import MODEL as LEXICAL
from queue_backends import StateStore
from queue_backends.messages import JsonObject, encode_json
from worker.datasources import registry
from worker.datasources.embedding_call import Behalf
from worker.datasources.embeddings import Embeddings
from worker.datasources.model import Datasource
from worker.datasources.vector_store import VectorStore
from worker.teams.memory.interfaces import MemoryUnavailable
from worker.teams.memory.keys import collection_name
from worker.teams.plan import MemorySpec

MOST_OPEN = 16
"""Stores of one process; of those beyond, the ones that nobody uses are closed, the longest unused first."""
_URL, _KEY = "MEMORY_URL", "MEMORY_KEY"
"""Variables of the environment that a memory's store is given: the store sees nothing else of the process'."""
_CLOSE_LIMIT_S = 10.0

log = structlog.get_logger(__name__)


class VectorCollection:
    """An open store, and what makes its vectors."""

    def __init__(self, source: Datasource, store: VectorStore, embeddings: Embeddings) -> None:
        self.store = store
        self.pruned_at = 0.0
        """When this process last looked for what is too old. Unix seconds."""
        self.users = 0
        self._source = source
        self._embeddings = embeddings

    async def embed(self, texts: Sequence[str], behalf: Behalf) -> list[list[float]]:
        """One vector per text. Raises as `Embeddings.embed`."""
        return await self._embeddings.embed(self._source, texts, behalf)


class _Place(Struct, frozen=True):
    """Where a memory's store is: its options, and the environment that these name."""

    options: JsonObject
    environ: Mapping[str, str]


class VectorCollections:
    """Opened when first needed. Use it with `aclose`."""

    def __init__(self, state: StateStore, embeddings: Embeddings, *, environ: Mapping[str, str]) -> None:
        self._state = state
        self._embeddings = embeddings
        self._environ = environ
        self._open: dict[tuple[str, ...], VectorCollection] = {}

    @asynccontextmanager
    async def of(self, spec: MemorySpec, tenant: str) -> AsyncIterator[VectorCollection]:
        """The collection of a memory, for a tenant. Raises `MemoryUnavailable`, `BadVectorStore`."""
        source = self._source_of(spec, tenant)
        key = (source.slug, source.store, spec.endpoint, spec.url_env)
        found = self._open.pop(key, None) or self._opened(source, spec)
        self._open[key] = found  # the last one used stands last
        found.users += 1
        try:
            await self._close_surplus()
            yield found
        finally:
            found.users -= 1

    def _source_of(self, spec: MemorySpec, tenant: str) -> Datasource:
        """What would be declared for it. Without a model, the words themselves are compared: that needs no key."""
        source = Datasource(
            namespace=tenant,
            store=spec.provider or "embedded",
            embed_provider=spec.embed_provider,
            embed_model=spec.embed_model or ("" if spec.embed_provider else LEXICAL),
            embed_base_url=spec.embed_base_url,
            embed_api_key_env=spec.embed_api_key_env,
            embed_options={"dimensions": spec.embed_dimensions} if spec.embed_dimensions else {},
        )
        named = encode_json([tenant, spec.collection, self._embeddings.made_by(source)])
        return _with_slug(source, spec.collection, hashlib.sha256(named).hexdigest()[:24])

    def _opened(self, source: Datasource, spec: MemorySpec) -> VectorCollection:
        place = self._place(spec, source.store)
        source = replace(source, options=place.options)
        context = registry.StoreContext(
            datasource=source,
            collection=collection_name(source.slug),
            state=self._state,
            environ=place.environ,
        )
        return VectorCollection(source, registry.create(context), self._embeddings)

    def _place(self, spec: MemorySpec, kind: str) -> _Place:
        if kind == "embedded":
            return _Place({}, {})
        secret = self._secret(spec)
        if kind == "pgvector":
            if not (spec.endpoint or secret):
                return _Place({}, self._environ)  # the fleet's own
            return _Place({"url_env": _URL}, {_URL: database_url(spec.endpoint, secret)})
        if kind == "qdrant":
            options = {"url": spec.endpoint, **({"api_key_env": _KEY} if secret else {})}
            return _Place(options, {_KEY: secret})
        return _Place({}, self._environ)

    def _secret(self, spec: MemorySpec) -> str:
        if not spec.url_env:
            return ""
        value = self._environ.get(spec.url_env, "").strip()
        if not value:
            raise MemoryUnavailable(f"memory {spec.name!r} needs the variable {spec.url_env}, which is not set here")
        return value

    async def _close_surplus(self) -> None:
        while len(self._open) > MOST_OPEN:
            idle = next((key for key, each in self._open.items() if not each.users), None)
            if idle is None:
                return
            await _closed(self._open.pop(idle).store)

    async def aclose(self) -> None:
        """Give up all stores."""
        collections, self._open = list(self._open.values()), {}
        for each in collections:
            await _closed(each.store)


def database_url(endpoint: str, secret: str) -> str:
    """A database's URL: the secret if it is one, else the endpoint, with the secret as its password."""
    if "://" in secret:
        return secret
    parts = urlsplit(endpoint)
    if not secret or parts.password:
        return endpoint
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(secret, safe='')}@{host}" if at else parts.netloc))


def _with_slug(source: Datasource, collection: str, digest: str) -> Datasource:
    name = re.sub(r"[^a-z0-9]+", "-", collection.lower()).strip("-")[:24]
    return replace(source, slug=f"{name}-{digest}" if name else digest)


async def _closed(store: VectorStore) -> None:
    try:
        async with asyncio.timeout(_CLOSE_LIMIT_S):
            await store.aclose()
    except Exception:  # it may be anybody's code, and there is nothing left to do with it
        log.exception("the store of a memory could not be closed")
