"""Families of state with a list of their keys: they are read without a look at all other keys of the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

import pytest
import redis.asyncio

from providers import AgentConfig
from queue_backends import StateChange, StateStore, open_backend
from queue_backends.redis.keys import Keys
from queue_backends.redis.state import LONGEST_ANNOUNCED
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


def changes(state: StateStore) -> AsyncGenerator[StateChange, None]:
    """Of the objects, as they are announced."""
    return cast("AsyncGenerator[StateChange, None]", state.watch("objects/"))


async def as_before_lists(raw: redis.asyncio.Redis, keys: Keys, key: str, value: bytes) -> None:
    """Write a key as versions did that knew no lists."""
    sign, sent = (b"?", b"") if len(value) > LONGEST_ANNOUNCED else (b"+", value)
    change = sign + str(len(key)).encode() + b":" + key.encode() + sent
    async with raw.pipeline(transaction=True) as pipe:
        for command in (
            ("SET", keys.kv(key), value),
            ("PUBLISH", keys.changes, change),
            ("PUBLISH", keys.family_changes(key), change),
        ):
            pipe.execute_command(*command)
        await pipe.execute()


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


async def test_what_versions_without_lists_have_written_is_found_and_listed(
    state: StateStore, raw: redis.asyncio.Redis, stream: str
) -> None:
    """The first reading looks at all keys, over many pages, and leaves a list for the next."""
    keys = Keys(stream)
    await raw.mset({keys.kv(f"settings:{n}"): str(n) for n in range(1_200)})
    await raw.mset({keys.kv(f"settings-of-others/{n}"): "" for n in range(10)})
    expected = {f"settings:{n}": str(n).encode() for n in range(1_200)}
    assert await read(state, "settings:") == expected
    after = await scans(raw)
    assert await read(state, "settings:") == expected
    assert await scans(raw) == after


async def test_a_list_is_completed_again_after_a_while(
    state: StateStore, raw: redis.asyncio.Redis, stream: str
) -> None:
    """So that what an older version writes, while no newer one watches, is not overlooked for ever."""
    keys = Keys(stream)
    await state.set("remote/n/new", b"1")
    await read(state, "remote/")
    await raw.set(keys.kv("remote/n/old"), "2")
    await raw.hset(keys.listing("remote/"), "", str(time.time() - 1))
    assert set(await read(state, "remote/")) == {"remote/n/new", "remote/n/old"}


@pytest.mark.parametrize("mark", ["soon", "nan", "inf", "", str(2**40)])
async def test_a_list_that_says_nonsense_of_itself_is_not_believed(
    state: StateStore, raw: redis.asyncio.Redis, stream: str, mark: str
) -> None:
    """Whether it was garbled or written by a machine whose clock is years ahead: all keys are looked at, once."""
    keys = Keys(stream)
    await raw.set(keys.kv("settings:a"), "1")
    await raw.hset(keys.listing("settings:"), "", mark)
    assert await read(state, "settings:") == {"settings:a": b"1"}
    before = await scans(raw)
    assert await read(state, "settings:") == {"settings:a": b"1"}
    assert await scans(raw) == before


async def test_what_an_older_version_writes_is_listed_by_whoever_watches(
    state: StateStore, raw: redis.asyncio.Redis, stream: str
) -> None:
    """In the middle of a deploy: a process that starts now reads it, though the list was complete before."""
    keys = Keys(stream)
    await read(state, "objects/")
    before = await scans(raw)
    async with asyncio.timeout(WITHIN_S), aclosing(changes(state)) as heard:
        first = asyncio.ensure_future(anext(heard))
        while not (await raw.pubsub_numsub(keys.family_changes("objects/")))[0][1]:
            await asyncio.sleep(0)
        await as_before_lists(raw, keys, "objects/agents/old", b"by set")
        assert await first == StateChange(key="objects/agents/old", value=b"by set")
        long = b"x" * (LONGEST_ANNOUNCED + 1)
        await as_before_lists(raw, keys, "objects/agents/long", long)
        assert await anext(heard) == StateChange(key="objects/agents/long", value=long)
    assert await read(state, "objects/") == {"objects/agents/old": b"by set", "objects/agents/long": long}
    assert await scans(raw) == before


async def test_who_watches_lists_nothing_that_is_listed(
    state: StateStore, raw: redis.asyncio.Redis, stream: str
) -> None:
    """A fleet of a thousand watchers would otherwise write each change a thousand times."""
    keys = Keys(stream)
    async with asyncio.timeout(WITHIN_S), aclosing(changes(state)) as heard:
        first = asyncio.ensure_future(anext(heard))
        while not (await raw.pubsub_numsub(keys.family_changes("objects/")))[0][1]:
            await asyncio.sleep(0)
        await state.set("objects/a", b"1")
        assert await first == StateChange(key="objects/a", value=b"1")
        await raw.delete(keys.listing("objects/"))
        await state.delete("objects/a")
        assert await anext(heard) == StateChange(key="objects/a", value=None)
        assert await state.compare_and_set("objects/b", None, b"2")
        await raw.delete(keys.listing("objects/"))
        await state.set("objects/c", b"x" * (LONGEST_ANNOUNCED + 1))
        await raw.delete(keys.listing("objects/"))
        assert [(await anext(heard)).key, (await anext(heard)).key] == ["objects/b", "objects/c"]
        assert not await raw.exists(keys.listing("objects/"))


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
