"""How a run's deltas become chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from queue_backends import (
    Ack,
    Backend,
    BackendUnavailable,
    Checkpoint,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Delivery,
    LogRecord,
    Task,
    TaskResult,
)
from queue_backends.batching import MOST_ITEMS
from worker.chunk_bounds import LONGEST_CHUNK_CHARS
from worker.metrics import WorkerMetrics
from worker.streaming import ROUNDS, ChunkPublisher, ChunkWriter


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


class SlowChunks:
    """A broker whose answers wait until the test lets them go; notes what was written, and what is under way."""

    def __init__(self) -> None:
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()
        self.under_way: list[list[str]] = []
        self.written: dict[str, str] = {}
        self.most_at_once = 0
        self.largest = 0

    async def publish(self, batches: Sequence[ChunkBatch]) -> list[Delivery]:
        """Write, and answer later."""
        ids = [batch.delivery.entry_id for batch in batches]
        assert not any(set(ids) & set(others) for others in self.under_way), "a run's chunks overtake each other"
        self.under_way.append(ids)
        self.most_at_once = max(self.most_at_once, len(self.under_way))
        self.largest = max(self.largest, len(ids))
        self.asked.set()
        if self.is_away:
            self.under_way.remove(ids)
            raise BackendUnavailable("away")
        await self.may_answer.wait()
        for batch in batches:
            texts = "".join(chunk.content for chunk in batch.chunks)
            self.written[batch.delivery.entry_id] = self.written.get(batch.delivery.entry_id, "") + texts
        self.under_way.remove(ids)
        return []


class SlowBackend:
    """As much of a backend as a publisher uses for chunks."""

    def __init__(self) -> None:
        self.chunks = SlowChunks()

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Write the chunks of each, as chunks alone are."""
        await self.chunks.publish([ChunkBatch(delivery=each.delivery, chunks=each.chunks) for each in checkpoints])
        return []


@pytest.fixture
async def slow() -> AsyncIterator[tuple[SlowChunks, ChunkPublisher]]:
    """A slow broker, and a publisher at work for it."""
    backend = SlowBackend()
    publisher = ChunkPublisher(cast("Backend", backend), WorkerMetrics())
    running = asyncio.create_task(publisher.run(), name="publishing")
    yield backend.chunks, publisher
    running.cancel()
    await asyncio.wait([running])


def writer_of(publisher: ChunkPublisher, number: int) -> ChunkWriter:
    """A run's writer."""
    return ChunkWriter(
        publisher, Delivery(task=Task(id=f"t{number}", prompt=""), entry_id=f"{number}-0", token="1/1/c")
    )


async def test_others_do_not_wait_for_a_round_trip(slow: tuple[SlowChunks, ChunkPublisher]) -> None:
    """While one run's chunks are on their way, another's are sent; those of the same run keep their order."""
    chunks, publisher = slow
    first, second = writer_of(publisher, 1), writer_of(publisher, 2)
    await first(ChunkType.CONTENT, "a")
    async with asyncio.timeout(5):
        await chunks.asked.wait()
        chunks.asked.clear()
        await first(ChunkType.CONTENT, "b")
        await second(ChunkType.CONTENT, "c")
        await chunks.asked.wait()
        assert chunks.under_way == [["1-0"], ["2-0"]]
        chunks.may_answer.set()
        while chunks.written != {"1-0": "ab", "2-0": "c"}:
            await asyncio.sleep(0)
    assert [await first.finish(), await second.finish()] == [(), ()]
    assert publisher.pending_chars == 0


async def test_many_runs_share_few_writes_of_bounded_size(slow: tuple[SlowChunks, ChunkPublisher]) -> None:
    """However many have something to say, a write has so many of them, and the rest follows without being woken."""
    chunks, publisher = slow
    writers = [writer_of(publisher, number) for number in range(3 * MOST_ITEMS + 1)]
    for writer in writers:
        await writer(ChunkType.CONTENT, "x")
    async with asyncio.timeout(5):
        await chunks.asked.wait()
        chunks.may_answer.set()
        while len(chunks.written) < len(writers):
            await asyncio.sleep(0)
    assert set(chunks.written.values()) == {"x"}
    assert (chunks.largest, chunks.most_at_once) == (MOST_ITEMS, ROUNDS)


async def test_a_run_ends_after_what_is_on_its_way(slow: tuple[SlowChunks, ChunkPublisher]) -> None:
    """Its last words are taken only when nothing of it can come after them."""
    chunks, publisher = slow
    writer = writer_of(publisher, 1)
    await writer(ChunkType.CONTENT, "a")
    async with asyncio.timeout(5):
        await chunks.asked.wait()
        await writer(ChunkType.CONTENT, "b")
        ending = asyncio.create_task(writer.finish())
        await asyncio.sleep(0)
        assert not ending.done()
        chunks.may_answer.set()
        assert [draft.content for draft in await ending] == ["b"]
    assert chunks.written == {"1-0": "a"}


async def test_a_step_is_stored_after_what_is_on_its_way(slow: tuple[SlowChunks, ChunkPublisher]) -> None:
    """A checkpoint follows the chunks that were sent before it, and takes those with it that were said meanwhile."""
    chunks, publisher = slow
    writer = writer_of(publisher, 1)
    await writer(ChunkType.CONTENT, "a")
    async with asyncio.timeout(5):
        await chunks.asked.wait()
        await writer(ChunkType.CONTENT, "b")
        writer.note(LogRecord(log="journal/t1", id="1", value=b"{}", keep_s=60))
        storing = asyncio.create_task(writer.store())
        for _ in range(20):
            await asyncio.sleep(0)
        assert (storing.done(), chunks.under_way) == (False, [["1-0"]])
        chunks.may_answer.set()
        await storing
    assert chunks.written == {"1-0": "ab"}
    assert not writer.has_news


async def test_a_broker_that_is_away_for_a_while(slow: tuple[SlowChunks, ChunkPublisher]) -> None:
    """All rounds wait for it; then each run's chunks are there once, in order, whatever was said meanwhile."""
    chunks, publisher = slow
    chunks.is_away = True
    chunks.may_answer.set()
    writers = [writer_of(publisher, number) for number in range(3 * ROUNDS)]
    async with asyncio.timeout(10):
        for writer in writers:
            await writer(ChunkType.CONTENT, "a")
            await chunks.asked.wait()
            await writer(ChunkType.CONTENT, "b")
        chunks.is_away = False
        while list(chunks.written.values()) != ["ab"] * len(writers):
            await asyncio.sleep(0)
    assert [await writer.finish() for writer in writers] == [()] * len(writers)
    assert publisher.pending_chars == 0


async def test_two_rounds_that_are_cut_short_leave_nobody_waiting(slow: tuple[SlowChunks, ChunkPublisher]) -> None:
    """When the worker ends at once, runs whose chunks are on their way end, too."""
    chunks, publisher = slow
    writers = [writer_of(publisher, number) for number in range(ROUNDS)]
    async with asyncio.timeout(5):
        for writer in writers:
            chunks.asked.clear()
            await writer(ChunkType.CONTENT, "a")
            await chunks.asked.wait()
        endings = [asyncio.create_task(writer.finish()) for writer in writers]
        await asyncio.sleep(0)
        (publishing,) = [task for task in asyncio.all_tasks() if task.get_name() == "publishing"]
        publishing.cancel()
        assert await asyncio.gather(*endings) == [()] * ROUNDS
    assert publisher.pending_chars == 0
