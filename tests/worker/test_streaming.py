"""How a run's deltas become chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from queue_backends import Ack, Backend, ChunkDraft, ChunkType, Delivery, Task, TaskResult
from worker.metrics import WorkerMetrics
from worker.streaming import LONGEST_CHUNK_CHARS, ChunkPublisher, ChunkWriter


@pytest.fixture
async def delivery(backend: Backend) -> Delivery:
    """A task in hand."""
    await backend.queue.submit(Task(prompt="hi"))
    (pulled,) = await backend.queue.pull(1, 1)
    return pulled


@pytest.fixture
def writer(backend: Backend, delivery: Delivery) -> ChunkWriter:
    """A writer whose publisher does not run: what it takes stays until it is asked for."""
    return ChunkWriter(ChunkPublisher(backend, WorkerMetrics()), delivery)


@pytest.fixture
async def live_writer(backend: Backend, delivery: Delivery) -> AsyncIterator[ChunkWriter]:
    """A writer whose publisher runs."""
    publisher = ChunkPublisher(backend, WorkerMetrics())
    running = asyncio.create_task(publisher.run())
    yield ChunkWriter(publisher, delivery)
    running.cancel()
    await asyncio.wait([running])


async def test_text_of_one_turn_and_attempt_is_joined(writer: ChunkWriter) -> None:
    """Deltas that belong together become one chunk."""
    for text in ("a", "b", "c"):
        await writer(ChunkType.CONTENT, text)
    assert [draft.content for draft in await writer.finish()] == ["abc"]


async def test_text_is_not_joined_over_kinds_turns_or_attempts(writer: ChunkWriter) -> None:
    """Each chunk is of one kind, one turn and one attempt, in the order in which they came."""
    await writer(ChunkType.THINKING, "hm")
    await writer(ChunkType.CONTENT, "one")
    writer.attempt = 1
    await writer(ChunkType.CONTENT, "again")
    writer.turn = 1
    await writer(ChunkType.CONTENT, "two")
    await writer(ChunkType.TOOL_CALL, "t", {"id": "c"})
    await writer(ChunkType.CONTENT, "three")
    drafts = await writer.finish()
    assert [(draft.content, draft.turn, draft.attempt) for draft in drafts] == [
        ("hm", 0, 0),
        ("one", 0, 0),
        ("again", 0, 1),
        ("two", 1, 1),
        ("t", 1, 1),
        ("three", 1, 1),
    ]
    assert drafts[4].metadata == {"id": "c"}


async def test_long_text_is_split(writer: ChunkWriter) -> None:
    """No chunk is longer than the bound, and nothing is lost at the cuts."""
    text = "x" * (2 * LONGEST_CHUNK_CHARS + 7)
    await writer(ChunkType.CONTENT, text)
    drafts = await writer.finish()
    assert [len(draft.content) for draft in drafts] == [LONGEST_CHUNK_CHARS, LONGEST_CHUNK_CHARS, 7]


async def test_published_and_remaining_chunks_make_the_whole(
    backend: Backend, delivery: Delivery, live_writer: ChunkWriter
) -> None:
    """What was published and what is committed with the end follow each other without gap, whenever the end comes."""
    words = [f"word{number} " for number in range(200)]
    for number, word in enumerate(words):
        await live_writer(ChunkType.CONTENT, word)
        if number % 20 == 0:
            await asyncio.sleep(0)
    rest = await live_writer.finish()
    final = ChunkDraft(type=ChunkType.DONE, is_final=True)
    result = TaskResult(task_id=delivery.task.id, output="".join(words))
    assert await backend.commit([Ack(delivery=delivery, result=result, chunks=(*rest, final))]) == []
    chunks = [chunk async for chunk in backend.chunks.subscribe(delivery.task.id)]
    assert "".join(chunk.content for chunk in chunks) == "".join(words)
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))


async def test_writer_learns_that_its_lease_is_lost(
    backend: Backend, delivery: Delivery, live_writer: ChunkWriter
) -> None:
    """Chunks of a task that somebody else has are dropped, and later ones are not even kept."""
    await backend.queue.nack(delivery, "")
    await live_writer(ChunkType.CONTENT, "late")
    async with asyncio.timeout(5):
        while not live_writer.lost:
            await asyncio.sleep(0)
    await live_writer(ChunkType.CONTENT, "later")
    assert await live_writer.finish() == ()
