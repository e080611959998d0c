"""A write whose reply got lost is repeated as a whole: whatever it holds must be written once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio

from queue_backends import Ack, BackendUnavailable, Checkpoint, TaskResult, open_backend
from queue_backends.conformance.support import FINAL, all_chunks, contents, pull_some, text
from queue_backends.interfaces import Backend, ChunkBatch, Delivery
from tests.proxies import Proxy
from tests.servers import Server


async def _by_publish(backend: Backend, deliveries: list[Delivery]) -> None:
    batches = [ChunkBatch(delivery=each, chunks=(text(f"of {each.task.prompt}"),)) for each in deliveries]
    assert await backend.chunks.publish(batches) == []


async def _by_commit(backend: Backend, deliveries: list[Delivery]) -> None:
    steps = [Checkpoint(delivery=each, chunks=(text(f"of {each.task.prompt}"),)) for each in deliveries]
    assert await backend.commit(steps) == []


@pytest.mark.parametrize("write", [_by_publish, _by_commit])
async def test_entries_of_two_lanes_with_one_id(
    write: Callable[[Backend, list[Delivery]], Awaitable[None]], valkey_server: Server, stream: str
) -> None:
    """Two lanes may give the same id in the same millisecond: they are written in one step, and once."""
    async with redis.asyncio.Redis.from_url(valkey_server.url()) as server:
        for name, prompt in ((stream, "normal"), (f"{stream}:high", "high")):
            await server.xadd(name, {"prompt": prompt, "original_task_id": prompt}, id="5-1")
    async with (
        Proxy(valkey_server.port) as proxy,
        await open_backend(proxy.url(stream)) as backend,
    ):
        deliveries = await pull_some(backend, 2)
        last = deliveries[-1].task.prompt
        lost = proxy.lose_reply(f"of {last}".encode())
        with pytest.raises(BackendUnavailable):
            await write(backend, deliveries)
        await lost.wait()
        await write(backend, deliveries)
        ends = [Ack(delivery=each, result=TaskResult(task_id=each.task.id), chunks=(FINAL,)) for each in deliveries]
        assert await backend.commit(ends) == []
        for each in deliveries:
            assert contents(await all_chunks(backend, each.task.id)) == [f"of {each.task.prompt}"]
