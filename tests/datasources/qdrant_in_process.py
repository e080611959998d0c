"""Qdrant's own client in the mode in which it is its server, too: in memory, exact, and in one process."""

from __future__ import annotations

import asyncio
from typing import Any

from qdrant_client import AsyncQdrantClient

from worker.datasources.qdrant.connection import Connection
from worker.datasources.qdrant.store import QdrantStore


class InProcess(AsyncQdrantClient):
    """What several stores share outlives each of them. Others come in between, as with a server."""

    async def upsert(self, *args: Any, **named: Any) -> Any:
        """As the client's."""
        await asyncio.sleep(0)
        return await super().upsert(*args, **named)

    async def delete(self, *args: Any, **named: Any) -> Any:
        """As the client's."""
        await asyncio.sleep(0)
        return await super().delete(*args, **named)

    async def retrieve(self, *args: Any, **named: Any) -> Any:
        """As the client's."""
        await asyncio.sleep(0)
        return await super().retrieve(*args, **named)

    async def get_collection(self, *args: Any, **named: Any) -> Any:
        """As the client's."""
        await asyncio.sleep(0)
        return await super().get_collection(*args, **named)

    async def close(self, grpc_grace: float | None = None, **kwargs: Any) -> None:
        """Its memory goes with it."""


def in_process() -> InProcess:
    """An empty one."""
    return InProcess(":memory:")


def on_client(client: AsyncQdrantClient, name: str = "docs") -> QdrantStore:
    """A store as one process has it."""
    return QdrantStore(Connection(lambda: client, "Qdrant in memory"), name)
