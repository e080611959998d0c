"""An external queue plugin is our queue: `SWARM_PLUGIN_QUEUE_ADDR`, or `grpc://host:port`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from queue_backends import (
    Backend,
    BackendMisconfigured,
    BackendUnavailable,
    Capability,
    ChunkType,
    Delivery,
    InvalidTask,
    LeaseLost,
    Priority,
    Task,
    TaskResult,
    TaskState,
    TokenUsage,
    WaitTimeout,
    open_backend,
)
from queue_backends.engines import engines
from tests.servers import Server, free_port
from tests.swarm_plugin.peers import QueuePlugin, queue_plugin
from worker.assembly import open_backends, open_worker
from worker.client import Fleet
from worker.settings import load_settings
from worker.worker import Worker

LIMIT_S = 30.0


@pytest.fixture
def _short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that stops waits for its last poll."""
    monkeypatch.setattr("queue_backends.swarm_plugin.queue.POLL_S", 0.2)


@asynccontextmanager
async def opened(generated: ModuleType) -> AsyncIterator[tuple[Backend, QueuePlugin]]:
    """A plugin, and our side of it."""
    async with (
        asyncio.timeout(LIMIT_S),
        queue_plugin(generated) as (address, plugin),
        await open_backend(f"grpc://{address}") as backend,
    ):
        yield backend, plugin


async def pulled(backend: Backend) -> Delivery:
    """The next task."""
    (delivery,) = await backend.queue.pull(1, 5.0)
    return delivery


def script(*turns: dict[str, Any]) -> dict[str, Any]:
    """Settings for a scripted agent."""
    return {
        "agent.model": "scripted",
        "agent.provider": "scripted",
        "agent.options": {"script": {"scenarios": [{"turns": list(turns)}]}},
        "retry_base_s": 0.0,
    }


@asynccontextmanager
async def worker_on(
    address: str, environ: dict[str, str], *turns: dict[str, Any]
) -> AsyncIterator[tuple[Fleet, Worker]]:
    """A worker whose queue is the plugin at this address."""
    settings = load_settings({"SWARM_PLUGIN_QUEUE_ADDR": address, **environ}, overrides=script(*turns))
    async with await open_backends(settings) as backend, open_worker(settings, backend) as worker:
        yield Fleet(backend), worker


async def test_a_task_goes_through_whole(generated: ModuleType) -> None:
    """What the protocol has no place for goes along in a text of its own; the plugin sees prompt and meta as ever."""
    task = Task(
        prompt="Say hi",
        meta={"team": "ops"},
        agent="poet",
        priority=Priority.HIGH,
        history=({"role": "user", "content": "before"},),
        overrides={"model": "m"},
        tenant="acme",
    )
    async with opened(generated) as (backend, plugin):
        task_id = await backend.queue.submit(task)
        assert (plugin.ready[0].prompt, plugin.ready[0].meta["team"]) == ("Say hi", "ops")
        delivery = await pulled(backend)
        assert delivery.task.id == task_id
        assert (delivery.task.agent, delivery.task.history, delivery.task.priority) == ("poet", task.history, "high")
        assert (delivery.task.meta, delivery.task.tenant) == ({"team": "ops"}, "acme")
        assert (delivery.first, delivery.next_attempt, delivery.task.attempt) == (True, 0, 0)
        assert (await backend.queue.status([task_id]))[0].state is TaskState.RUNNING
        usage = TokenUsage(input_tokens=3, output_tokens=4)
        await backend.queue.ack(delivery, TaskResult(task_id=task_id, output="hi", usage=usage))
        result = await backend.queue.wait(task_id, 5.0)
        assert (result.output, result.usage) == ("hi", usage)
        assert (await backend.queue.status([task_id]))[0].state is TaskState.SUCCEEDED
        with pytest.raises(LeaseLost):
            await backend.queue.ack(delivery, TaskResult(task_id=task_id))


async def test_a_foreign_agents_task_is_read_too(generated: ModuleType) -> None:
    """Whoever submits by the protocol alone has a prompt and texts."""
    async with opened(generated) as (backend, plugin):
        plugin.ready.append(generated.Task(id="x-1", prompt="hello", meta={"a": "b"}))
        delivery = await pulled(backend)
        assert (delivery.task.id, delivery.task.prompt, delivery.task.meta) == ("x-1", "hello", {"a": "b"})
        plugin.ready.append(generated.Task(id="x-2", prompt="hello", meta={"shoal.task": "{"}))
        assert await backend.queue.pull(1, 0.2) == []
        assert plugin.said[-1][:2] == ("nack", "x-2")
        assert plugin.said[-1][2].startswith("permanent failure: ")


async def test_polls_wait_as_kubeswarms_do(generated: ModuleType) -> None:
    """Two seconds at most; further tasks are taken only if they are there."""
    async with opened(generated) as (backend, plugin):
        assert await backend.queue.pull(1, 0.05) == []
        for number in range(3):
            await backend.queue.submit(Task(prompt=str(number)))
        assert [delivery.task.prompt for delivery in await backend.queue.pull(5, 60.0)] == ["0", "1", "2"]
        assert max(plugin.polls) == 2000


async def test_a_pull_that_is_cancelled_loses_no_task(generated: ModuleType) -> None:
    """What the plugin hands out to it is given to the next pull, or back."""
    async with opened(generated) as (backend, plugin):
        pulling = asyncio.create_task(backend.queue.pull(1, 30.0))
        while not plugin.polls:
            await asyncio.sleep(0.01)
        pulling.cancel()
        await asyncio.sleep(0)
        task_id = await backend.queue.submit(Task(prompt="late"))
        with pytest.raises(asyncio.CancelledError):
            await pulling
        assert (await pulled(backend)).task.id == task_id


async def test_a_task_that_comes_again_belongs_to_the_newer_delivery(generated: ModuleType) -> None:
    """The plugin alone decides when a task is handed out again: then the older run must stop."""
    async with opened(generated) as (backend, plugin):
        plugin.ready.append(generated.Task(id="x", prompt="p"))
        first = await pulled(backend)
        assert await backend.queue.renew([first]) == []
        plugin.ready.append(generated.Task(id="x", prompt="p"))
        second = await pulled(backend)
        assert (second.first, second.redeliveries, second.next_attempt) == (False, 1, 10)
        assert await backend.queue.renew([first, second]) == [first]
        with pytest.raises(LeaseLost):
            await backend.queue.nack(first, "late")
        await backend.queue.nack(second, "failed", retry_in_s=0)
        third = await pulled(backend)
        assert (third.task.attempt, third.redeliveries, third.next_attempt) == (1, 1, 20)
        await backend.queue.nack(third, "")
        fourth = await pulled(backend)
        assert (fourth.task.attempt, fourth.redeliveries) == (1, 1)


async def test_what_the_protocol_lacks_is_said(generated: ModuleType) -> None:
    """By the gaps, and by errors that say what to do instead."""
    async with opened(generated) as (backend, _plugin):
        assert {Capability.DELAYED, Capability.PAUSE, Capability.DEAD_LETTERS} <= set(backend.gaps)
        with pytest.raises(InvalidTask, match="no task for later"):
            await backend.queue.submit(Task(prompt="p"), run_at=1.0)
        with pytest.raises(BackendMisconfigured, match="cannot be paused"):
            await backend.queue.pause()
        assert await backend.queue.dead_letters() == []
        with pytest.raises(WaitTimeout):
            await backend.queue.wait("nobody", 0.1)
    (engine,) = [engine for engine in engines() if engine.name == "grpc"]
    assert engine.gaps == backend.gaps


async def test_a_plugin_that_is_away(generated: ModuleType) -> None:
    """At the start the error names the address; later, kubeswarm's own texts are used."""
    with pytest.raises(BackendMisconfigured, match="grpc://host:port"):
        await open_backend("grpc://")
    async with queue_plugin(generated) as (address, _):
        backend = await open_backend(f"grpc://{address}")
    async with backend:
        with pytest.raises(BackendUnavailable, match="grpc queue submit: "):
            await backend.queue.submit(Task(prompt="p"))
        with pytest.raises(BackendUnavailable, match="grpc queue poll: "):
            await backend.queue.pull(1, 0.1)


async def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start without a plugin fails after a bounded wait."""
    monkeypatch.setattr("queue_backends.swarm_plugin.queue._PING_S", 0.3)
    with pytest.raises(BackendUnavailable, match="no kubeswarm queue plugin answers at 127"):
        await open_backend(f"grpc://127.0.0.1:{free_port()}")


@pytest.mark.usefixtures("_short_polls")
async def test_a_worker_on_a_plugin_keeps_chunks_and_state_on_redis(
    generated: ModuleType, valkey_server: Server, stream: str
) -> None:
    """The variable replaces the queue alone: consumers and usage stay where TASK_QUEUE_URL is."""
    url = valkey_server.url(stream)
    async with (
        asyncio.timeout(LIMIT_S),
        queue_plugin(generated) as (address, plugin),
        worker_on(address, {"TASK_QUEUE_URL": url}, {"text": "one two"}) as (fleet, _),
        await open_backend(url) as redis,
    ):
        assert "with this process" not in fleet.backend.gaps.get(Capability.DURABLE, "")
        task_id = (await fleet.submit("go")).id
        chunks = [chunk async for chunk in redis.chunks.subscribe(task_id)]
        assert "".join(chunk.content for chunk in chunks if chunk.type is ChunkType.CONTENT) == "one two"
        assert chunks[-1].is_final
        assert (await fleet.task(task_id).result()).output == "one two"
        assert await redis.queue.results([task_id]) == [None]
        assert (await redis.state.counters(f"swarm-deliveries/{task_id}"))["delivered"] == 1
        assert plugin.said == [("ack", task_id, "one two")]


@pytest.mark.usefixtures("_short_polls")
async def test_failures_are_the_plugins_affair_within_our_bound(generated: ModuleType) -> None:
    """A failed attempt is handed back with its reason; after AGENT_MAX_RETRIES it is told to be permanent."""
    async with (
        asyncio.timeout(LIMIT_S),
        queue_plugin(generated) as (address, plugin),
        worker_on(address, {"AGENT_MAX_RETRIES": "1"}, {"fault": {"kind": "unavailable", "message": "down"}}) as (
            fleet,
            _,
        ),
    ):
        handle = await fleet.submit("go")
        result = await handle.result()
        assert result.error.startswith("permanent failure: ")
        assert [call for call, _, _ in plugin.said] == ["nack", "nack"]
        assert not plugin.said[0][2].startswith("permanent failure: ")


@pytest.mark.usefixtures("_short_polls")
async def test_cancel_ends_a_run_here_and_tells_the_plugin(generated: ModuleType) -> None:
    """The plugin is told; the run in this process ends, and its end is permanent."""
    async with (
        asyncio.timeout(LIMIT_S),
        queue_plugin(generated) as (address, plugin),
        worker_on(address, {}, {"text": "a b c d", "chunk_delay_s": 5.0}) as (fleet, _worker),
    ):
        handle = await fleet.submit("go")
        async for _chunk in handle:
            break
        await handle.cancel()
        chunks = [chunk async for chunk in handle]
        assert chunks[-1].content == "run cancelled"
        while not any(call == "nack" for call, _, _ in plugin.said):
            await asyncio.sleep(0.01)
        assert ("cancel", handle.id, "") in plugin.said
        assert ("nack", handle.id, "permanent failure: run cancelled") in plugin.said
