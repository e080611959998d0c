"""What roles remember: ArkMemory and SwarmMemory -> `MemorySpec`."""

from __future__ import annotations

from typing import Any

from providers.lexical_vectors import MODEL as LEXICAL
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of
from worker.teams.kinds.sources import secret_variable
from worker.teams.plan import MemorySpec

_ELSEWHERE = frozenset({"pinecone", "weaviate"})
REDIS_KEY = "REDIS_URL"
VECTOR_KEY = "VECTOR_STORE_API_KEY"
"""Keys of the Secrets that memories name. Facts: kubeswarm `swarmmemory_types.go`."""
MODEL_PERCENT = 70
WORDS_PERCENT = 30
"""How similar a finding has to be, if the file does not say: to the vectors of a model, and to those of words alone."""


def compile_memory(spec: Fields, documents: Documents) -> MemorySpec | None:
    """The memory that an agent names (`memoryRef`, or its loop's `memory.ref`); None if it names none."""
    loop = spec.one("runtime").one("loop").one("memory")
    named, node = name_of(loop.get("ref")), loop.at("ref")
    if "memoryRef" in spec:
        named, node = name_of(spec.get("memoryRef")), spec.at("memoryRef")
    document = documents.refer(named, node, "memory", what="memory")
    if document is None:
        return None
    return MemorySpec(
        name=document.name,
        recalls=bool(loop.get("retrieve", True)),
        keeps=bool(loop.get("store", True)),
        top_k=loop.whole("topK", 3),
        min_similarity=_min_similarity(loop, document),
        **_store(document, documents),
    )


def _min_similarity(loop: Fields, document: Document) -> float:
    """Vectors of words alone are less like one another than a model's."""
    embedding = document.spec.one("embedding")
    has_model = embedding.text("model") not in ("", LEXICAL) or embedding.text("provider") not in ("", "auto")
    is_of_words = document.spec.get("backend") == "vector-store" and not has_model
    usual = WORDS_PERCENT if is_of_words else MODEL_PERCENT
    return float(loop.get("minSimilarity", loop.whole("minSimilarityPercent", usual) / 100))


def _store(document: Document, documents: Documents) -> dict[str, Any]:
    spec = document.spec
    backend = spec.get("backend", "in-context")
    for name, of in (("redis", "redis"), ("vectorStore", "vector-store")):
        if name in spec and backend != of:
            documents.findings.error(spec.key(name), f"{name} is for backend {of!r}, and the backend is {backend!r}")
    common = {"backend": backend, "ttl_s": spec.whole("ttlSeconds"), "max_entries": spec.whole("maxEntries")}
    if backend == "redis":
        redis = spec.one("redis")
        return {
            **common,
            "ttl_s": redis.whole("ttlSeconds", 3600),
            "max_entries": redis.whole("maxEntries", spec.whole("maxEntries")),
            "url_env": _variable(redis, REDIS_KEY, documents),
        }
    if backend != "vector-store":
        return common
    return {**common, **_vector_store(document, documents)}


def _vector_store(document: Document, documents: Documents) -> dict[str, Any]:
    store, embedding = document.spec.one("vectorStore"), document.spec.one("embedding")
    provider = store.get("provider", "embedded")
    if provider in _ELSEWHERE:
        documents.findings.warning(
            store.at("provider"),
            f"{provider} is not spoken to from here: the fleet's own store is used (there are "
            "qdrant, pgvector and embedded)",
        )
        provider = "embedded"
    if provider == "qdrant" and not store.text("endpoint"):
        documents.findings.error(store.node, "provider qdrant needs endpoint: its URL")
    chosen = embedding.text("provider")
    return {
        "ttl_s": store.whole("ttlSeconds", document.spec.whole("ttlSeconds")),
        "max_entries": store.whole("maxEntries", document.spec.whole("maxEntries")),
        "provider": provider,
        "endpoint": store.text("endpoint") if provider != "embedded" else "",
        "collection": store.text("collection", "agent-memories"),
        "url_env": _variable(store, VECTOR_KEY, documents),
        "embed_model": embedding.text("model"),
        "embed_provider": "" if chosen == "auto" else {"google": "gemini"}.get(chosen, chosen),
        "embed_dimensions": embedding.whole("dimensions"),
    }


def _variable(found: Fields, key: str, documents: Documents) -> str:
    """The environment variable for the key of the Secret that a memory names."""
    secret = name_of(found.get("secretRef"))
    if not secret:
        return ""
    variable = secret_variable(secret, key)
    value = documents.sources.value("Secret", secret, key)
    if value is not None:
        documents.sources.put(variable, value)
    else:
        documents.findings.note_once(
            f"secret {secret}/{key}",
            found.at("secretRef"),
            f"key {key!r} of Secret {secret!r} is not known here: its "
            f"value is taken from the environment variable {variable}",
        )
    return variable
