"""A server that takes back what it said: as after a failover, when a replica is asked that has not heard of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio

from queue_backends import Ack, Backend, Delivery, TaskResult, open_backend
from queue_backends.conformance.support import (
    FINAL,
    all_chunks,
    assert_numbered,
    contents,
    publish,
    pull_one,
    submit,
    text,
)
from queue_backends.interfaces import ChunkBatch
from queue_backends.redis.keys import GROUP
from queue_backends.redis.wire import fence_of
from tests.servers import Server

Refused = Callable[[Backend, Delivery], Awaitable[None]]


async def _by_publish(backend: Backend, delivery: Delivery) -> None:
    assert await backend.chunks.publish([ChunkBatch(delivery=delivery, chunks=(text("lost"),))]) == [delivery]


async def _by_renew(backend: Backend, delivery: Delivery) -> None:
    assert await backend.queue.renew([delivery]) == [delivery]


async def _by_commit(backend: Backend, delivery: Delivery) -> None:
    ended = Ack(delivery=delivery, result=TaskResult(task_id=delivery.task.id), chunks=(FINAL,))
    assert await backend.commit([ended]) == [ended]


@pytest.mark.parametrize("refused", [_by_publish, _by_renew, _by_commit])
async def test_a_lease_that_was_called_lost_stays_lost(refused: Refused, valkey_server: Server, stream: str) -> None:
    """Somebody else's claim is gone again, and the first holder's run has been stopped by then: what is left of it is
    refused, and whoever gets the task next goes on where its chunks end."""
    async with (
        await open_backend(valkey_server.url(stream)) as backend,
        redis.asyncio.Redis.from_url(valkey_server.url()) as server,
    ):
        server.response_callbacks.clear()
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        await publish(backend, delivery, text("a"), text("b"))
        fence = fence_of(delivery)
        claim = ("XCLAIM", stream, GROUP)
        await server.execute_command(*claim, "somebody else", 0, fence.entry)
        await refused(backend, delivery)
        count = ("RETRYCOUNT", fence.deliveries, "JUSTID")
        await server.execute_command(*claim, fence.consumer, 0, fence.entry, *count)
        await _by_publish(backend, delivery)
        await _by_commit(backend, delivery)
        await server.execute_command(*claim, fence.consumer, 0, fence.entry, "IDLE", 10**9, "JUSTID")
        async with await open_backend(valkey_server.url(stream)) as another:
            delivery = await pull_one(another)
            ended = Ack(delivery=delivery, result=TaskResult(task_id=task_id), chunks=(FINAL,))
            assert await another.commit([ended]) == []
        chunks = await all_chunks(backend, task_id)
        assert_numbered(chunks)
        assert contents(chunks) == ["a", "b"]
