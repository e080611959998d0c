"""What is the embedded store's alone: writers that die half-way, and what is left in the state store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import numpy as np
import pytest

from queue_backends import BackendUnavailable, StateStore, open_backend
from tests.datasources.test_vector_stores import document, vector
from worker.datasources.embedded import EmbeddedStore, index
from worker.datasources.embedded.matrix import IN_LOOP, Matrix

WRITES = ("set", "delete", "compare_and_set")
SIZE = 8


class Failing:
    """A state store whose writes fail from a certain one on, as those of a process that dies there."""

    def __init__(self, state: StateStore, after: int) -> None:
        self._state = state
        self._left = after
        self.has_failed = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._state, name)
        if name not in WRITES:
            return found

        async def write(*arguments: Any, **options: Any) -> Any:
            if self._left == 0:
                self.has_failed = True
                raise BackendUnavailable("gone")
            self._left -= 1
            return await found(*arguments, **options)

        return write


@pytest.fixture
async def state() -> AsyncIterator[StateStore]:
    """A state store in memory."""
    async with await open_backend("memory://") as backend:
        yield backend.state


async def parts(state: StateStore) -> set[str]:
    """The keys of all passages."""
    return {key async for key, _ in state.scan("vectors/1/p/")}


@pytest.mark.parametrize("after", range(14))
async def test_a_writer_that_dies(state: StateStore, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Wherever it dies: others read whole documents, the same write succeeds later, and nothing is left over."""
    before, reader = EmbeddedStore(state, "1"), EmbeddedStore(state, "1")
    await before.put([document("a", SIZE), document("b", SIZE)])
    await reader.search(vector("x", SIZE), limit=1)
    failing: Any = Failing(state, after)
    dying = EmbeddedStore(failing, "1")

    new = [document("a", SIZE, edition=1, passages=2), document("c", SIZE, edition=1)]
    try:
        await dying.put(new)
        await dying.delete(["b"])
    except BackendUnavailable:
        assert failing.has_failed

    for store in (reader, EmbeddedStore(state, "1")):
        found = await store.search(vector("x", SIZE), limit=20)
        editions: dict[str, set[str]] = {}
        for passage in found:
            editions.setdefault(passage.metadata["document"], set()).add(passage.content.split(" ")[1])
        assert editions["a"] in ({"0"}, {"1"})
        assert (await store.size()).passages == len(found)

    monkeypatch.setattr(index, "ABANDONED_S", -1.0)
    after_it = EmbeddedStore(state, "1")
    await after_it.put(new)
    await after_it.delete(["b"])
    assert {passage.content for passage in await reader.search(vector("x", SIZE), limit=20)} == {
        f"{name} 1 {number} — żółw" for name, count in (("a", 2), ("c", 3)) for number in range(count)
    }
    await after_it.put([document("d", SIZE)])
    await after_it.delete(["a", "c", "d"])
    assert await parts(state) == set()


async def test_a_long_way_of_small_changes(state: StateStore) -> None:
    """Memory and store grow with what there is, not with what there was."""
    writer, reader = EmbeddedStore(state, "1"), EmbeddedStore(state, "1")
    for edition in range(150):
        await writer.put([document("a", SIZE, edition=edition), document(f"b{edition % 5}", SIZE, edition=edition)])
        found = await reader.search(vector(("a", edition, 1), SIZE), limit=1)
        assert found[0].content == f"a {edition} 1 — żółw"
    assert len(await parts(state)) == 2 * 6
    assert (await reader.size()).passages == 18


class Gated:
    """A state store that gives out one value only when it is told to."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self.key = ""
        self.is_waited_for = asyncio.Event()
        self.gate = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    async def get(self, key: str) -> bytes | None:
        """As the store's own."""
        if self.key and key.endswith(self.key):
            self.is_waited_for.set()
            await self.gate.wait()
        return await self._state.get(key)


async def test_a_document_is_replaced_while_others_are_read(state: StateStore) -> None:
    """Old vectors never go with new texts: the search that finds them looks again."""
    writer, gated = EmbeddedStore(state, "1"), Gated(state)
    reader = EmbeddedStore(cast("StateStore", gated), "1")
    await writer.put([document("a", SIZE, passages=5), document("z", SIZE)])
    await writer.size()
    gated.key = writer._index.documents["z"].place.vectors(0)

    searching = asyncio.create_task(reader.search(vector(("a", 0, 4), SIZE), limit=1))
    await asyncio.wait_for(gated.is_waited_for.wait(), 30)
    await writer.put([document("a", SIZE, edition=1, passages=1)])
    assert (await reader.size()).passages == 4
    gated.gate.set()

    (found,) = await asyncio.wait_for(searching, 30)
    assert found.content != "a 0 4 — żółw"
    again = await reader.search(vector(("a", 1, 0), SIZE), limit=1)
    assert again[0].content == "a 1 0 — żółw"


async def test_a_search_beside_the_loop() -> None:
    """Large ones run in a thread, on the rows as they were: what is put meanwhile does not confuse them."""
    rng = np.random.default_rng(7)
    matrix = Matrix(100)
    await matrix.reserve(2 * IN_LOOP // 100)
    rows = rng.normal(size=(IN_LOOP // 100 + 50, 100)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for number in range(0, len(rows), 50):
        matrix.put(f"d{number // 50}", rows[number : number + 50])
    (found,) = await matrix.search(rows[777], limit=1, threshold=0.0, documents=None)
    assert (found.document, found.passage) == ("d15", 27)

    matrix.remove("d15")
    (other,) = await matrix.search(rows[777], limit=1, threshold=0.0, documents=None)
    assert other.document != "d15"
    await matrix.reserve(3 * IN_LOOP // 100)  # moves all rows
    matrix.put("late", rows[777:778])
    (found,) = await matrix.search(rows[777], limit=1, threshold=0.0, documents=["d1", "late"])
    assert (found.document, found.passage) == ("late", 0)
    (found,) = await matrix.search(rows[900], limit=1, threshold=0.0, documents=None)
    assert (found.document, found.passage) == ("d18", 0)
    assert len(matrix) == len(rows) - 49
