"""What a data source is, as people declare it."""

from __future__ import annotations

from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.objects.errors import BadObject
from worker.objects.field_checks import check_short, check_url, check_variable, check_words

LEAST_CHUNK_TOKENS = 32
MOST_CHUNK_TOKENS = 4000


class Datasource(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Texts in a vector store, and the model that makes vectors of questions to them."""

    slug: str = ""
    """Its address; empty in a new one: made of its name."""
    name: str = ""
    namespace: str = ""
    description: str = ""
    """For agents: what can be found there."""
    store: str = "embedded"
    """Kind of vector store: `embedded` (in the state store), `pgvector`, or one that a package offers."""
    embed_provider: str = ""
    """Registry name of the provider that embeds; empty: found from the model's name."""
    embed_model: str = ""
    """`lexical` needs no provider and no key: it finds shared words, not meaning. Empty: the provider's default."""
    embed_base_url: str = ""
    """Where the provider is reached; empty: its own address."""
    embed_api_key_env: str = ""
    """Name of the environment variable that holds the key; the key itself is never part of an object."""
    embed_options: JsonObject = {}
    """Further options of the provider, such as `{"dimensions": 512}`."""
    chunk_tokens: int = 400
    """About how many tokens a passage has, estimated."""
    chunk_overlap_tokens: int = 60
    """Of a passage, how much is repeated at the beginning of the next one."""
    options: JsonObject = {}
    """Of the store, such as `{"url_env": "DOCS_DATABASE_URL", "table": "documents"}`."""
    privacy_score: int = 0
    is_active: bool = True

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name or self.slug


def check_datasource(source: Datasource) -> None:
    """Raise `BadObject` for a field that does not fit."""
    what = f"data source {source.slug!r}: "
    check_words("data source", source.name, source.description)
    for name in ("store", "embed_provider", "embed_model"):
        check_short(what + name, getattr(source, name))
    check_url(f"{what}embed_base_url", source.embed_base_url)
    if source.privacy_score < 0:
        raise BadObject(f"{what}privacy_score is {source.privacy_score}: use 0 or more")
    if not LEAST_CHUNK_TOKENS <= source.chunk_tokens <= MOST_CHUNK_TOKENS:
        raise BadObject(f"{what}chunk_tokens is {source.chunk_tokens}: use {LEAST_CHUNK_TOKENS} to {MOST_CHUNK_TOKENS}")
    if not 0 <= source.chunk_overlap_tokens <= source.chunk_tokens // 2:
        raise BadObject(
            f"{what}chunk_overlap_tokens is {source.chunk_overlap_tokens}: use 0 to {source.chunk_tokens // 2}, half "
            "of chunk_tokens"
        )
    for field, variable in (
        ("embed_api_key_env", source.embed_api_key_env),
        ("options.url_env", source.options.get("url_env", "")),
        ("options.api_key_env", source.options.get("api_key_env", "")),
    ):
        check_variable(what + field, variable)
