"""What every vector store promises, on each of those that are here. Each test sees the store as two processes do."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from queue_backends import open_backend
from tests.datasources.qdrant_in_process import in_process, on_client
from tests.postgresql_servers import PostgresqlServer
from worker.datasources import (
    BadVectorStore,
    Datasource,
    DocumentHead,
    NewDocument,
    NewPassage,
    PassageFilter,
    StoreSize,
    VectorStore,
    registry,
)

DIMENSIONS = 24
OpenStore = Callable[[], VectorStore]


QDRANT_IN_PROCESS = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.fixture(params=["embedded", "embedded on Valkey", "pgvector", pytest.param("qdrant", marks=QDRANT_IN_PROCESS)])
async def open_store(request: pytest.FixtureRequest) -> AsyncIterator[OpenStore]:
    """Opens the same collection again and again, as so many processes would."""
    kind, _, engine = request.param.partition(" on ")
    async with AsyncExitStack() as stack:
        url, options, environ = "memory://", {}, {}
        if engine:
            url = request.getfixturevalue("queue_url")
        if kind == "pgvector":
            server: PostgresqlServer = request.getfixturevalue("postgresql_server")
            environ = {"DATABASE": server.url()}
            options = {"url_env": "DATABASE", "table": f"t{random.randrange(10**9)}"}
        backend = await stack.enter_async_context(await open_backend(url))
        source = Datasource(slug="docs", store=kind, options=options)
        context = registry.StoreContext(datasource=source, collection="7-docs", state=backend.state, environ=environ)

        client = in_process() if kind == "qdrant" else None

        def opened() -> VectorStore:
            store = registry.create(context) if client is None else on_client(client)
            stack.push_async_callback(store.aclose)
            return store

        yield opened
        await opened().drop()


@pytest.fixture
def dimensions() -> int:
    """Of all vectors."""
    return DIMENSIONS


def vector(seed: object, dimensions: int) -> list[float]:
    """A direction of its own for each seed."""
    chance = random.Random(str(seed))
    return [chance.gauss(0, 1) for _ in range(dimensions)]


def document(
    name: str, dimensions: int, *, edition: int = 0, passages: int = 3, metadata: dict[str, str] | None = None
) -> NewDocument:
    """A document whose passages are called by its name, edition and number."""
    return NewDocument(
        head=DocumentHead(
            id=name,
            digest=f"{name}-{edition}",
            title=name.title(),
            metadata=metadata or {},
            passages=passages,
            chars=10 * passages,
            updated_at=1_700_000_000.5,
        ),
        passages=[
            NewPassage(
                content=f"{name} {edition} {number} — żółw",
                vector=vector((name, edition, number), dimensions),
                metadata={"document": name, "position": str(number)},
            )
            for number in range(passages)
        ],
    )


async def test_a_passage_is_found_by_its_vector(open_store: OpenStore, dimensions: int) -> None:
    """What one process stores another finds: text and metadata whole, the score a cosine, the best first."""
    writer, reader = open_store(), open_store()
    await writer.put([document(f"d{number}", dimensions) for number in range(12)])

    wanted = vector(("d7", 0, 2), dimensions)
    found = await reader.search([3 * number for number in wanted], limit=5)

    assert found[0].content == "d7 0 2 — żółw"
    assert found[0].metadata == {"document": "d7", "position": "2"}
    assert found[0].score == pytest.approx(1.0, abs=2e-3)
    assert [passage.score for passage in found] == sorted((passage.score for passage in found), reverse=True)
    assert len(found) == 5
    other = vector(("d1", 0, 0), dimensions)
    cosine = sum(a * b for a, b in zip(wanted, other, strict=True)) / math.hypot(*wanted) / math.hypot(*other)
    every = {passage.content: passage.score for passage in await reader.search(wanted, limit=36)}
    assert every["d1 0 0 — żółw"] == pytest.approx(cosine, abs=2e-3)


async def test_a_replaced_document_has_no_old_passages(open_store: OpenStore, dimensions: int) -> None:
    """Replacing is whole, and seen at once by a process that had read the old one."""
    writer, reader = open_store(), open_store()
    await writer.put([document("a", dimensions), document("b", dimensions)])
    assert len(await reader.search(vector(("a", 0, 0), dimensions), limit=10)) == 6

    await writer.put([document("a", dimensions, edition=1, passages=2)])

    found = await reader.search(vector(("a", 0, 0), dimensions), limit=10)
    assert {passage.content.rsplit(" ", 2)[0] for passage in found if passage.metadata["document"] == "a"} == {
        "a 1 0",
        "a 1 1",
    }
    assert await reader.size() == StoreSize(documents=2, passages=5)
    (head,) = await reader.heads(["a"])
    assert head is not None
    assert (head.digest, head.title, head.chars, head.updated_at) == ("a-1", "A", 20, 1_700_000_000.5)


async def test_deleted_documents_are_gone(open_store: OpenStore, dimensions: int) -> None:
    """Deleting counts what was there, and nothing of it is found or listed any more."""
    writer, reader = open_store(), open_store()
    await writer.put([document(name, dimensions) for name in "abc"])
    await reader.search(vector("x", dimensions), limit=1)

    assert await writer.delete(["a", "nobody", "c", "a"]) == 2

    assert {passage.metadata["document"] for passage in await reader.search(vector("x", dimensions), limit=9)} == {"b"}
    assert [head.id if head else None for head in await reader.heads(["a", "b", "c"])] == [None, "b", None]
    assert await writer.delete(["a"]) == 0


async def test_a_threshold_and_filters_leave_out(open_store: OpenStore, dimensions: int) -> None:
    """A threshold of 0 keeps all, one above it the near ones; filters go by the document's id and metadata."""
    store = open_store()
    await store.put(
        [
            document("guide/a_b", dimensions, metadata={"lang": "en", "kind": "guide"}),
            document("guide/axb", dimensions, metadata={"lang": "de"}),
            document("other", dimensions, metadata={"lang": "en"}),
        ]
    )
    wanted = vector(("guide/a_b", 0, 1), dimensions)

    async def names(**how: object) -> set[str]:
        found = await store.search(wanted, limit=20, **how)  # type: ignore[arg-type]  # each test's own choice
        return {passage.metadata["document"] for passage in found}

    assert len(await store.search(wanted, limit=20, threshold=0.0)) == 9
    assert [passage.content for passage in await store.search(wanted, limit=20, threshold=0.95)] == [
        "guide/a_b 0 1 — żółw"
    ]
    assert await names(where=PassageFilter(prefix="guide/")) == {"guide/a_b", "guide/axb"}
    assert await names(where=PassageFilter(prefix="guide/a_")) == {"guide/a_b"}
    assert await names(where=PassageFilter(metadata={"lang": "en"})) == {"guide/a_b", "other"}
    assert await names(where=PassageFilter(metadata={"lang": "en", "kind": "guide"})) == {"guide/a_b"}
    assert await names(where=PassageFilter(prefix="%")) == set()


async def test_a_filter_finds_the_few_that_fit(open_store: OpenStore, dimensions: int) -> None:
    """Also where hundreds of others are nearer than those that fit."""
    store = open_store()
    await store.put([document(f"far{number}", dimensions, passages=40) for number in range(8)])
    await store.put([document("chosen", dimensions, passages=2, metadata={"pick": "me"})])
    opposite = [-number for number in vector(("chosen", 0, 0), dimensions)]
    found = await store.search(opposite, limit=5, where=PassageFilter(metadata={"pick": "me"}))
    assert {passage.metadata["document"] for passage in found} == {"chosen"}
    assert len(found) == 2


async def test_documents_are_listed_in_pages(open_store: OpenStore, dimensions: int) -> None:
    """By id, as code points sort; `after` goes on, `prefix` chooses."""
    store = open_store()
    names = ["B", "a", "a/1", "a/2", "b", "é", "\U0001f600"]
    await store.put([document(name, dimensions, passages=1) for name in reversed(names)])

    first = await store.documents(limit=4)
    rest = await store.documents(after=first[-1].id, limit=4)

    assert [head.id for head in (*first, *rest)] == sorted(names)
    assert [head.id for head in await store.documents(prefix="a/")] == ["a/1", "a/2"]
    assert await store.documents(prefix="nothing") == []


async def test_vectors_of_another_length_are_refused(open_store: OpenStore, dimensions: int) -> None:
    """As document, with nothing stored, and as question; after `drop` they may come."""
    store = open_store()
    await store.put([document("a", dimensions)])
    with pytest.raises(BadVectorStore, match=f"has 5 numbers, and those that are stored have {dimensions}"):
        await store.put([document("b", 5)])
    with pytest.raises(BadVectorStore, match="has 5 numbers"):
        await store.search(vector("x", 5), limit=1)
    assert await store.heads(["b"]) == [None]

    await store.drop()
    assert await store.size() == StoreSize()
    assert await store.search(vector("x", 5), limit=1) == []
    await store.put([document("b", 5)])
    assert len(await open_store().search(vector("x", 5), limit=9)) == 3


async def test_no_vector_that_is_none(open_store: OpenStore, dimensions: int) -> None:
    """A vector with NaN in it is refused, a passage without any direction is stored, and found last or not at all."""
    store = open_store()
    broken = NewDocument(
        head=DocumentHead(id="n", passages=1), passages=[NewPassage(content="n", vector=[math.nan] * dimensions)]
    )
    with pytest.raises(BadVectorStore, match="not finite"):
        await store.put([broken])
    blank = NewDocument(
        head=DocumentHead(id="z", passages=1), passages=[NewPassage(content="z", vector=[0.0] * dimensions)]
    )
    await store.put([blank, document("a", dimensions)])
    found = await store.search(vector(("a", 0, 0), dimensions), limit=9, threshold=0.5)
    assert [passage.metadata.get("document") for passage in found] == ["a"]


async def test_an_empty_store(open_store: OpenStore, dimensions: int) -> None:
    """Everything can be asked of it, and nothing is there; nothing can be put and deleted."""
    store = open_store()
    assert await store.search(vector("x", dimensions), limit=3) == []
    assert await store.documents() == []
    assert await store.size() == StoreSize()
    assert await store.heads(["a"]) == [None]
    assert await store.delete(["a"]) == 0
    await store.drop()
    await store.put([])
    assert await store.heads([]) == []


async def test_a_document_without_text(open_store: OpenStore, dimensions: int) -> None:
    """It is listed, and never found."""
    store = open_store()
    await store.put([document("a", dimensions), document("empty", dimensions, passages=0)])
    assert await store.size() == StoreSize(documents=2, passages=3)
    await store.put([document("a", dimensions, edition=1, passages=0)])
    assert await store.search(vector("x", dimensions), limit=3) == []


async def test_writers_at_the_same_time(open_store: OpenStore, dimensions: int) -> None:
    """Many processes write different and the same documents at once: each ends whole, in one edition or another."""
    stores = [open_store() for _ in range(4)]
    await stores[0].put([document("shared", dimensions)])

    async def write(number: int) -> None:
        for edition in range(3):
            names = ["shared", f"own{number}"] if number % 2 else [f"own{number}", "shared"]
            await stores[number].put([document(name, dimensions, edition=10 * number + edition) for name in names])

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(write(number))

    for store in (*stores, open_store()):
        assert await store.size() == StoreSize(documents=5, passages=15)
        found = await store.search(vector("x", dimensions), limit=50)
        editions: dict[str, set[str]] = {}
        for passage in found:
            editions.setdefault(passage.metadata["document"], set()).add(passage.content.split(" ")[1])
        assert len(found) == 15
        assert {name: len(seen) for name, seen in editions.items()} == dict.fromkeys(editions, 1)
        assert all(editions[f"own{number}"] == {str(10 * number + 2)} for number in range(4))


async def test_a_large_document(open_store: OpenStore, dimensions: int) -> None:
    """Its vectors and texts are larger than any one value of the state store may be."""
    store = open_store()
    count = 500
    big = document("big", dimensions, passages=count)
    long = [
        NewPassage(content=each.content + "x" * 2000, vector=each.vector, metadata=each.metadata)
        for each in big.passages
    ]
    await store.put([NewDocument(head=big.head, passages=long)])
    for number in (0, count // 2, count - 1):
        (found,) = await open_store().search(vector(("big", 0, number), dimensions), limit=1)
        assert found.content.startswith(f"big 0 {number} ")
        assert len(found.content) > 2000
