"""`ChunkStream`: every consumer sees every chunk, once, in order."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import asyncio

import pytest

from queue_backends.conformance.support import (
    FINAL,
    PATIENCE_S,
    SHORT_LEASE,
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
    unique,
    within,
)
from queue_backends.errors import ReplayTrimmed
from queue_backends.interfaces import Ack, Backend, BackendOptions, ChunkBatch, Delivery, Retry
from queue_backends.messages import Chunk, ChunkDraft, ChunkType, Task


async def _running(backend: Backend) -> Delivery:
    await submit(backend)
    return await pull_one(backend)


class ChunkConformance(Conformance):
    """Every promise of `ChunkStream`."""

    async def test_a_chunk_is_kept_whole(self, open_backend: OpenBackend) -> None:
        """Each field of each type of chunk comes out as it went in."""
        worker, consumer = await open_backend(), await open_backend()
        delivery = await _running(worker)
        metadata = {"id": "c-1", "arguments": {"a": [1, 2.5, None, True, "ü"]}, "": {}}
        drafts = [
            ChunkDraft(type=kind, content=f"this is {kind}", turn=3, attempt=2, metadata=metadata)
            for kind in ChunkType
            if kind not in (ChunkType.DONE, ChunkType.ERROR)
        ]
        drafts.append(ChunkDraft(type=ChunkType.ERROR, content="broken", turn=4, is_final=True))
        await publish(worker, delivery, *drafts)
        fields = ("type", "content", "turn", "attempt", "metadata", "is_final")
        assert await all_chunks(consumer, delivery.task.id) == [
            Chunk(task_id=delivery.task.id, seq=seq, **{name: getattr(draft, name) for name in fields})
            for seq, draft in enumerate(drafts)
        ]

    @pytest.mark.parametrize(
        "content", ['Grüße, 世界 🌍 \u2028\u0085\x00\x1f"\\', "\r\n\n", " ", "x" * 1_000_000, "🌍" * 250_000]
    )
    async def test_any_text_survives(self, open_backend: OpenBackend, content: str) -> None:
        """Text of any script and control character, and of a megabyte, live as well as replayed."""
        worker, consumer = await open_backend(), await open_backend()
        delivery = await _running(worker)
        async with background(all_chunks(consumer, delivery.task.id)) as live:
            await publish(worker, delivery, text("first"))
            await publish(worker, delivery, text(content))
            replayed = await finish_stream(worker, delivery)
            for chunks in (await within(live), replayed):
                assert chunks[1].content == content

    async def test_numbers_go_on_over_calls(self, open_backend: OpenBackend) -> None:
        """`seq` counts from 0 over several publishes and over several chunks in each."""
        backend = await open_backend()
        delivery = await _running(backend)
        for number in range(5):
            await publish(backend, delivery, *(text(f"{number}.{part}") for part in range(number)))
        chunks = await finish_stream(backend, delivery)
        assert_numbered(chunks)
        assert contents(chunks) == [f"{number}.{part}" for number in range(5) for part in range(number)]

    async def test_numbers_go_on_over_owners_and_attempts(self, open_backend: OpenBackend) -> None:
        """`seq` goes on when the task has another owner, another attempt, or ends in a commit."""
        former, present = await open_backend(SHORT_LEASE), await open_backend(SHORT_LEASE)
        lost = await _running(former)
        await publish(former, lost, text("a"), text("b"))
        held = await pull_one(present)
        await publish(present, held, text("c"))
        assert await present.commit([Retry(delivery=held, error="x", retry_in_s=0.05, chunks=(text("d"),))]) == []
        last = await pull_one(former)
        assert await former.queue.renew([last]) == []
        await publish(former, last, text("e"))
        ended = Ack(delivery=last, result=done(last), chunks=(text("f"), FINAL))
        assert await former.commit([ended]) == []
        chunks = await all_chunks(present, last.task.id)
        assert_numbered(chunks)
        assert contents(chunks) == ["a", "b", "c", "d", "e", "f"]

    async def test_a_released_task_goes_on(self, open_backend: OpenBackend) -> None:
        """A release in the moment of the delivery does not start the numbers anew."""
        backend = await open_backend()
        for _ in range(20):
            delivery = await _running(backend)
            await publish(backend, delivery, text("a"))
            await backend.queue.nack(delivery, "")
            delivery = await pull_one(backend)
            await publish(backend, delivery, text("b"))
            assert contents(await finish_stream(backend, delivery)) == ["a", "b"]
            await backend.queue.ack(delivery, done(delivery))

    async def test_subscribe_before_during_and_after(self, open_backend: OpenBackend) -> None:
        """It makes no difference when a consumer comes."""
        worker, consumer = await open_backend(), await open_backend()
        task_id = await submit(worker)
        async with background(all_chunks(consumer, task_id)) as before:
            delivery = await pull_one(worker)
            await publish(worker, delivery, *(text(str(number)) for number in range(10)))
            async with background(all_chunks(consumer, task_id)) as during:
                for number in range(10, 100):
                    await publish(worker, delivery, text(str(number)))
                await publish(worker, delivery, FINAL)
                streams = [await within(before), await within(during), await all_chunks(consumer, task_id)]
        for chunks in streams:
            assert_numbered(chunks)
            assert contents(chunks) == [str(number) for number in range(100)]

    async def test_replay_then_live(self, open_backend: OpenBackend) -> None:
        """A consumer that has seen what was kept gets what comes next."""
        worker, consumer = await open_backend(), await open_backend()
        delivery = await _running(worker)
        await publish(worker, delivery, text("kept"))
        async with iterating(consumer.chunks.subscribe(delivery.task.id)) as stream:
            assert (await within(anext(stream))).content == "kept"
            await publish(worker, delivery, text("live"))
            assert (await within(anext(stream))).content == "live"
            await publish(worker, delivery, FINAL)
            assert (await within(anext(stream))).is_final
            with pytest.raises(StopAsyncIteration):
                await within(anext(stream))

    async def test_after_the_final_chunk(self, open_backend: OpenBackend) -> None:
        """Whoever comes back after it had seen the end, as browsers do, is told at once that there is no more."""
        backend = await open_backend()
        await submit(backend)
        delivery = await pull_one(backend)
        await publish(backend, delivery, text("a"))
        chunks = await finish_stream(backend, delivery)
        for after_seq in (chunks[-1].seq, chunks[-1].seq + 7):
            assert await all_chunks(backend, delivery.task.id, after_seq=after_seq) == []

    @pytest.mark.parametrize("after_seq", [-1, 0, 4, 8])
    async def test_after_seq(self, open_backend: OpenBackend, after_seq: int) -> None:
        """A reconnecting consumer gets what it has not seen, and nothing twice, kept or live."""
        worker, consumer = await open_backend(), await open_backend()
        delivery = await _running(worker)
        await publish(worker, delivery, *(text(str(number)) for number in range(5)))
        async with background(all_chunks(consumer, delivery.task.id, after_seq=after_seq)) as live:
            await publish(worker, delivery, *(text(str(number)) for number in range(5, 9)), FINAL)
            for chunks in (await within(live), await all_chunks(consumer, delivery.task.id, after_seq=after_seq)):
                assert_numbered(chunks, first=after_seq + 1)
                assert chunks[-1].seq == 9

    async def test_many_subscribers_of_one_task(self, open_backend: OpenBackend) -> None:
        """All consumers of a task, in all processes, get all of it."""
        worker, one, other = [await open_backend() for _ in range(3)]
        task_id = await submit(worker)
        readers = [asyncio.ensure_future(all_chunks(each, task_id)) for each in (one, other, worker) * 5]
        try:
            delivery = await pull_one(worker)
            for number in range(20):
                await publish(worker, delivery, text(str(number)))
            await publish(worker, delivery, FINAL)
            for reader in readers:
                chunks = await within(reader)
                assert_numbered(chunks)
                assert len(chunks) == 21
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)

    async def test_many_tasks_at_once(self, open_backend: OpenBackend) -> None:
        """Chunks of many tasks in one call reach the consumers of each task, and only those."""
        worker, consumer = await open_backend(), await open_backend()
        ids = await worker.queue.submit_many([Task(prompt=str(number)) for number in range(40)])
        deliveries = await pull_some(worker, 40)
        async with background(asyncio.gather(*(all_chunks(consumer, task_id) for task_id in ids))) as streams:
            for number in range(5):
                batches = [
                    ChunkBatch(delivery=each, chunks=(text(f"{each.task.prompt}.{number}"),)) for each in deliveries
                ]
                assert await worker.chunks.publish(batches) == []
            await worker.chunks.publish([ChunkBatch(delivery=each, chunks=(FINAL,)) for each in deliveries])
            for position, chunks in enumerate(await within(streams)):
                assert_numbered(chunks)
                assert {chunk.task_id for chunk in chunks} == {ids[position]}
                assert contents(chunks) == [f"{position}.{number}" for number in range(5)]

    async def test_a_slow_consumer_loses_nothing(self, open_backend: OpenBackend) -> None:
        """A consumer that looks away while thousands of chunks pass finds them all."""
        worker, consumer = await open_backend(), await open_backend()
        delivery = await _running(worker)
        async with iterating(consumer.chunks.subscribe(delivery.task.id)) as stream:
            await publish(worker, delivery, text("0"))
            chunks = [await within(anext(stream))]
            for start in range(1, 3001, 100):
                await publish(worker, delivery, *(text(str(number)) for number in range(start, start + 100)))
            await publish(worker, delivery, FINAL)
            async with asyncio.timeout(PATIENCE_S):
                chunks += [chunk async for chunk in stream]
        assert_numbered(chunks)
        assert len(chunks) == 3002

    async def test_nothing_to_publish(self, open_backend: OpenBackend) -> None:
        """No batches in, no lost ones out."""
        backend = await open_backend()
        assert await backend.chunks.publish([]) == []

    async def test_an_end_alone_writes_no_chunks(self, open_backend: OpenBackend) -> None:
        """Ack and nack leave the stream to who commits: there is one final chunk, the one that was published."""
        backend = await open_backend()
        delivery = await _running(backend)
        await backend.queue.nack(delivery, "x", retry_in_s=0)
        delivery = await pull_one(backend)
        await publish(backend, delivery, text("a"), FINAL)
        await backend.queue.ack(delivery, done(delivery))
        chunks = await all_chunks(backend, delivery.task.id)
        assert [(chunk.seq, chunk.is_final) for chunk in chunks] == [(0, False), (1, True)]
        assert [chunk.is_final for chunk in await all_chunks(backend, delivery.task.id, after_seq=0)] == [True]

    async def test_trimmed_chunks_are_missed_aloud(self, open_backend: OpenBackend) -> None:
        """Beyond `chunk_limit` the oldest chunks go; asking for them says which one is the first that is kept."""
        backend = await open_backend(BackendOptions(chunk_limit=50))
        delivery = await _running(backend)
        for start in range(0, 2000, 100):
            await publish(backend, delivery, *(text(str(number)) for number in range(start, start + 100)))
        await publish(backend, delivery, FINAL)
        with pytest.raises(ReplayTrimmed) as caught:
            await all_chunks(backend, delivery.task.id)
        first = caught.value.first_seq
        assert (caught.value.task_id, first > 0) == (delivery.task.id, True)
        assert 2001 - first >= 50
        chunks = await all_chunks(backend, delivery.task.id, after_seq=first - 1)
        assert_numbered(chunks, first=first)
        assert chunks[-1].seq == 2000
        with pytest.raises(ReplayTrimmed):
            await all_chunks(backend, delivery.task.id, after_seq=first - 2)

    async def test_a_subscription_can_be_given_up(self, open_backend: OpenBackend) -> None:
        """Leaving, in the middle or by cancellation, disturbs neither the others nor a later subscription."""
        backend = await open_backend()
        delivery = await _running(backend)
        task_id = delivery.task.id
        async with background(all_chunks(backend, task_id)) as staying:
            await publish(backend, delivery, text("a"))
            async with iterating(backend.chunks.subscribe(task_id)) as stream:
                assert (await within(anext(stream))).content == "a"
            leaving = asyncio.ensure_future(all_chunks(backend, task_id, after_seq=0))
            await asyncio.wait([leaving], timeout=0.05)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await publish(backend, delivery, text("b"), FINAL)
            assert contents(await within(staying)) == ["a", "b"]
        assert contents(await all_chunks(backend, task_id)) == ["a", "b"]

    async def test_closing_ends_subscriptions(self, open_backend: OpenBackend) -> None:
        """A backend that closes ends its own subscriptions, those that wait included, and no others."""
        closing, staying = await open_backend(), await open_backend()
        delivery = await _running(staying)
        task_id = delivery.task.id
        async with (
            background(all_chunks(closing, task_id)) as ended,
            background(all_chunks(staying, task_id)) as others,
        ):
            await publish(staying, delivery, text("a"))
            async with iterating(closing.chunks.subscribe(task_id)) as stream:
                assert (await within(anext(stream))).content == "a"
                await closing.close()
                with pytest.raises(StopAsyncIteration):
                    await within(anext(stream))
            assert len(await within(ended)) <= 1
            await publish(staying, delivery, FINAL)
            assert contents(await within(others)) == ["a"]

    async def test_chunks_of_another_engines_task(self, open_backend: OpenBackend) -> None:
        """Without a fence, chunks of a task that this engine never saw are written and numbered all the same."""
        worker, consumer = await open_backend(), await open_backend()
        task = Task(prompt="x", id=unique("task"))
        one = Delivery(task=task, entry_id="e-1", token="anything")  # noqa: S106 - names a delivery, opens nothing
        other = Delivery(task=task, entry_id="e-2", token="else", first=False)  # noqa: S106 - as above
        for delivery, chunks in ((one, (text("a"), text("b"))), (one, (text("c"),)), (other, (text("d"), FINAL))):
            batches = [ChunkBatch(delivery=delivery, chunks=chunks)]
            assert await worker.chunks.publish(batches, fenced=False) == []
        streamed = await all_chunks(consumer, task.id)
        assert_numbered(streamed)
        assert contents(streamed) == ["a", "b", "c", "d"]
