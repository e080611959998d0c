"""Tasks on their way into a queue of arq's: each once, though the network repeats what was sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from queue_backends import Backend, Task
from queue_backends.redis.client import RedisClient
from queue_backends.redis.line import Link, Receiver
from tests.servers import Server

LIMIT_S = 20


async def test_a_first_try_that_the_network_held_up_adds_nothing(
    valkey_server: Server, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was given up may still deliver what was sent over it, when the call has been repeated over
    another one, or even a later one has been carried out."""
    sent: list[tuple[Any, ...]] = []
    send_script = RedisClient.send_script

    def send(client: RedisClient, link: Link, name: str, keys: Any, args: Any, receiver: Receiver) -> None:
        sent.append(("EVALSHA", client._script(name)[1], len(keys), *keys, *args))
        send_script(client, link, name, keys, args, receiver)

    monkeypatch.setattr(RedisClient, "send_script", send)
    async with asyncio.timeout(LIMIT_S), redis.asyncio.Redis(port=valkey_server.port) as admin:
        await backend.queue.submit(Task(prompt="warm"))
        task_id = await backend.queue.submit(Task(prompt="once"))
        (first,) = sent
        assert await admin.execute_command(*first) == [task_id.encode()]
        assert (await backend.queue.stats()).ready == 2
        await backend.queue.submit(Task(prompt="later"))
        with pytest.raises(redis.exceptions.ResponseError, match="a later call"):
            await admin.execute_command(*first)
        assert (await backend.queue.stats()).ready == 3
