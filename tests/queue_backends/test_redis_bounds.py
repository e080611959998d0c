"""What Redis is asked to hold, and what a slow consumer costs: bounds that only this backend has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from queue_backends import Backend, BackendOptions, Chunk, ChunkBatch, ChunkDraft, ChunkType, Delivery, Task
from queue_backends import open_backend as open_registered
from queue_backends.conformance.support import all_chunks, assert_numbered, iterating, text, within
from queue_backends.redis.pubsub import INBOX_BYTES, INBOX_MESSAGES, Inbox
from queue_backends.redis.replay_cap import ReplayCap
from tests.servers import Server, fresh_stream, valkey_program

LIMIT_S = 10
FINAL = ChunkDraft(type=ChunkType.DONE, is_final=True)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server whose settings these tests may change."""
    program = valkey_program()
    assert program is not None
    with Server(program) as server:
        yield server


@pytest.fixture
async def raw(own_server: Server) -> AsyncIterator[Any]:
    """An operator's connection."""
    client = redis.asyncio.Redis.from_url(own_server.url(), decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def backend(own_server: Server) -> AsyncIterator[Backend]:
    """A fresh queue."""
    async with await open_registered(own_server.url(fresh_stream()), BackendOptions()) as opened:
        yield opened


async def running(backend: Backend, **fields: Any) -> Delivery:
    """A task in hand."""
    await backend.queue.submit(Task(prompt="x", **fields))
    (delivery,) = await backend.queue.pull(1, 5)
    return delivery


async def publish(backend: Backend, delivery: Delivery, *chunks: ChunkDraft) -> None:
    """Publish under a lease that holds."""
    assert await backend.chunks.publish([ChunkBatch(delivery=delivery, chunks=chunks)]) == []


# What a writer knows of its stream


def test_cap_lets_the_oldest_segments_go() -> None:
    """The sum of what is kept stays about at the cap, however many chunks come."""
    cap = ReplayCap(1000)
    kept_from = 0
    for seq in range(10_000):
        kept_from = max(kept_from, cap.trim_before())
        assert kept_from == 0 or 90 <= seq - kept_from <= 110
        cap.wrote(seq, 10)
    assert kept_from > 9_800


def test_cap_counts_what_others_wrote() -> None:
    """What was found is spread over its chunks, and goes first."""
    cap = ReplayCap(1000)
    cap.found(100, 200, 900)
    assert cap.trim_before() == 0
    cap.wrote(200, 400)
    assert 130 <= cap.trim_before() <= 140


def test_cap_keeps_the_newest() -> None:
    """One write beyond the cap stays until the next has come."""
    cap = ReplayCap(10)
    cap.wrote(0, 1000)
    assert cap.trim_before() == 0
    cap.wrote(1, 1000)
    assert cap.trim_before() == 1


# What a listener holds


async def test_inbox_is_bounded_in_messages_and_bytes() -> None:
    """A listener that does not read holds a bounded amount, and learns that it has missed something."""
    small, large = Inbox(), Inbox()
    for _ in range(INBOX_MESSAGES + 10):
        small.put(b"x")
    for _ in range(20):
        large.put(b"x" * (INBOX_BYTES // 8))
    for inbox in (small, large):
        assert await inbox.get(0) is None
        held = []
        while (message := await inbox.get(0)) is not None:
            held.append(message)
        assert len(held) <= INBOX_MESSAGES
        assert sum(map(len, held)) <= INBOX_BYTES


async def test_inbox_takes_one_large_message() -> None:
    """A message beyond the bound is passed on if nothing else is waiting."""
    inbox = Inbox()
    inbox.put(b"x" * 2 * INBOX_BYTES)
    assert await inbox.get(0) == b"x" * 2 * INBOX_BYTES
    inbox.put(b"y")
    assert await inbox.get(0) == b"y"


async def test_a_watcher_is_not_sent_large_values(backend: Backend, raw: Any) -> None:
    """A long value reaches those who watch its key, and nobody else: what all watchers are sent is short."""
    async with raw.pubsub() as spy, iterating(backend.state.watch("mine/")) as changes:
        await spy.psubscribe("*:state:changes")
        first = asyncio.ensure_future(anext(changes))
        while not first.done():  # the subscription's confirmation is not announced
            await backend.state.set("mine/small", b"s")
            await asyncio.wait([first], timeout=0.02)
        for _ in range(50):
            await backend.state.set("other", b"o" * 1_000_000)
        await backend.state.set("mine/large", b"l" * 1_000_000)
        assert await backend.state.compare_and_set("mine/large", b"l" * 1_000_000, b"m" * 1_000_000)
        seen = set()
        while ("mine/large", b"m" * 1_000_000) not in seen:
            change = await within(anext(changes))
            seen.add((change.key, change.value))
        assert {key for key, _ in seen} <= {"mine/small", "mine/large"}
        announced: list[str] = []
        while len(announced) < 52:
            message = await within(spy.get_message(ignore_subscribe_messages=True, timeout=LIMIT_S))
            if message and ":mine/small" not in message["data"]:
                announced.append(message["data"])
        assert set(announced) == {"?5:other", "?10:mine/large"}


# Slow consumers


async def test_a_consumer_that_the_server_drops_reads_again(own_server: Server, raw: Any) -> None:
    """A server that ends the pub/sub connection because too much waits on it costs the consumer nothing."""
    await raw.config_set("client-output-buffer-limit", "pubsub 65536 0 0")
    queue = fresh_stream()
    try:
        async with await open_registered(own_server.url(queue), BackendOptions()) as backend:
            delivery = await running(backend)
            async with iterating(backend.chunks.subscribe(delivery.task.id)) as stream:
                await publish(backend, delivery, text("first"))
                chunks = [await within(anext(stream))]
                _overflow(own_server, f"{queue}:control")
                for number in range(10):
                    await publish(backend, delivery, text(str(number)))
                await publish(backend, delivery, FINAL)
                chunks += await within(_rest(stream))
            assert_numbered(chunks)
            assert len(chunks) == 12
    finally:
        await raw.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60")


def _overflow(server: Server, channel: str) -> None:
    """Send more than a connection holds while this process, whose loop this call blocks, reads nothing."""
    with redis.Redis.from_url(server.url()) as client:
        for _ in range(200):
            if client.publish(channel, b"x" * 1_000_000) == 0:  # nobody listens any more
                return
    pytest.fail("the server has not dropped the connection")


async def _rest(stream: AsyncIterator[Chunk]) -> list[Chunk]:
    return [chunk async for chunk in stream]


# Lifetimes


async def test_a_stream_that_lost_its_beginning_still_expires(backend: Backend, raw: Any) -> None:
    """A server that comes back without its data gets streams that begin in the middle: they have a lifetime, too."""
    delivery = await running(backend)
    await publish(backend, delivery, text("a"))
    (key,) = [key async for key in raw.scan_iter(f"*:chunks:{delivery.task.id}")]
    await raw.delete(key)
    for _ in range(33):
        await publish(backend, delivery, text("b"))
    assert await raw.pttl(key) > 0


async def test_a_lifetime_counts_from_the_last_write(own_server: Server, raw: Any) -> None:
    """A run that goes on for longer than the lifetime of its stream does not lose it."""
    options = BackendOptions(unfinished_ttl_s=1000)
    async with await open_registered(own_server.url(fresh_stream()), options) as backend:
        delivery = await running(backend)
        await publish(backend, delivery, text("a"))
        (key,) = [key async for key in raw.scan_iter(f"*:chunks:{delivery.task.id}")]
        await raw.pexpire(key, 400_000)
        await publish(backend, delivery, *(text("b") for _ in range(33)))
        assert await raw.pttl(key) > 900_000


# ark's list


async def test_arks_list_is_bounded_in_bytes(backend: Backend, raw: Any) -> None:
    """A list that nobody reads takes no more text when it has about 16 MiB; the end still comes, and the replay has
    all that its own cap allows."""
    key = f"chunks:{fresh_stream()}"
    delivery = await running(backend, stream_key=key)
    for _ in range(60):
        await publish(backend, delivery, *(text("x" * 50_000) for _ in range(10)))
    await publish(backend, delivery, FINAL)
    assert 16_000_000 < await raw.memory_usage(key, samples=0) < 18_000_000
    assert await raw.lindex(key, -1) == "__EOF__"
    assert await raw.pttl(key) > 0


async def test_a_list_that_is_read_takes_everything(backend: Backend, raw: Any) -> None:
    """The bound is on what waits, not on what has passed."""
    key = f"chunks:{fresh_stream()}"
    delivery = await running(backend, stream_key=key)
    read = 0
    for _ in range(60):
        await publish(backend, delivery, *(text("x" * 50_000) for _ in range(10)))
        read += len(await raw.lpop(key, 10))
    assert read == 600


# Limited users


async def test_without_the_right_to_measure(own_server: Server, raw: Any) -> None:
    """A user whose ACL forbids MEMORY can publish, take over and feed a list all the same."""
    await raw.acl_setuser(
        "narrow", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+@all", "-memory|usage"]
    )
    queue = fresh_stream()
    url = f"redis://narrow:pw@127.0.0.1:{own_server.port}/0?stream={queue}"
    async with await open_registered(url, BackendOptions(chunk_bytes=100_000)) as backend:
        delivery = await running(backend, stream_key=f"list-{queue}")
        await publish(backend, delivery, *(text("x" * 1000) for _ in range(100)))
        await backend.queue.nack(delivery, "")
        (delivery,) = await backend.queue.pull(1, 5)
        await publish(backend, delivery, text("y"), FINAL)
        assert len(await all_chunks(backend, delivery.task.id)) == 102
    assert await raw.llen(f"list-{queue}") == 102
