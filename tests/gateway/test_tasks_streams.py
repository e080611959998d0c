"""Streams over HTTP while things break: the broker restarts, a gateway goes and another one takes its clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec

from queue_backends import Backend, BackendOptions, BackendUnavailable, ChunkBatch, ChunkDraft, ChunkType, Delivery
from queue_backends.redis import open_backend
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.raw_client import Connection
from tests.servers import Server, fresh_stream

LARGE = 100
SETTINGS = gateway_settings(gateway={"auth": "off"})


class Talk:
    """A running task that the test plays the worker of."""

    def __init__(self, backend: Backend, delivery: Delivery) -> None:
        self._backend = backend
        self._delivery = delivery
        self.address = f"/v1/tasks/{delivery.task.id}/stream"

    async def say(self, text: str, *, final: bool = False) -> None:
        """Publish a chunk, as soon as the broker takes it."""
        kind = ChunkType.DONE if final else ChunkType.CONTENT
        batch = ChunkBatch(delivery=self._delivery, chunks=(ChunkDraft(type=kind, content=text, is_final=final),))
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    assert not await self._backend.chunks.publish([batch])
                    return
                except BackendUnavailable:
                    await asyncio.sleep(0.05)


async def _chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def _next(chunks: AsyncIterator[dict[str, Any]], count: int) -> list[str]:
    async with asyncio.timeout(WITHIN_S):
        return [(await anext(chunks))["content"] for _ in range(count)]


async def test_one_frozen_watcher_hinders_no_other(valkey_server: Server) -> None:
    """Fifty get what is said, at once, while one takes nothing of many megabytes; later it gets all of them."""
    url = valkey_server.url(fresh_stream())
    async with AsyncExitStack() as stack:
        server = stack.enter_context(GatewayServer(SETTINGS, queue_url=url, with_worker=False))
        talk = await _talk(stack, url, await stack.enter_async_context(server.client()))
        frozen = await stack.enter_async_context(Connection(server.url, talk.address))
        await frozen.until(b"retry:")
        for _ in range(LARGE):
            await talk.say("x" * 100_000)
        others = [
            await stack.enter_async_context(Connection(server.url, f"{talk.address}?after_seq={LARGE - 1}"))
            for _ in range(50)
        ]
        await asyncio.gather(*(each.until(b"retry:") for each in others))
        for number in range(5):
            await talk.say(f"small {number}")

        seen = await asyncio.gather(*(each.until(b"small 4") for each in others))

        assert all(f"small {number}".encode() in each for each in seen for number in range(5))
        await talk.say("end", final=True)
        late = await frozen.until(b'"is_final":true')
        assert late.count(b"\ndata: ") == LARGE + 5 + 1


async def test_trimmed_chunks_are_told(valkey_server: Server) -> None:
    """Who asks for chunks that are no longer kept is told from where on there are some."""
    url = valkey_server.url(fresh_stream())
    options = msgspec.structs.replace(SETTINGS.backend, chunk_limit=100)
    settings = msgspec.structs.replace(SETTINGS, backend=options)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(GatewayServer(settings, queue_url=url, with_worker=False))
        client = await stack.enter_async_context(server.client())
        talk = await _talk(stack, url, client, options)
        for number in range(500):
            await talk.say(str(number), final=number == 499)
        trimmed = await client.get(talk.address)
        kept = await client.get(talk.address, params={"after_seq": trimmed.json()["first_seq"] - 1})

    assert trimmed.status_code == 410
    assert trimmed.json()["code"] == "replay_trimmed"
    assert kept.text.count("data: ") == 500 - trimmed.json()["first_seq"]


async def _talk(
    stack: AsyncExitStack, url: str, client: httpx.AsyncClient, options: BackendOptions = SETTINGS.backend
) -> Talk:
    await client.post("/v1/tasks", json={"prompt": "talk to me"})
    backend = await stack.enter_async_context(await open_backend(url, options))
    [delivery] = await backend.queue.pull(1, WITHIN_S)
    return Talk(backend, delivery)


async def test_a_stream_survives_a_restart_of_the_broker(durable_server: Server) -> None:
    """Watchers, early and late, get every chunk once, over a broker that crashes in between."""
    url = durable_server.url(fresh_stream())
    async with AsyncExitStack() as stack:
        server = stack.enter_context(GatewayServer(SETTINGS, queue_url=url, with_worker=False))
        client = await stack.enter_async_context(server.client())
        talk = await _talk(stack, url, client)
        await talk.say("one")
        early = _chunks(await stack.enter_async_context(client.stream("GET", talk.address)))
        seen = await _next(early, 1)

        await asyncio.to_thread(durable_server.restart)
        await talk.say("two")
        seen += await _next(early, 1)
        late = _chunks(await stack.enter_async_context(client.stream("GET", talk.address)))
        await talk.say("three")
        await talk.say("end", final=True)

        assert seen + await _next(early, 2) == await _next(late, 4) == ["one", "two", "three", "end"]
        assert await anext(late, None) is None


async def test_a_client_goes_on_at_another_gateway(valkey_server: Server) -> None:
    """Its stream ends when its gateway stops; with the last id it gets the rest from any other one."""
    url = valkey_server.url(fresh_stream())
    async with AsyncExitStack() as stack:
        second = stack.enter_context(GatewayServer(SETTINGS, queue_url=url, with_worker=False))
        with GatewayServer(SETTINGS, queue_url=url, with_worker=False) as first:
            client = await stack.enter_async_context(first.client())
            talk = await _talk(stack, url, client)
            await talk.say("one")
            await talk.say("two")
            response = await stack.enter_async_context(client.stream("GET", talk.address))
            chunks = _chunks(response)
            seen = await _next(chunks, 2)
        async with asyncio.timeout(WITHIN_S):
            assert await anext(chunks, None) is None  # an end in order, without a final chunk
        await talk.say("three")
        other = await stack.enter_async_context(second.client())
        resumed = await stack.enter_async_context(
            other.stream("GET", talk.address, headers={"Last-Event-ID": str(len(seen) - 1)})
        )
        await talk.say("end", final=True)

        assert seen + await _next(_chunks(resumed), 2) == ["one", "two", "three", "end"]
