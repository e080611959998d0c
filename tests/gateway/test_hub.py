"""One subscription for all watchers of a task: nobody misses a chunk, nobody waits for anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

import pytest

from queue_backends import (
    Backend,
    BackendOptions,
    BackendUnavailable,
    Chunk,
    ChunkBatch,
    ChunkDraft,
    ChunkStream,
    ChunkType,
    Delivery,
    ReplayTrimmed,
    Task,
    TaskNotFound,
)
from queue_backends.memory import open_backend
from queue_backends.redis import open_backend as open_redis
from worker.gateway.chunk_hub import ChunkHub
from worker.gateway.shared_stream import RING_CHUNKS

WITHIN_S = 30.0


class CountedChunks:
    """A chunk stream that counts its subscriptions."""

    def __init__(self, chunks: ChunkStream) -> None:
        self._chunks = chunks
        self.open = 0
        self.begun = 0
        self.breaks = False
        """Once, with the next chunk that comes."""

    async def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncGenerator[Chunk, None]:
        """As the stream itself."""
        self.open += 1
        self.begun += 1
        try:
            source = cast("AsyncGenerator[Chunk, None]", self._chunks.subscribe(task_id, after_seq=after_seq))
            async with aclosing(source):
                async for chunk in source:
                    if self.breaks:
                        self.breaks = False
                        raise BackendUnavailable("the connection is broken")
                    yield chunk
        finally:
            self.open -= 1

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        """As the stream itself."""
        return await self._chunks.publish(batches, fenced=fenced)

    async def close(self) -> None:
        """As the stream itself."""
        await self._chunks.close()


class Stage:
    """A hub, and a task that a test plays the worker of."""

    def __init__(self, backend: Backend, delivery: Delivery) -> None:
        self.backend = backend
        self.chunks = CountedChunks(backend.chunks)
        self.hub = ChunkHub(Backend(backend.queue, self.chunks, backend.state))
        self.delivery = delivery
        self.task_id = delivery.task.id

    async def say(self, *texts: str, final: bool = False) -> None:
        """Publish chunks."""
        drafts = [ChunkDraft(type=ChunkType.CONTENT, content=text) for text in texts]
        if final:
            drafts.append(ChunkDraft(type=ChunkType.DONE, is_final=True))
        batch = ChunkBatch(delivery=self.delivery, chunks=tuple(drafts))
        assert not await self.backend.chunks.publish([batch])

    async def watch(self, after_seq: int = -1) -> list[int]:
        """Follow to the end; the `seq` of each chunk that came."""
        async with asyncio.timeout(WITHIN_S), aclosing(self.hub.follow(self.task_id, after_seq=after_seq)) as chunks:
            return [chunk.seq async for chunk in chunks]

    async def until_watched(self, watchers: int) -> None:
        """Return when so many watch."""
        async with asyncio.timeout(WITHIN_S):
            while sum(stream.watchers for stream in self.hub.open_streams) < watchers:
                await asyncio.sleep(0)


@pytest.fixture(params=["memory", "redis"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """A running task, on two backends."""
    options = BackendOptions(chunk_limit=2000)
    if request.param == "memory":
        backend = await open_backend("memory://", options)
    else:
        backend = await open_redis(request.getfixturevalue("queue_url"), options)
    async with backend:
        await backend.queue.submit(Task(prompt="talk"))
        [delivery] = await backend.queue.pull(1, 5.0)
        stage = Stage(backend, delivery)
        async with stage.hub:
            yield stage


async def test_watchers_share_one_subscription(stage: Stage) -> None:
    """Those who come first and those who come late all get every chunk once, over a single subscription."""
    early = [asyncio.create_task(stage.watch()) for _ in range(20)]
    await stage.until_watched(20)
    await stage.say("a", "b", "c")
    late = [asyncio.create_task(stage.watch()) for _ in range(20)]
    resumed = asyncio.create_task(stage.watch(after_seq=1))
    await stage.until_watched(41)
    await stage.say("d", final=True)

    assert await asyncio.gather(*early, *late) == [[0, 1, 2, 3, 4]] * 40
    assert await resumed == [2, 3, 4]
    assert stage.chunks.begun == 1


async def test_a_frozen_watcher_hinders_nobody_and_misses_nothing(stage: Stage) -> None:
    """While one takes nothing, others get far more chunks than are held for anybody; later it gets them all, too."""
    total = 3 * RING_CHUNKS
    async with aclosing(stage.hub.follow(stage.task_id)) as frozen:
        await stage.say("first")
        seen = [(await anext(frozen)).seq]
        others = [asyncio.create_task(stage.watch()) for _ in range(3)]
        await stage.until_watched(4)
        for start in range(1, total, 64):
            await stage.say(*(["x"] * min(64, total - start)), final=start + 64 >= total)

        assert await asyncio.gather(*others) == [list(range(total + 1))] * 3
        async with asyncio.timeout(WITHIN_S):
            seen += [chunk.seq async for chunk in frozen]
    assert seen == list(range(total + 1))


async def test_a_single_slow_watcher_holds_a_bounded_part_of_the_stream(stage: Stage) -> None:
    """The subscription is not drawn on further than a ring ahead of the only watcher."""
    async with aclosing(stage.hub.follow(stage.task_id)) as chunks:
        watching = asyncio.ensure_future(anext(chunks))
        await stage.until_watched(1)
        for _ in range(20):
            await stage.say(*(["x"] * 90))
        await watching
        [stream] = stage.hub.open_streams

        for _ in range(1000):
            await asyncio.sleep(0)

        assert stream.last_seq <= 2 * RING_CHUNKS
    assert not stage.hub.open_streams


async def test_all_streams_together_hold_a_bounded_number_of_bytes(stage: Stage) -> None:
    """The more tasks are watched, the less is held of each; nobody misses anything for that."""
    hub = ChunkHub(stage.backend, most_bytes=64 * 1024)
    async with hub, aclosing(hub.follow(stage.task_id)) as chunks:
        watching = asyncio.ensure_future(anext(chunks))
        for _ in range(40):
            await stage.say("x" * 5000, "y" * 5000)
        seen = [(await watching).seq]
        held = 0
        async with asyncio.timeout(WITHIN_S):
            while seen[-1] < 79:
                seen.append((await anext(chunks)).seq)
                held = max(held, *(stream.held_bytes for stream in hub.open_streams))

    assert seen == list(range(80))
    assert 0 < held <= 64 * 1024


async def test_a_watcher_from_the_future_does_not_spoil_the_stream_for_others(stage: Stage) -> None:
    """Who claims to have had chunks that do not exist yet waits for later ones; others get theirs from the first on."""
    ahead = asyncio.create_task(stage.watch(after_seq=2))
    await stage.until_watched(1)
    await stage.say("a", "b")
    async with asyncio.timeout(WITHIN_S), aclosing(stage.hub.follow(stage.task_id)) as normal:
        assert [(await anext(normal)).seq, (await anext(normal)).seq] == [0, 1]
        await stage.say("c", "d", final=True)

        assert [chunk.seq async for chunk in normal] == [2, 3, 4]
    assert await ahead == [3, 4]


async def test_an_outage_is_waited_out(stage: Stage) -> None:
    """A stream that has begun goes on over a subscription that breaks."""
    async with asyncio.timeout(WITHIN_S), aclosing(stage.hub.follow(stage.task_id)) as chunks:
        await stage.say("a")
        seen = [(await anext(chunks)).seq]
        stage.chunks.breaks = True
        await stage.say("b")
        await stage.say("c", final=True)

        seen += [chunk.seq async for chunk in chunks]
    assert seen == [0, 1, 2, 3]
    assert stage.chunks.begun > 1


async def test_a_stream_that_cannot_begin_says_so(stage: Stage) -> None:
    """As a subscription of its own does."""
    stage.chunks.breaks = True
    await stage.say("a")
    with pytest.raises(BackendUnavailable):
        await stage.watch()


async def test_the_last_watcher_takes_the_subscription_along(stage: Stage) -> None:
    """Nothing of a task is held once nobody watches it."""
    watching = [asyncio.create_task(stage.watch()) for _ in range(2)]
    await stage.until_watched(2)
    await stage.say("a")
    watching[0].cancel()
    await asyncio.wait(watching[:1])
    assert stage.hub.open_streams
    watching[1].cancel()
    await asyncio.wait(watching)

    assert not stage.hub.open_streams
    async with asyncio.timeout(WITHIN_S):
        while stage.chunks.open:
            await asyncio.sleep(0.01)


async def test_an_ended_stream_can_be_watched_again(stage: Stage) -> None:
    """Whoever comes after the end gets everything, or nothing if he has had it all."""
    await stage.say("a", "b", final=True)

    assert await stage.watch() == [0, 1, 2]
    assert await stage.watch(after_seq=0) == [1, 2]
    assert await stage.watch(after_seq=2) == []


async def test_only_who_wants_trimmed_chunks_is_refused(stage: Stage) -> None:
    """A beginning that is no longer kept is an error for who asks for it, not for those who have had it."""
    total = 3000
    for start in range(0, total, 100):
        await stage.say(*(["x"] * 100), final=start + 100 == total)
    greedy = asyncio.create_task(stage.watch())
    modest = asyncio.create_task(stage.watch(after_seq=total - 10))

    assert await modest == list(range(total - 9, total + 1))
    with pytest.raises(ReplayTrimmed):
        await greedy


async def test_events_are_those_of_the_chunks(stage: Stage) -> None:
    """As server-sent events, chunks have their `seq` as id; those that are there already come in one piece."""
    await stage.say("a\nb", "c", final=True)
    async with asyncio.timeout(WITHIN_S), aclosing(stage.hub.follow_events(stage.task_id)) as events:
        raw = b"".join([event async for event in events])

    assert [line for line in raw.split(b"\n") if line.startswith(b"id")] == [b"id: 0", b"id: 1", b"id: 2"]
    assert b'"content":"a\\nb"' in raw


async def test_closing_the_hub_ends_all_streams(stage: Stage) -> None:
    """Watchers of a hub that is closed are let go, without a final chunk."""
    watching = asyncio.create_task(stage.watch())
    await stage.until_watched(1)
    await stage.say("a")
    await stage.hub.close()

    assert await watching in ([], [0])


async def test_expired_chunks_are_told_to_every_watcher(stage: Stage) -> None:
    """Where the store has no chunks of an ended task any more, watchers hear so, as from the store itself."""
    await stage.backend.queue.nack(stage.delivery, "broken", dead=True)
    with pytest.raises(TaskNotFound):
        await stage.watch()
