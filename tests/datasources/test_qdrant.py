"""What is Qdrant's alone: its options, its errors, what writers leave behind, and what goes over HTTP."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from qdrant_client import AsyncQdrantClient, models

from queue_backends import open_backend
from tests.datasources.qdrant_in_process import InProcess, in_process, on_client
from tests.datasources.qdrant_over_http import over_http
from tests.datasources.test_vector_stores import QDRANT_IN_PROCESS, document, vector
from worker.datasources import (
    BadVectorStore,
    Datasource,
    PassageFilter,
    StoreSize,
    StoreUnavailable,
    VectorStore,
    registry,
)
from worker.datasources.model import check_datasource
from worker.datasources.qdrant.connection import Connection
from worker.datasources.qdrant.store import QdrantStore
from worker.objects.errors import BadObject

KEY = "hunter2"
pytestmark = QDRANT_IN_PROCESS


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., VectorStore]]:
    """Opens a store with these options."""
    async with await open_backend("memory://") as backend:

        def made(**options: str) -> VectorStore:
            source = Datasource(slug="docs", store="qdrant", options=options)
            environ = {"URL": "http://127.0.0.1:1", "KEY": KEY}
            return registry.create(
                registry.StoreContext(datasource=source, collection="1", state=backend.state, environ=environ)
            )

        yield made


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "SHOAL_QDRANT_URL, which is not set"),
        ({"url_env": "NONE"}, "variable NONE, which is not set"),
        ({"url": "q:6333"}, "no URL of Qdrant"),
        ({"url": f"http://u:{KEY}@q"}, "no URL of Qdrant"),
        ({"url_env": "URL", "api_key_env": "NONE"}, "variable NONE, which is not set"),
        ({"url_env": "URL", "collection": "a/b"}, "options.collection is 'a/b'"),
        ({"url_env": "URL", "table": "t"}, "no options table"),
    ],
)
async def test_options_that_do_not_fit(
    opened: Callable[..., VectorStore], options: dict[str, str], problem: str
) -> None:
    """They are refused before anything is sent, without a secret."""
    with pytest.raises(BadVectorStore, match=problem) as raised:
        opened(**options)
    assert KEY not in str(raised.value)


def test_a_key_is_not_an_option() -> None:
    """Its variable's name is."""
    with pytest.raises(BadObject, match="api_key_env"):
        check_datasource(Datasource(slug="docs", store="qdrant", options={"api_key_env": "sk-123 456"}))


async def test_a_server_that_is_not_there(opened: Callable[..., VectorStore]) -> None:
    """Waiting may help; the error says where, and no key."""
    store = opened(url_env="URL", api_key_env="KEY")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 cannot be reached") as raised:
        await store.search(vector("x", 4), limit=1)
    assert KEY not in str(raised.value) + repr(store)
    await store.aclose()


@pytest.mark.parametrize(("status", "kind"), [(401, BadVectorStore), (503, StoreUnavailable), (429, StoreUnavailable)])
async def test_a_server_that_refuses(status: int, kind: type[Exception]) -> None:
    """What it says is told, without the key that it may repeat."""

    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"status": {"error": f"not with {request.headers['api-key']}"}})

    client = AsyncQdrantClient(
        url="http://q:6333",
        headers={"api-key": KEY},
        check_compatibility=False,
        transport=httpx.MockTransport(refuse),
    )
    store = QdrantStore(Connection(lambda: client, "Qdrant at q", secret=KEY), "docs")
    with pytest.raises(kind, match=f"Qdrant at q answers {status}") as raised:
        await store.put([document("a", 4)])
    assert "not with (key)" in str(raised.value)
    assert KEY not in str(raised.value)
    await store.aclose()


async def test_what_was_replaced_is_deleted() -> None:
    """Nothing of earlier editions stays, nor of documents that are gone."""
    client = in_process()
    store = on_client(client)
    for edition in range(3):
        await store.put([document("a", 4, edition=edition), document("b", 4, edition=edition)])
    await store.delete(["b"])
    assert (await client.count("docs")).count == 3


async def test_a_writer_that_died() -> None:
    """What it had written does not count; the next writer of the document deletes it, unless it may be at work yet."""
    client = in_process()
    store = on_client(client)
    await store.put([document("a", 4)])
    hour = 3600.0
    for name, made_at in (("dead", time.time() - 2 * hour), ("at work", time.time())):
        payload = {
            "document": "a",
            "tags": [],
            "edition": name,
            "made_at": made_at,
            "content": name,
            "metadata": {},
        }
        point = models.PointStruct(id=str(uuid.uuid4()), vector=vector(("a", 1, 0), 4), payload=payload)
        await client.upsert("docs", [point])
    found = await store.search(vector(("a", 1, 0), 4), limit=9)
    assert {passage.content[:3] for passage in found} == {"a 0"}
    assert await store.size() == StoreSize(documents=1, passages=3)

    await store.put([document("a", 4, edition=1)])

    points, _ = await client.scroll("docs", limit=9)
    left = sorted(str((point.payload or {})["content"]) for point in points)
    assert left == ["a 1 0 — żółw", "a 1 1 — żółw", "a 1 2 — żółw", "at work"]


async def test_somebody_elses_collection_is_left_alone() -> None:
    """One with named vectors is none of ours."""
    client = in_process()
    await client.create_collection("docs", {"v": models.VectorParams(size=4, distance=models.Distance.DOT)})
    with pytest.raises(BadVectorStore, match="not one of this program"):
        await on_client(client).put([document("a", 4)])
    assert await client.collection_exists("docs")


async def test_over_http() -> None:
    """Everything that is sent is what the server's API takes, as its client writes and reads it; with the key."""
    inner, keys = InProcess(":memory:"), set[str]()
    client = AsyncQdrantClient(
        url="http://q:6333",
        headers={"api-key": KEY},
        check_compatibility=False,
        transport=httpx.MockTransport(over_http(inner, keys)),
    )
    store = QdrantStore(Connection(lambda: client, "Qdrant at q", secret=KEY), "docs")
    assert await store.search(vector("x", 4), limit=3) == []
    assert await store.documents() == []
    assert await store.delete(["a"]) == 0
    await store.put([document("a/1", 4, metadata={"lang": "en"}), document("b", 4)])
    await store.put([document("b", 4, edition=1, passages=2)])
    with pytest.raises(BadVectorStore, match="has 5 numbers"):
        await store.put([document("c", 5)])
    (best, *_) = await store.search(vector(("b", 1, 1), 4), limit=3)
    assert (best.content, best.metadata["position"]) == ("b 1 1 — żółw", "1")
    for where in (PassageFilter(prefix="a/"), PassageFilter(metadata={"lang": "en"})):
        found = await store.search(vector("x", 4), limit=9, where=where)
        assert {passage.metadata["document"] for passage in found} == {"a/1"}
    assert [head.id if head else None for head in await store.heads(["b", "c"])] == ["b", None]
    assert [head.id for head in await store.documents(limit=9)] == ["a/1", "b"]
    assert await store.size() == StoreSize(documents=2, passages=5)
    assert (await inner.count("docs")).count == 5
    assert await store.delete(["b"]) == 1
    await store.drop()
    await store.drop()
    assert keys == {KEY}
    await store.aclose()
