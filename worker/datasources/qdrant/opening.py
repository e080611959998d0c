"""From a data source's options to its store."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from worker.datasources.errors import BadVectorStore
from worker.datasources.qdrant.connection import REQUEST_LIMIT_S, Connection
from worker.datasources.qdrant.store import QdrantStore
from worker.datasources.registry import StoreContext
from worker.datasources.vector_store import VectorStore
from worker.settings.masking import masked_url

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

URL_VARIABLE = "SHOAL_QDRANT_URL"
_OPTIONS = ("url", "url_env", "api_key_env", "collection")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")


def open_store(context: StoreContext) -> VectorStore:
    """The factory. Raises `BadVectorStore` for options that do not fit, or without a URL."""
    options = dict(context.datasource.options)
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise BadVectorStore(f"a qdrant store has no options {', '.join(unknown)}; there are: {', '.join(_OPTIONS)}")
    if importlib.util.find_spec("qdrant_client") is None:
        raise BadVectorStore("the store qdrant needs its client: pip install 'shoal[qdrant]'")
    name = str(options.get("collection") or f"shoal-{context.collection}")
    if not _NAME.fullmatch(name):
        raise BadVectorStore(
            f"options.collection is {name[:100]!r}: use letters, digits, '_' and '-', at most 200 characters"
        )
    url, key = _url(context, options), _key(context, options)

    def client() -> AsyncQdrantClient:
        from qdrant_client import AsyncQdrantClient

        # As a header: for the client's own argument it would warn of http://, which is how it is inside of a cluster.
        headers = {"api-key": key} if key else None
        return AsyncQdrantClient(url=url, headers=headers, timeout=REQUEST_LIMIT_S, check_compatibility=False)

    return QdrantStore(Connection(client, f"Qdrant at {masked_url(url)}", secret=key), name)


def _url(context: StoreContext, options: dict[str, Any]) -> str:
    url = str(options.get("url") or "").strip()
    where = "options.url"
    if not url:
        variable = str(options.get("url_env") or URL_VARIABLE)
        url, where = context.environ.get(variable, "").strip(), f"the environment variable {variable}"
    if not url:
        raise BadVectorStore(f"Qdrant's URL is expected in options.url or in {where}, which is not set")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise BadVectorStore(f"{where} is no URL of Qdrant: use http://host:6333 or https://…, without a user")
    return url


def _key(context: StoreContext, options: dict[str, Any]) -> str:
    variable = str(options.get("api_key_env") or "")
    key = context.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise BadVectorStore(f"Qdrant's key is expected in the environment variable {variable}, which is not set")
    return key
