"""One worker at a time looks for expired leases, for all: what that saves, and that nobody is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
import redis.asyncio

from queue_backends import Backend, BackendOptions, Delivery, Task, open_backend
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.queue import RedisQueue
from queue_backends.temporary import Temporary
from tests.servers import Server, valkey_program

LIMIT_S = 30
LANES = 3
LONG = BackendOptions(lease_s=3600.0)
"""The turn then lasts for 720 s where looks are that rare: longer than any test."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server whose settings and counts are these tests' own."""
    program = valkey_program()
    assert program is not None
    with Server(program) as server:
        yield server


@pytest.fixture
async def raw(own_server: Server) -> AsyncIterator[Any]:
    """An operator's connection, which leaves replies as they are."""
    async with redis.asyncio.Redis.from_url(own_server.url()) as client:
        client.response_callbacks.clear()
        yield client


@pytest.fixture
async def fleet(own_server: Server, stream: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Backend]]:
    """Five workers; turns that end only where a test ends them."""
    monkeypatch.setattr("queue_backends.redis.pulling.LOOK_EVERY_S", 3600.0)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await open_backend(own_server.url(stream), LONG)) for _ in range(5)]


async def look(backend: Backend, limit: int = 1) -> list[Delivery]:
    """Pull once, with a look for expired leases although it is not yet time and the server is new."""
    assert isinstance(backend.queue, RedisQueue)
    puller = backend.queue._puller
    puller._next_reclaim = 0.0
    puller._client.availability._silence_ended_at = float("-inf")
    return await backend.queue.pull(limit, 0)


async def held(backend: Backend, raw: Any, stream: str, count: int) -> list[Delivery]:
    """Tasks that this worker has and that nobody has renewed for more than a lease."""
    await backend.queue.submit_many([Task(prompt="hi") for _ in range(count)])
    deliveries = await backend.queue.pull(count, LIMIT_S)
    assert len(deliveries) == count
    for entry, consumer, *_ in await raw.execute_command("XPENDING", stream, GROUP, "-", "+", count):
        await raw.execute_command("XCLAIM", stream, GROUP, consumer, 0, entry, "IDLE", 10**9, "JUSTID")
    await raw.delete(Keys(stream).reclaimer)
    return deliveries


async def reads_of_pending(raw: Any) -> int:
    """How often the server has been asked for what is pending."""
    text = cast("bytes", await raw.execute_command("INFO", "commandstats")).decode()
    found = [line for line in text.splitlines() if line.startswith("cmdstat_xpending:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


async def test_a_fleet_reads_what_is_pending_once_a_turn(fleet: list[Backend], raw: Any, stream: str) -> None:
    """However many idle workers ask: one of them reads each lane, and again when the turn is over."""
    for backend in fleet:
        await look(backend)  # the group is there now
    await raw.delete(Keys(stream).reclaimer)
    before = await reads_of_pending(raw)
    for backend in fleet * 3:
        if backend is not fleet[0]:
            await look(backend)
    assert await reads_of_pending(raw) - before == 3 * LANES  # the holder, at each of its own looks

    await raw.delete(Keys(stream).reclaimer)
    before = await reads_of_pending(raw)
    for backend in fleet:
        await look(backend)
    assert await reads_of_pending(raw) - before == LANES


async def test_who_has_the_turn_claims_for_all(fleet: list[Backend], raw: Any, stream: str) -> None:
    """What lost its lease while another has the turn waits for that one, and is not lost on the way."""
    await held(fleet[0], raw, stream, 1)
    await raw.set(Keys(stream).reclaimer, "3600000 somebody")
    assert await look(fleet[1]) == []
    await raw.set(Keys(stream).reclaimer, f"3600000 {cast('RedisQueue', fleet[2].queue)._puller.consumer}")
    assert await look(fleet[1]) == []
    (again,) = await look(fleet[2])
    assert again.redeliveries == 1


async def test_a_holder_that_is_full_gives_up_the_turn(fleet: list[Backend], raw: Any, stream: str) -> None:
    """A dead worker's many runs go to whoever has room, without waiting for a turn for each."""
    await held(fleet[0], raw, stream, 4)
    found = [await look(backend) for backend in fleet[1:]]
    assert [len(deliveries) for deliveries in found] == [1, 1, 1, 1]


async def test_what_the_holder_itself_has_lost_another_takes(fleet: list[Backend], raw: Any, stream: str) -> None:
    """Its own entry the holder leaves alone: it may be about to renew it. So the next who asks has the turn."""
    await held(fleet[0], raw, stream, 1)
    assert await look(fleet[0]) == []
    assert [delivery.redeliveries for delivery in await look(fleet[1])] == [1]


async def test_a_shorter_lease_goes_first(fleet: list[Backend], own_server: Server, raw: Any, stream: str) -> None:
    """While a fleet's lease is being changed, a holder with a long one hides nothing from those with a short one."""
    await held(fleet[0], raw, stream, 1)
    await raw.set(Keys(stream).reclaimer, f"{10**10} somebody")
    (again,) = await look(fleet[1])
    assert again.redeliveries == 1


async def test_a_turn_ends_by_itself(own_server: Server, raw: Any, stream: str) -> None:
    """One that dies right after it took the turn delays nobody beyond the turn's end, which the server sees to."""
    options = BackendOptions(lease_s=2.5)
    async with AsyncExitStack() as stack:
        dead = await stack.enter_async_context(await open_backend(own_server.url(stream), options))
        other = await stack.enter_async_context(await open_backend(own_server.url(stream), options))
        await dead.queue.submit(Task(prompt="hi"))
        (delivery,) = await dead.queue.pull(1, LIMIT_S)
        await look(dead)  # it has the turn, and does nothing from now on
        assert await raw.pttl(Keys(stream).reclaimer) <= 500  # -2: it has ended already
        async with asyncio.timeout(LIMIT_S):
            while not (found := await other.queue.pull(1, 5.0)):
                continue
        assert (found[0].task.id, found[0].redeliveries) == (delivery.task.id, 1)


async def test_a_full_server_hands_over_all_the_same(fleet: list[Backend], raw: Any, stream: str) -> None:
    """Out of memory, what was accepted before still finds a new worker."""
    await held(fleet[0], raw, stream, 1)
    await raw.config_set("maxmemory", 1)
    try:
        found = await look(fleet[1])
    finally:
        await raw.config_set("maxmemory", 0)
    assert [delivery.redeliveries for delivery in found] == [1]


async def test_a_pull_that_is_cancelled_ends_at_once(
    fleet: list[Backend], raw: Any, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops does not wait for the end of its blocked read, and what comes later is not lost with it."""
    monkeypatch.setattr("queue_backends.redis.pulling.LONGEST_BLOCK_S", 3600.0)
    queue = fleet[0].queue
    async with asyncio.timeout(LIMIT_S):
        pulling = asyncio.create_task(queue.pull(1, 3600.0))
        while b"blocked_clients:1\r" not in await raw.execute_command("INFO", "clients"):
            await asyncio.sleep(0.01)
        pulling.cancel()
        await asyncio.wait([pulling])
        await queue.submit(Task(prompt="later"))
        (delivery,) = await queue.pull(1, 3600.0)
    assert pulling.cancelled()
    assert delivery.task.prompt == "later"


async def test_a_lifetime_of_the_whole_queue_prolongs_nobodys_turn(fleet: list[Backend], raw: Any, stream: str) -> None:
    """Else nobody would look for what a killed process held; and of a queue that is dropped, the turn goes, too."""
    backend, keys = fleet[0], Keys(stream)
    assert isinstance(backend, Temporary)
    await backend.queue.submit(Task(prompt="hi"))
    await look(backend)
    turn_ms = await raw.execute_command("PTTL", keys.reclaimer)
    await backend.keep_for(86_400.0)
    assert 0 < await raw.execute_command("PTTL", keys.reclaimer) <= turn_ms
    assert await raw.execute_command("PTTL", stream) > turn_ms
    await backend.keep_for(0.0)
    assert await raw.execute_command("EXISTS", stream, keys.reclaimer) == 0
