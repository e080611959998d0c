"""The two collections of a data source: made when first needed, for vectors of one length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.datasources.embedded.index import wrong_dimensions
from worker.datasources.errors import BadVectorStore
from worker.datasources.qdrant.connection import is_absent, is_present

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

MOST_DIMENSIONS = 65_535
"""What the server takes."""
_KEYWORDS = ("document", "edition", "tags")


class Collections:
    """Their names, and what has to be there before points can be."""

    def __init__(self, name: str) -> None:
        self.passages = name
        self.documents = f"{name}-documents"

    async def dimensions(self, client: AsyncQdrantClient) -> int:
        """Of the vectors; 0: there are none yet."""
        from qdrant_client.models import VectorParams

        try:
            found = (await client.get_collection(self.passages)).config.params.vectors
        except Exception as error:
            if is_absent(error):
                return 0
            raise
        if not isinstance(found, VectorParams):
            raise BadVectorStore(f"collection {self.passages} is not one of this program: name another one")
        return found.size

    async def prepare(self, client: AsyncQdrantClient, dimensions: int) -> None:
        """Have the collections ready for vectors of this length (0: there are none). Raises `BadVectorStore`."""
        if dimensions > MOST_DIMENSIONS:
            raise BadVectorStore(f"vectors have {dimensions} numbers, and Qdrant takes at most {MOST_DIMENSIONS}")
        if dimensions:
            if not await self.dimensions(client):
                await self._make_passages(client, dimensions)
            if (present := await self.dimensions(client)) != dimensions:
                raise BadVectorStore(wrong_dimensions(dimensions, present))
        if not await client.collection_exists(self.documents):
            await self._make_documents(client)

    async def _make_passages(self, client: AsyncQdrantClient, dimensions: int) -> None:
        from qdrant_client.models import Distance, PayloadSchemaType, VectorParams

        vectors = VectorParams(size=dimensions, distance=Distance.COSINE)
        try:
            await client.create_collection(self.passages, vectors_config=vectors)
        except Exception as error:
            if not is_present(error):  # else another process was faster
                raise
        for field in _KEYWORDS:
            await client.create_payload_index(self.passages, field, PayloadSchemaType.KEYWORD, wait=True)

    async def _make_documents(self, client: AsyncQdrantClient) -> None:
        from qdrant_client.models import Distance, VectorParams

        try:
            await client.create_collection(self.documents, vectors_config=VectorParams(size=1, distance=Distance.DOT))
        except Exception as error:
            if not is_present(error):
                raise

    async def drop(self, client: AsyncQdrantClient) -> None:
        """Delete both; without their documents passages do not count."""
        for name in (self.documents, self.passages):
            try:
                await client.delete_collection(name)
            except Exception as error:
                if not is_absent(error):
                    raise
