"""`ChunkStream`: how much of a stream is kept, and what is too much for one chunk."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from queue_backends.conformance.support import (
    FINAL,
    SHORT_LEASE_S,
    Conformance,
    OpenBackend,
    all_chunks,
    assert_numbered,
    background,
    contents,
    done,
    finish_stream,
    iterating,
    publish,
    pull_one,
    pull_some,
    submit,
    text,
    within,
)
from queue_backends.errors import ChunkTooLarge, ReplayTrimmed
from queue_backends.interfaces import Ack, Backend, BackendOptions, Checkpoint, ChunkBatch, Delivery, Retry
from queue_backends.messages import MAX_CHUNK_CHARS, Chunk, ChunkDraft, ChunkType, Task

CAP_BYTES = 100_000
PIECE = "x" * 2_000
CAPPED = BackendOptions(chunk_bytes=CAP_BYTES)


async def _running(backend: Backend) -> Delivery:
    await submit(backend)
    return await pull_one(backend)


async def _kept(backend: Backend, task_id: str) -> list[Chunk]:
    """What a late consumer still gets of a stream that has lost its beginning."""
    with pytest.raises(ReplayTrimmed) as caught:
        await all_chunks(backend, task_id)
    return await all_chunks(backend, task_id, after_seq=caught.value.first_seq - 1)


def _size(chunks: Sequence[Chunk]) -> int:
    return sum(len(chunk.content.encode()) for chunk in chunks)


class ChunkBoundsConformance(Conformance):
    """Every bound of `ChunkStream`."""

    @pytest.mark.parametrize("piece", [PIECE, "ü🌍" * 500, "\x00" * 400], ids=["ascii", "unicode", "escaped"])
    async def test_the_replay_is_capped_in_bytes(self, open_backend: OpenBackend, piece: str) -> None:
        """Beyond `chunk_bytes` the oldest chunks go, and asking for them says which one is the first that is kept."""
        backend = await open_backend(CAPPED)
        delivery = await _running(backend)
        for _ in range(100):
            await publish(backend, delivery, *(text(piece) for _ in range(5)))
        await publish(backend, delivery, FINAL)
        kept = await _kept(backend, delivery.task.id)
        assert_numbered(kept, first=kept[0].seq)
        assert kept[-1].seq == 500
        weight = CAP_BYTES if len(piece) != 400 else CAP_BYTES // 6
        assert 0.6 * weight < _size(kept) < 1.3 * weight

    async def test_who_keeps_up_misses_nothing(self, open_backend: OpenBackend) -> None:
        """A live consumer gets all of a stream of which a small part is kept."""
        worker, consumer = await open_backend(CAPPED), await open_backend(CAPPED)
        delivery = await _running(worker)
        seen = 0
        async with iterating(consumer.chunks.subscribe(delivery.task.id)) as stream:
            for _ in range(50):
                await publish(worker, delivery, *(text(PIECE) for _ in range(5)))
                for _ in range(5):
                    assert (await within(anext(stream))).seq == seen
                    seen += 1
            await publish(worker, delivery, FINAL)
            assert (await within(anext(stream))).is_final

    async def test_the_newest_chunk_is_always_kept(self, open_backend: OpenBackend) -> None:
        """One chunk that is larger than the cap can be replayed all the same."""
        backend = await open_backend(BackendOptions(chunk_bytes=1000))
        delivery = await _running(backend)
        for _ in range(3):
            await publish(backend, delivery, text(PIECE))
        await publish(backend, delivery, ChunkDraft(type=ChunkType.ERROR, content=PIECE, is_final=True))
        kept = await _kept(backend, delivery.task.id)
        assert kept[-1].content == PIECE
        assert len(kept) <= 2

    async def test_the_cap_holds_over_owners(self, open_backend: OpenBackend) -> None:
        """What a former owner and a former attempt have written counts, too."""
        options = BackendOptions(chunk_bytes=CAP_BYTES, lease_s=SHORT_LEASE_S)
        former, present = await open_backend(options), await open_backend(options)
        delivery = await _running(former)
        await publish(former, delivery, *(text(PIECE) for _ in range(40)))
        for _ in range(5):
            delivery = await pull_one(present)
            ends = Retry(delivery=delivery, error="x", chunks=tuple(text(PIECE) for _ in range(40)))
            assert await present.commit([ends]) == []
        delivery = await pull_one(present)
        await publish(present, delivery, text("last"))
        kept = await _kept_unfinished(present, delivery)
        assert_numbered(kept, first=kept[0].seq)
        assert _size(kept) < 2 * CAP_BYTES

    async def test_checkpoints_count(self, open_backend: OpenBackend) -> None:
        """Chunks that are stored with a run's progress are capped as others are."""
        backend = await open_backend(CAPPED)
        delivery = await _running(backend)
        for _ in range(100):
            step = Checkpoint(delivery=delivery, chunks=tuple(text(PIECE) for _ in range(5)))
            assert await backend.commit([step]) == []
        kept = await _kept_unfinished(backend, delivery)
        assert_numbered(kept, first=kept[0].seq)
        assert kept[-1].seq == 500
        assert _size(kept) < 1.3 * CAP_BYTES

    async def test_a_slow_consumer_of_large_chunks(self, open_backend: OpenBackend) -> None:
        """A consumer that looks away while megabytes pass finds them all."""
        worker, consumer = await open_backend(), await open_backend()
        delivery = await _running(worker)
        async with iterating(consumer.chunks.subscribe(delivery.task.id)) as stream:
            await publish(worker, delivery, text("0"))
            chunks = [await within(anext(stream))]
            for _ in range(60):
                await publish(worker, delivery, *(text("y" * 100_000) for _ in range(2)))
            await publish(worker, delivery, FINAL)
            chunks += await within(_rest(stream))
        assert_numbered(chunks)
        assert _size(chunks) == 12_000_001

    async def test_a_chunk_that_is_too_large_is_refused(self, open_backend: OpenBackend) -> None:
        """Too much text, text that grows beyond the bound in JSON, and too much metadata: an error that says so, of the
        whole call nothing is written, and the stream goes on."""
        backend = await open_backend()
        delivery = await _running(backend)
        other = await _running(backend)
        large = (
            text("x" * MAX_CHUNK_CHARS),
            text("\x01" * (MAX_CHUNK_CHARS // 5)),
            ChunkDraft(type=ChunkType.TOOL_CALL, content="t", metadata={"arguments": ["y" * MAX_CHUNK_CHARS]}),
        )
        await publish(backend, delivery, text("a"))
        for draft in large:
            batches = [
                ChunkBatch(delivery=other, chunks=(text("b"),)),
                ChunkBatch(delivery=delivery, chunks=(text("c"), draft)),
            ]
            with pytest.raises(ChunkTooLarge, match=f"task {delivery.task.id} has \\d+ characters"):
                await backend.chunks.publish(batches)
        await publish(backend, delivery, text("d"))
        assert contents(await finish_stream(backend, delivery)) == ["a", "d"]
        assert contents(await finish_stream(backend, other)) == []

    async def test_a_result_with_a_chunk_that_is_too_large_is_refused(self, open_backend: OpenBackend) -> None:
        """The task is still its worker's, who can commit something smaller."""
        backend = await open_backend()
        delivery = await _running(backend)
        large = Ack(delivery=delivery, result=done(delivery), chunks=(text("x" * (MAX_CHUNK_CHARS + 1)), FINAL))
        with pytest.raises(ChunkTooLarge):
            await backend.commit([large])
        assert await backend.commit([Ack(delivery=delivery, result=done(delivery), chunks=(FINAL,))]) == []
        assert_numbered(await all_chunks(backend, delivery.task.id))

    async def test_the_largest_chunk(self, open_backend: OpenBackend) -> None:
        """Just below the bound everything goes through, live as well as replayed."""
        worker, consumer = await open_backend(), await open_backend()
        delivery = await _running(worker)
        content = "x" * (MAX_CHUNK_CHARS - 500)
        async with background(all_chunks(consumer, delivery.task.id)) as live:
            await publish(worker, delivery, text(content))
            replayed = await finish_stream(worker, delivery)
            for chunks in (await within(live), replayed):
                assert contents(chunks) == [content]

    async def test_each_stream_has_its_own_cap(self, open_backend: OpenBackend) -> None:
        """A task that says much takes nothing from one that says little."""
        backend = await open_backend(CAPPED)
        await backend.queue.submit_many([Task(prompt="loud"), Task(prompt="quiet")])
        loud, quiet = sorted(await pull_some(backend, 2), key=lambda delivery: delivery.task.prompt)
        await publish(backend, quiet, text("a"))
        for _ in range(60):
            await publish(backend, loud, *(text(PIECE) for _ in range(5)))
            await publish(backend, quiet, text("b"))
        assert contents(await finish_stream(backend, quiet)) == ["a", *["b"] * 60]


async def _kept_unfinished(backend: Backend, delivery: Delivery) -> list[Chunk]:
    await publish(backend, delivery, FINAL)
    return await _kept(backend, delivery.task.id)


async def _rest(stream: AsyncIterator[Chunk]) -> list[Chunk]:
    return [chunk async for chunk in stream]
