"""What a data source is, as people declare it."""

from __future__ import annotations

from msgspec import Struct

from queue_backends.messages import JsonObject


class Datasource(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Texts in a vector store, and the model that makes vectors of questions to them."""

    slug: str
    name: str = ""
    namespace: str = ""
    description: str = ""
    """For agents: what can be found there."""
    store: str = "embedded"
    """Kind of vector store: `embedded` (in the state store), `pgvector`, or one that a package offers."""
    embed_provider: str = ""
    """Registry name of the provider that embeds; empty: found from the model's name."""
    embed_model: str = ""
    options: JsonObject = {}
    """Of the store, such as `{"url_env": "DOCS_DATABASE_URL", "table": "documents"}`."""
    privacy_score: int = 0
    is_active: bool = True
