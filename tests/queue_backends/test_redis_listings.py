"""Families of state with a list of their keys: they are read without a look at all other keys of the database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from providers import AgentConfig
from queue_backends import StateStore, open_backend
from queue_backends.redis.keys import Keys
from tests.servers import Server
from worker.assembly import open_worker
from worker.settings import Settings

OTHERS = 2_000
"""Keys that have nothing to do with what is read."""
WITHIN_S = 10.0


@pytest.fixture
async def raw(valkey_server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the server, beside ours."""
    async with redis.asyncio.Redis.from_url(valkey_server.url()) as client:
        yield client


@pytest.fixture
async def state(valkey_server: Server, stream: str) -> AsyncIterator[StateStore]:
    """A queue's state."""
    async with await open_backend(valkey_server.url(stream)) as backend:
        yield backend.state


async def scans(raw: redis.asyncio.Redis) -> int:
    """How many looks at all keys the server was asked for."""
    return int((await raw.info("commandstats")).get("cmdstat_scan", {}).get("calls", 0))


async def read(state: StateStore, prefix: str) -> dict[str, bytes]:
    """All keys with that prefix."""
    return {key: value async for key, value in state.scan(prefix)}


async def test_every_way_to_write_is_seen_without_a_look_at_all_keys(
    state: StateStore, raw: redis.asyncio.Redis
) -> None:
    """Set, compared and set, deleted in both ways: the list follows in the same step."""
    await read(state, "objects/")  # the first reading of a new queue
    before = await scans(raw)
    await state.set("objects/a/1", b"set")
    await state.set("objects/a/2", b"deleted")
    await state.set("objects/b/3", b"compared and deleted")
    assert await state.compare_and_set("objects/b/4", None, b"compared and set")
    await state.set("other/1", b"of no list")
    await state.delete("objects/a/2")
    assert await state.compare_and_set("objects/b/3", b"compared and deleted", None)
    assert not await state.compare_and_set("objects/b/5", b"not so", b"never")
    assert await read(state, "objects/") == {"objects/a/1": b"set", "objects/b/4": b"compared and set"}
    assert await read(state, "objects/b/") == {"objects/b/4": b"compared and set"}
    assert await scans(raw) == before
    assert await read(state, "other/") == {"other/1": b"of no list"}
    assert await scans(raw) > before


async def test_a_list_that_was_lost_is_made_again(state: StateStore, raw: redis.asyncio.Redis, stream: str) -> None:
    """Evicted, or deleted by an operator: the next reading looks at all keys, over many pages, and none after it."""
    keys = Keys(stream)
    await raw.mset({keys.kv(f"settings:{n}"): str(n) for n in range(1_200)})
    await raw.mset({keys.kv(f"settings-of-others/{n}"): "" for n in range(10)})
    expected = {f"settings:{n}": str(n).encode() for n in range(1_200)}
    assert await read(state, "settings:") == expected
    await raw.delete(keys.listing("settings:"))
    await state.set("settings:new", b"1")  # which lists itself alone
    expected["settings:new"] = b"1"
    assert await read(state, "settings:") == expected
    after = await scans(raw)
    assert await read(state, "settings:") == expected
    assert await scans(raw) == after


async def test_a_server_without_room_can_be_read(state: StateStore, raw: redis.asyncio.Redis, stream: str) -> None:
    """Lists are written while others read: that they cannot be is no reason not to tell what there is."""
    keys = Keys(stream)
    await raw.mset({keys.kv("settings:a"): "1", keys.kv("settings:b"): "2"})
    expected = {"settings:a": b"1", "settings:b": b"2"}
    await raw.config_set("maxmemory", 1)
    try:
        assert await read(state, "settings:") == expected
        assert await read(state, "settings:") == expected  # the list was not said to be complete
    finally:
        await raw.config_set("maxmemory", 0)
    assert await read(state, "settings:") == expected


async def test_expired_keys_leave_the_list(state: StateStore, raw: redis.asyncio.Redis, stream: str) -> None:
    """A plugin's name is new with each start: without this, their list would only ever grow."""
    keys = Keys(stream)
    await read(state, "remote/")
    await state.set("remote/i/gone", b"1", ttl_s=60)
    await state.set("remote/i/here", b"2", ttl_s=60)
    await raw.delete(keys.kv("remote/i/gone"))  # as if its time were up
    assert await read(state, "remote/") == {"remote/i/here": b"2"}
    assert set(await raw.hkeys(keys.listing("remote/"))) == {b"", b"remote/i/here"}


async def test_the_start_of_a_worker_costs_nothing_for_the_keys_that_there_are(
    valkey_server: Server, stream: str, raw: redis.asyncio.Redis
) -> None:
    """Only the first start at a new queue looks at all keys; no later one does, however many there are."""
    settings = Settings(agent=AgentConfig(model="mock", provider="scripted"))
    async with await open_backend(valkey_server.url(stream)) as backend:
        async with open_worker(settings, backend):
            pass
        await raw.mset({f"{stream}:other:{n}": "x" for n in range(OTHERS)})
        before = await scans(raw)
        async with open_worker(settings, backend):
            pass
        assert await scans(raw) == before
