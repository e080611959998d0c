"""Where findings are kept: from `AGENT_VECTOR_STORE_URL`, or a role's own memory, to a place among vector stores."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit, urlunsplit

from msgspec import Struct
from msgspec.structs import replace

from providers import AgentConfig
from providers.lexical_vectors import MODEL as LEXICAL
from worker.errors import BadSetting
from worker.loop_policy.model import USUAL_SIMILARITY, LoopMemory
from worker.teams.plan import MemorySpec

COLLECTION = "findings"
QDRANT_KEY = "QDRANT_API_KEY"
WORDS_SIMILARITY = 0.30
"""Vectors of words alone are less like one another than a model's."""
_GRPC_PORT, _HTTP_PORT = 6334, 6333
_HTTP = {"qdrant": "http", "qdrants": "https", "http": "http", "https": "https"}
_POSTGRESQL = frozenset({"pgvector", "postgres", "postgresql"})


class FindingSettings(Struct, frozen=True, kw_only=True):
    """What the settings say of findings, for all agents of a worker."""

    url: str = ""
    embedding_provider: str = ""
    embedding_model: str = ""


def place_at(url: str, environ: Mapping[str, str]) -> MemorySpec:
    """The store of a URL; without one, the fleet's own. Qdrant is spoken to over HTTP: its port for gRPC is taken for
    the one beside it.

    Raises `BadSetting`, without the URL's secrets.
    """
    spec = MemorySpec(backend="vector-store", name=COLLECTION, collection=COLLECTION, provider="embedded")
    if not url:
        return spec
    parts = urlsplit(url)
    if parts.scheme in _HTTP:
        return _qdrant(spec, url, environ)
    if parts.scheme in _POSTGRESQL:
        collection = parse_qs(parts.query).get("collection", [COLLECTION])[0]
        endpoint = urlunsplit(parts._replace(scheme="postgresql", query=""))
        return replace(spec, provider="pgvector", endpoint=endpoint, collection=collection)
    if parts.scheme == "embedded":
        return replace(spec, collection=parts.netloc or COLLECTION)
    raise BadSetting(
        f"AGENT_VECTOR_STORE_URL begins with {parts.scheme[:30] or 'no scheme'!r}: use qdrant://host:6333/collection, "
        "postgresql://… or embedded://collection"
    )


def _qdrant(spec: MemorySpec, url: str, environ: Mapping[str, str]) -> MemorySpec:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadSetting(f"AGENT_VECTOR_STORE_URL: {error}") from error
    collection = parts.path.strip("/")
    if not host or "/" in collection:
        raise BadSetting("AGENT_VECTOR_STORE_URL: use qdrant://host:6333/collection")
    port = _HTTP_PORT if port in (None, _GRPC_PORT) else port
    shown = f"[{host}]" if ":" in host else host
    return replace(
        spec,
        provider="qdrant",
        endpoint=f"{_HTTP[parts.scheme]}://{shown}:{port}",
        collection=collection or COLLECTION,
        url_env=QDRANT_KEY if environ.get(QDRANT_KEY, "").strip() else "",
    )


def placed(
    place: MemorySpec,
    policy: LoopMemory,
    settings: FindingSettings,
    config: AgentConfig,
    provider: str,
    *,
    app: str = "",
) -> MemorySpec:
    """The place, with what makes the vectors: what it says itself, else the settings, else the policy, else the
    `provider` of the agent. Agents of an app use its models alone, and are told what that app has found alone."""
    if app:
        policy = replace(policy, embedding_model="", embedding_provider="")
        place = replace(place, collection=f"{place.collection}/{app}")
    if not (place.embed_model or place.embed_provider):
        model = settings.embedding_model or policy.embedding_model
        named = settings.embedding_provider or policy.embedding_provider
        if model or named:
            place = replace(place, embed_model=model, embed_provider=named)
        else:
            place = replace(
                place,
                embed_provider=provider,
                embed_base_url=config.base_url,
                embed_api_key_env=config.api_key_env,
            )
    usual = WORDS_SIMILARITY if place.embed_model == LEXICAL else USUAL_SIMILARITY
    return replace(place, min_similarity=policy.similarity or usual, top_k=policy.most_found)
