"""These tests use arq's own client and worker. arq pins an older redis-py than the rest of the project is tested with,
so they have an environment of their own (`make test` sees to it); elsewhere they are not collected."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from queue_backends import Backend, BackendOptions
from queue_backends.arq import deserializer, serializer
from queue_backends.arq import open_backend as open_arq
from tests.servers import Server

if TYPE_CHECKING:
    from arq import ArqRedis

collect_ignore_glob = [] if importlib.util.find_spec("arq") else ["test_*.py"]


@pytest.fixture
def arq_queue() -> str:
    """The name of a queue that no other test uses."""
    return f"arq:t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def arq_url(valkey_server: Server, arq_queue: str) -> str:
    """A fresh queue on the shared server."""
    return f"arq+{valkey_server.url()}?queue={arq_queue}&poll_ms=50"


@pytest.fixture
async def backend(arq_url: str) -> AsyncIterator[Backend]:
    """Shoal's side of it."""
    async with await open_arq(arq_url, BackendOptions()) as opened:
        yield opened


@pytest.fixture
async def pool(valkey_server: Server, arq_queue: str) -> AsyncIterator[ArqRedis]:
    """The engine's side: arq's own client, as its documentation has it, with our serializers."""
    from arq import create_pool
    from arq.connections import RedisSettings

    opened = await create_pool(
        RedisSettings.from_dsn(valkey_server.url()),
        job_serializer=serializer,
        job_deserializer=deserializer,
        default_queue_name=arq_queue,
    )
    yield opened
    await opened.aclose()
