"""A pull that blocks, and is given up in the very moment in which its task comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import pytest

from queue_backends import Backend, BackendOptions, BackendUnavailable, Task, open_backend
from queue_backends.redis.client import RedisClient
from queue_backends.redis.line import Link
from queue_backends.redis.locating import Address, LocatedConnection
from queue_backends.redis.replicated import ReplicatedClient
from tests.servers import Server

LIMIT_S = 20
LONG = BackendOptions(lease_s=600)
"""No lease runs out in a test."""


@pytest.fixture
async def worker(valkey_server: Server, stream: str) -> AsyncIterator[Backend]:
    """Whose pull blocks."""
    async with await open_backend(valkey_server.url(stream), LONG) as backend:
        yield backend


@pytest.fixture
async def engine(valkey_server: Server, stream: str) -> AsyncIterator[Backend]:
    """Who submits."""
    async with await open_backend(valkey_server.url(stream), LONG) as backend:
        yield backend


@pytest.fixture
def on_data(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, Callable[[], object]], None]:
    """Do something as soon as bytes have arrived that contain these, before anybody who waited for them goes on."""

    def watch(awaited: bytes, act: Callable[[], object]) -> None:
        receive = Link.data_received

        def receive_and_act(link: Link, data: bytes) -> None:
            receive(link, data)
            if awaited in data:
                act()

        monkeypatch.setattr(Link, "data_received", receive_and_act)

    return watch


async def blocked(worker: Backend, engine: Backend) -> asyncio.Task[object]:
    """A pull that the server has; of a queue that it has just served, so that it does not look around first."""
    await engine.queue.submit(Task(prompt="before"))
    assert len(await worker.queue.pull(1, LIMIT_S)) == 1
    is_sent = asyncio.Event()
    begin = Link.send

    async def told(link: Link, packed: bytes, replies: int) -> object:
        call = await begin(link, packed, replies)
        if b"XREADGROUP" in packed:
            is_sent.set()
        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "send", told)
        pulling: asyncio.Task[object] = asyncio.create_task(worker.queue.pull(1, LIMIT_S))
        await is_sent.wait()
    return pulling


async def test_a_task_that_comes_with_the_cancel_is_the_next_pulls(
    worker: Backend, engine: Backend, on_data: Callable[[bytes, Callable[[], object]], None]
) -> None:
    """It waits in the worker: the next pull has it without asking the server, and it counts as delivered once."""
    async with asyncio.timeout(LIMIT_S):
        pulling = await blocked(worker, engine)
        on_data(b"comes now", pulling.cancel)
        task_id = await engine.queue.submit(Task(prompt="comes now"))
        await asyncio.wait([pulling])
        assert pulling.cancelled()
        (delivery,) = await worker.queue.pull(1, 0)
    assert (delivery.task.id, delivery.redeliveries, delivery.first) == (task_id, 0, True)


async def test_a_task_that_comes_into_a_paused_queue_goes_back_though_nobody_pulls(
    worker: Backend, engine: Backend, on_data: Callable[[bytes, Callable[[], object]], None]
) -> None:
    """The pull is cancelled as it comes, and the queue was paused before: nobody has it until it is resumed."""
    async with asyncio.timeout(LIMIT_S):
        pulling = await blocked(worker, engine)
        on_data(b"not yet", pulling.cancel)
        await engine.queue.pause()
        task_id = await engine.queue.submit(Task(prompt="not yet"))
        await asyncio.wait([pulling])
        assert pulling.cancelled()
        assert await worker.queue.pull(1, 0) == []
        assert (await engine.queue.stats()).ready == 1
        await engine.queue.resume()
        (delivery,) = await worker.queue.pull(1, LIMIT_S)
    assert delivery.task.id == task_id


async def test_an_entry_that_comes_with_the_cancel_and_cannot_be_read_is_refused(
    worker: Backend, engine: Backend, stream: str, on_data: Callable[[bytes, Callable[[], object]], None]
) -> None:
    """What another program has added, without a prompt: it goes to the dead letters, and is in nobody's way."""
    async with asyncio.timeout(LIMIT_S):
        pulling = await blocked(worker, engine)
        on_data(b"no prompt", pulling.cancel)
        await raw_client(engine).command("XADD", stream, "*", "note", "no prompt")
        await asyncio.wait([pulling])
        assert pulling.cancelled()
        assert await worker.queue.pull(1, 0) == []
        (letter,) = await engine.queue.dead_letters()
    assert "prompt" in letter.error


@pytest.fixture
def at_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Do something when this script is about to be called for the first time."""

    def watch(awaited: str, act: Callable[[], object]) -> None:
        call = RedisClient.script

        async def act_and_call(client: RedisClient, name: str, keys: Any, args: Any, **more: Any) -> Any:
            if name == awaited:
                monkeypatch.setattr(RedisClient, "script", call)
                act()
            return await call(client, name, keys, args, **more)

        monkeypatch.setattr(RedisClient, "script", act_and_call)

    return watch


async def test_a_cancel_while_an_entry_is_refused_loses_none_that_came_with_it(
    worker: Backend, engine: Backend, stream: str, at_script: Callable[[str, Callable[[], object]], None]
) -> None:
    """One reply had two entries, of which one cannot be read: the next pull has the other, and the first is refused."""
    async with asyncio.timeout(LIMIT_S):
        pulling = await blocked(worker, engine)
        at_script("refuse", pulling.cancel)
        await raw_client(engine).pipeline(
            [("XADD", f"{stream}:high", "*", "note", "no prompt"), ("XADD", stream, "*", "prompt", "good")],
            transaction=True,
        )
        await asyncio.wait([pulling])
        assert pulling.cancelled()
        (delivery,) = await worker.queue.pull(1, 0)
        assert (delivery.task.prompt, delivery.redeliveries, delivery.first) == ("good", 0, True)
        assert len(await engine.queue.dead_letters()) == 1


async def test_a_cancel_while_a_task_goes_back_into_a_paused_queue_does_not_lose_it(
    worker: Backend, engine: Backend, at_script: Callable[[str, Callable[[], object]], None]
) -> None:
    """Whether it has gone back is not known: whoever pulls next has it, once."""
    async with asyncio.timeout(LIMIT_S):
        pulling = await blocked(worker, engine)
        at_script("commit", pulling.cancel)
        await engine.queue.pause()
        task_id = await engine.queue.submit(Task(prompt="not yet"))
        await asyncio.wait([pulling])
        assert pulling.cancelled()
        await engine.queue.resume()
        (delivery,) = await worker.queue.pull(5, LIMIT_S)
    assert delivery.task.id == task_id


async def test_a_connection_that_breaks_after_the_cancel_does_not_undo_it(
    worker: Backend,
    engine: Backend,
    on_data: Callable[[bytes, Callable[[], object]], None],
    at_script: Callable[[str, Callable[[], object]], None],
) -> None:
    """The task came with the cancel into a paused queue, and cannot be given back: a worker that is leaving leaves."""

    def fail() -> None:
        raise BackendUnavailable("gone")

    async with asyncio.timeout(LIMIT_S):
        pulling = await blocked(worker, engine)
        on_data(b"not yet", pulling.cancel)
        at_script("commit", fail)
        await engine.queue.pause()
        task_id = await engine.queue.submit(Task(prompt="not yet"))
        await asyncio.wait([pulling])
        assert pulling.cancelled()
        await engine.queue.resume()
        (delivery,) = await worker.queue.pull(5, LIMIT_S)
    assert delivery.task.id == task_id


async def test_a_pull_that_is_cancelled_twice_loses_nothing(
    worker: Backend, engine: Backend, on_data: Callable[[bytes, Callable[[], object]], None]
) -> None:
    """Whoever is in a hurry does not hear the server out: what it gave is found at the next pull."""
    async with asyncio.timeout(LIMIT_S):
        for number in range(5):
            pulling = await blocked(worker, engine)
            pulling.cancel()
            for _ in range(number):
                await asyncio.sleep(0)
            task_id = asyncio.create_task(engine.queue.submit(Task(prompt=f"task {number}")))
            pulling.cancel()
            await asyncio.wait([pulling])
            assert pulling.cancelled()
            (delivery,) = await worker.queue.pull(1, LIMIT_S)
            assert delivery.task.id == await task_id
            assert delivery.redeliveries == 0


async def test_a_cancelled_pull_costs_no_connection(worker: Backend, engine: Backend) -> None:
    """The server ends the blocked read as it is asked to, so that the next pull goes on over the same connection."""
    async with asyncio.timeout(LIMIT_S):
        pulling = await blocked(worker, engine)
        made = await connections_made(engine)
        for _ in range(3):
            pulling.cancel()
            await asyncio.wait([pulling])
            assert pulling.cancelled()
            pulling = await blocked(worker, engine)
        assert await connections_made(engine) == made
        pulling.cancel()
        await asyncio.wait([pulling])


async def test_a_client_whose_writes_are_replicated_hears_the_server_out_too(valkey_server: Server) -> None:
    """Its blocked read goes on when its caller is cancelled: it is ended at the server, and its reply is not lost."""
    client = ReplicatedClient(valkey_server.url(), replicas=0, lease_s=30, locator=Known(valkey_server.port))
    unheard: list[object] = []
    async with asyncio.timeout(LIMIT_S):
        blocking = asyncio.create_task(
            client.blocking([("BLPOP", "nobody-fills-this", 600)], timeout_s=LIMIT_S, unheard=unheard.append)
        )
        while b"blocked_clients:0\r" in await client.command("INFO", "clients"):
            await asyncio.sleep(0.01)  # nothing tells
        blocking.cancel()
        await asyncio.wait([blocking])
        await client.close()
    assert blocking.cancelled()
    assert unheard == [[None]]


class Known:
    """A locator for one server."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def locate(self) -> Address:
        return Address("127.0.0.1", self._port)

    async def vet(self, connection: LocatedConnection) -> None:
        return

    def doubt(self) -> None:
        return

    def twin(self) -> Self:
        return type(self)(self._port)


def raw_client(backend: Backend) -> RedisClient:
    """A connection that adds what no client of ours would."""
    client = backend.queue._client  # type: ignore[attr-defined]  # of this engine alone
    assert isinstance(client, RedisClient)
    return client


async def connections_made(backend: Backend) -> str:
    """How many the server has ever accepted."""
    info = (await raw_client(backend).command("INFO", "stats")).decode()
    return str(next(line for line in info.splitlines() if line.startswith("total_connections_received:")))
