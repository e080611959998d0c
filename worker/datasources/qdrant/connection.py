"""The client of one Qdrant, opened when first needed, and its errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from worker.datasources.errors import BadVectorStore, StoreUnavailable, VectorStoreError

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

CALL_LIMIT_S = 60.0
REQUEST_LIMIT_S = 30
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

OpenClient = Callable[[], "AsyncQdrantClient"]


class Connection:
    """One client, shared by all calls of a store. What `open_client` holds is never part of an error."""

    def __init__(self, open_client: OpenClient, where: str, *, secret: str = "") -> None:
        """`where` names the server in errors, without a secret; `secret` is taken out of what the server says."""
        self._open_client = open_client
        self._where = where
        self._secret = secret
        self._client: AsyncQdrantClient | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Connection to {self._where}>"

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncIterator[AsyncQdrantClient]:
        """The client, for a bounded time. Raises `StoreUnavailable`, or `BadVectorStore` for what waiting does not
        help."""
        limit = asyncio.timeout(CALL_LIMIT_S)
        try:
            async with limit:
                yield await self._opened()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StoreUnavailable(f"{self._where} has not answered within {CALL_LIMIT_S:g} s") from error
        except VectorStoreError:
            raise
        except Exception as error:
            translated = self._translated(error)
            if translated is None:
                raise
            raise translated from error

    async def _opened(self) -> AsyncQdrantClient:
        if self._client is None:
            async with self._opening:
                if self._client is None:
                    await asyncio.to_thread(importlib.import_module, "qdrant_client")  # takes a second
                    self._client = self._open_client()
        return self._client

    def _translated(self, error: Exception) -> VectorStoreError | None:
        """The client's errors; None for what is none of them."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

        if isinstance(error, UnexpectedResponse):
            told = self._plain(error.content.decode("utf-8", "replace"))
            said = f"{self._where} answers {error.status_code}: {told}"
            return StoreUnavailable(said) if error.status_code in _TRANSIENT else BadVectorStore(said)
        if isinstance(error, ResponseHandlingException):
            kind, told = type(error.source).__name__, self._plain(str(error.source))
            return StoreUnavailable(f"{self._where} cannot be reached: {kind} {told}".rstrip())
        if isinstance(error, ApiException | QdrantException):
            return StoreUnavailable(f"{self._where}: {self._plain(str(error))}")
        return None

    def _plain(self, text: str) -> str:
        text = text.replace(self._secret, "(key)") if self._secret else text
        return " ".join(text.split())[:500]

    async def aclose(self) -> None:
        """Close the client, if it was opened."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def is_absent(error: Exception) -> bool:
    """Whether an error says that there is no such collection. In-process clients say so with a `ValueError`."""
    from qdrant_client.http.exceptions import UnexpectedResponse

    if isinstance(error, UnexpectedResponse):
        return error.status_code == 404
    return isinstance(error, ValueError) and "not found" in str(error)


def is_present(error: Exception) -> bool:
    """Whether an error says that there is such a collection already."""
    from qdrant_client.http.exceptions import UnexpectedResponse

    if isinstance(error, UnexpectedResponse):
        return error.status_code == 409 or b"already exists" in error.content
    return isinstance(error, ValueError) and "already exists" in str(error)
