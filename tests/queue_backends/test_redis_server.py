"""Servers that go away, are too old, or refuse: what callers are told, and that work goes on afterwards."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from queue_backends import (
    Ack,
    BackendMisconfigured,
    BackendOptions,
    BackendUnavailable,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Priority,
    QueueError,
    Task,
    TaskResult,
    open_backend,
)
from queue_backends.redis.client import RedisClient, masked, translated
from tests.certificates import self_signed
from tests.servers import PROGRAMS, Server, free_port
from worker.persistence import persistently

LIMIT_S = 20


@pytest.fixture(params=["valkey", "redis"])
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each supported dialect that is installed."""
    program = PROGRAMS[request.param]()
    if program is None:
        pytest.skip(f"no {request.param} server on this machine")
    with Server(program) as server:
        yield server


async def test_each_dialect_carries_a_task(any_server: Server, stream: str) -> None:
    """Scripts, group, chunks and commit work on the oldest and the newest server."""
    async with await open_backend(any_server.url(stream)) as backend:
        task_id = await backend.queue.submit(Task(prompt="hi", priority=Priority.HIGH))
        (delivery,) = await backend.queue.pull(1, LIMIT_S)
        done = ChunkDraft(type=ChunkType.DONE, is_final=True)
        outcome = Ack(delivery=delivery, result=TaskResult(task_id=task_id, output="ok"), chunks=(done,))
        assert await backend.commit([outcome]) == []
        assert (await backend.queue.wait(task_id, LIMIT_S)).output == "ok"
        assert [chunk.seq async for chunk in backend.chunks.subscribe(task_id)] == [0]


async def test_unix_socket_works(valkey_server: Server, stream: str) -> None:
    """`unix://` with db and stream."""
    async with await open_backend(valkey_server.unix_url(stream)) as backend:
        task_id = await backend.queue.submit(Task(prompt="hi"))
        assert (await backend.queue.pull(1, LIMIT_S))[0].task.id == task_id


@pytest.mark.parametrize("choice", ["protocol=3", "decode_responses=True"])
async def test_a_url_does_not_choose_how_replies_are_read(valkey_server: Server, stream: str, choice: str) -> None:
    """What the driver would take from it does not change what comes to us, on any kind of connection."""
    async with asyncio.timeout(LIMIT_S), await open_backend(f"{valkey_server.url(stream)}&{choice}") as backend:
        pulling = asyncio.create_task(backend.queue.pull(1, LIMIT_S))
        await asyncio.gather(*(backend.queue.submit(Task(prompt=f"task {number}")) for number in range(20)))
        (delivery,) = await pulling
        assert delivery.task.prompt == "task 0"
        assert (await backend.queue.stats()).running == 1
    client = RedisClient(f"{valkey_server.url(stream)}&{choice}")
    assert await client.pipeline([("PING",), ("ECHO", "text")]) == [b"PONG", b"text"]
    await client.close()


async def test_absent_server_is_one_clear_error_without_the_password() -> None:
    """Nobody listens: unavailable, naming the address, hiding the secret."""
    with pytest.raises(BackendUnavailable) as caught:
        await open_backend("redis://user:sesame@127.0.0.1:1/0")
    assert "127.0.0.1:1" in str(caught.value)
    assert "sesame" not in str(caught.value)


async def test_wrong_password_is_a_set_up_error(stream: str) -> None:
    """Credentials are for people to mend, not to retry."""
    program = PROGRAMS["valkey"]()
    assert program is not None
    with Server(program, options=["--requirepass", "right"]) as server:
        with pytest.raises(BackendMisconfigured, match="credentials"):
            await open_backend(f"redis://:wrong@127.0.0.1:{server.port}?stream={stream}")
        async with await open_backend(f"redis://:right@127.0.0.1:{server.port}?stream={stream}") as backend:
            await backend.queue.ping()


async def test_too_old_server_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, queue_url: str) -> None:
    """The message names the version and what is needed."""
    monkeypatch.setattr("queue_backends.redis.client.OLDEST_SERVER", (99, 0))
    with pytest.raises(BackendMisconfigured, match="or newer is needed"):
        await open_backend(queue_url)


async def test_restart_in_the_middle_loses_nothing(durable_server: Server, stream: str) -> None:
    """Killed with a task in hand and tasks waiting: the same delivery still commits, and pulling goes on."""
    async with await open_backend(durable_server.url(stream), BackendOptions(lease_s=30)) as backend:
        ids = await backend.queue.submit_many([Task(prompt=str(number)) for number in range(3)])
        (held,) = await backend.queue.pull(1, LIMIT_S)
        await asyncio.to_thread(durable_server.kill)
        with pytest.raises(BackendUnavailable):
            await backend.queue.submit(Task(prompt="x"))
        await asyncio.to_thread(durable_server.start)
        async with asyncio.timeout(LIMIT_S):
            assert await backend.commit([Ack(delivery=held, result=TaskResult(task_id=ids[0], output="ok"))]) == []
            rest = await backend.queue.pull(10, LIMIT_S)
        assert [delivery.task.id for delivery in rest] == ids[1:]
        assert (await backend.queue.results(ids[:1]))[0] is not None


async def test_entry_in_a_lost_reply_is_found_again(durable_server: Server, stream: str) -> None:
    """A pull that is cancelled while the server answers leaves no entry to its lease: the next pull has it."""
    async with (
        await open_backend(durable_server.url(stream), BackendOptions(lease_s=60)) as worker,
        await open_backend(durable_server.url(stream)) as engine,
    ):
        pulling = asyncio.create_task(worker.queue.pull(1, 30))
        await asyncio.sleep(0.2)  # until it blocks: nothing tells
        with durable_server.frozen():
            submitting = asyncio.create_task(engine.queue.submit(Task(prompt="hi")))
            await asyncio.sleep(0.1)
            pulling.cancel()
            await asyncio.wait([pulling])
        task_id = await submitting
        async with asyncio.timeout(LIMIT_S):
            deliveries = await worker.queue.pull(1, LIMIT_S)
        assert [delivery.task.id for delivery in deliveries] == [task_id]


async def test_entry_of_a_reply_that_broke_off_is_found_again(queue_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has handed the task over and the connection broke before the answer came: the next pull has it."""
    async with await open_backend(queue_url, BackendOptions(lease_s=60)) as backend:
        task_id = await backend.queue.submit(Task(prompt="hi"))
        script = RedisClient.script
        broken: list[Any] = []

        async def breaking_once(self: RedisClient, name: str, *args: Any) -> Any:
            reply = await script(self, name, *args)
            if name == "pull" and not broken:
                broken.append(reply)
                raise BackendUnavailable("the connection broke")
            return reply

        monkeypatch.setattr(RedisClient, "script", breaking_once)
        with pytest.raises(BackendUnavailable):
            await backend.queue.pull(1, LIMIT_S)
        assert [delivery.task.id for delivery in await backend.queue.pull(1, LIMIT_S)] == [task_id]


async def test_subscription_survives_a_lost_connection(durable_server: Server, stream: str) -> None:
    """Chunks written around a restart all arrive, once and in order."""
    async with (
        await open_backend(durable_server.url(stream)) as worker,
        await open_backend(durable_server.url(stream)) as consumer,
    ):
        task_id = await worker.queue.submit(Task(prompt="hi"))
        (delivery,) = await worker.queue.pull(1, LIMIT_S)
        first_seen = asyncio.Event()

        async def consume() -> list[str]:
            texts = []
            async for chunk in consumer.chunks.subscribe(task_id):
                texts.append(chunk.content)
                first_seen.set()
            return texts

        consuming = asyncio.create_task(consume())
        async with asyncio.timeout(LIMIT_S):
            await worker.chunks.publish([_batch(delivery, "a")])
            await first_seen.wait()
            await asyncio.to_thread(durable_server.restart)
            await persistently(lambda: worker.chunks.publish([_batch(delivery, "b")]), "publish")
            await persistently(lambda: worker.chunks.publish([_batch(delivery, "c", is_final=True)]), "publish")
            assert await consuming == ["a", "b", "c"]


async def test_consumers_of_killed_processes_are_forgotten(
    queue_url: str, valkey_server: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group does not grow with every process that ever died; a consumer that still holds a task stays."""
    monkeypatch.setattr("queue_backends.redis.pulling.SWEEP_EVERY_S", 0.0)
    monkeypatch.setattr("queue_backends.redis.pulling.CONSUMER_IDLE_MS", -1)
    async with (
        redis.asyncio.Redis.from_url(valkey_server.url(), decode_responses=True) as raw,
        await open_backend(queue_url, BackendOptions(lease_s=60)) as backend,
    ):
        await backend.queue.submit_many([Task(prompt="a"), Task(prompt="b")])
        await raw.xreadgroup("agent-workers", "killed-with-a-task", {stream: ">"}, count=1)
        await raw.xgroup_createconsumer(stream, "agent-workers", "killed")
        assert len(await backend.queue.pull(10, LIMIT_S)) == 1
        names = {consumer["name"] for consumer in await raw.xinfo_consumers(stream, "agent-workers")}
    assert "killed" not in names
    assert "killed-with-a-task" in names


async def test_repeated_publish_after_a_lost_reply_writes_once(queue_url: str) -> None:
    """The same numbers again are refused by the server itself, not doubled."""
    async with await open_backend(queue_url) as backend:
        task_id = await backend.queue.submit(Task(prompt="hi"))
        (delivery,) = await backend.queue.pull(1, LIMIT_S)
        script: Any = backend.chunks._client.script  # type: ignore[attr-defined]
        calls: list[Any] = []

        async def reply_lost_once(*args: Any) -> Any:
            reply = await script(*args)
            calls.append(args)
            if len(calls) == 1:
                raise BackendUnavailable("the reply was lost")
            return reply

        backend.chunks._client.script = reply_lost_once  # type: ignore[attr-defined]
        batch = _batch(delivery, "once", is_final=True)
        with pytest.raises(BackendUnavailable):
            await backend.chunks.publish([batch])
        assert await backend.chunks.publish([batch]) == []
        assert [chunk.content async for chunk in backend.chunks.subscribe(task_id)] == ["once"]


def _batch(delivery: Any, text: str, *, is_final: bool = False) -> ChunkBatch:
    kind = ChunkType.DONE if is_final else ChunkType.CONTENT
    return ChunkBatch(delivery=delivery, chunks=(ChunkDraft(type=kind, content=text, is_final=is_final),))


def _driver_errors() -> list[type[Exception]]:
    found = [item for _, item in inspect.getmembers(redis.exceptions, inspect.isclass)]
    return [item for item in found if issubclass(item, redis.exceptions.RedisError)]


@pytest.mark.parametrize("kind", _driver_errors())
def test_every_error_of_the_driver_becomes_one_of_ours(kind: type[Exception]) -> None:
    """No exception of redis-py escapes; those about connections are worth another try."""
    try:
        error = kind("text")
    except (TypeError, ValueError):  # some want more than a text
        error = kind.__new__(kind)
    ours = translated(error)
    assert isinstance(ours, QueueError)
    if issubclass(kind, redis.exceptions.ConnectionError) and not issubclass(
        kind, redis.exceptions.AuthenticationError | redis.exceptions.AuthorizationError
    ):
        assert isinstance(ours, BackendUnavailable)


@pytest.mark.parametrize("text", ["READONLY x", "LOADING x", "OOM command not allowed", "MASTERDOWN x", "NOREPLICAS x"])
def test_server_states_that_pass_are_worth_waiting_for(text: str) -> None:
    """Also when a script reports them inside its own error text."""
    assert isinstance(translated(redis.exceptions.ResponseError(f"user_script:1: {text}")), BackendUnavailable)


def test_urls_are_shown_without_their_password() -> None:
    """Secrets never reach a message."""
    assert masked("redis://u:p@h:1/0") == "redis://u:***@h:1/0"


async def test_tls_with_a_private_authority(tmp_path: Path, stream: str) -> None:
    """`rediss://` checks the server's certificate against the authority that the URL names."""
    program = PROGRAMS["redis"]()
    if program is None:
        pytest.skip("the bundled Valkey is built without TLS, and there is no redis-server on PATH")
    certificate, key = self_signed(tmp_path)
    tls_port = free_port()
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    with Server(program, options=["--tls-port", str(tls_port), *files, "--tls-auth-clients", "no"]):
        url = f"rediss://localhost:{tls_port}/0?stream={stream}"
        async with await open_backend(f"{url}&ssl_ca_certs={certificate}") as backend:
            assert await backend.queue.submit(Task(prompt="hi"))
        with pytest.raises(BackendUnavailable, match="certificate"):
            await open_backend(url)


async def test_acl_user_with_the_rights_of_one_queue(stream: str) -> None:
    """A user may be confined to a queue's keys and channels."""
    program = PROGRAMS["valkey"]()
    assert program is not None
    rights = ["on", ">pw", f"~{stream}*", f"&{stream}*", "+@all", "-@dangerous", "+info"]
    with Server(program) as server:
        async with redis.asyncio.Redis.from_url(server.url()) as admin:
            await admin.execute_command("ACL", "SETUSER", "fleet", *rights)
        async with await open_backend(f"redis://fleet:pw@127.0.0.1:{server.port}?stream={stream}") as backend:
            task_id = await backend.queue.submit(Task(prompt="hi"))
            (delivery,) = await backend.queue.pull(1, LIMIT_S)
            await backend.queue.ack(delivery, TaskResult(task_id=task_id, output="ok"))
            assert (await backend.queue.wait(task_id, LIMIT_S)).output == "ok"
        with pytest.raises(BackendMisconfigured, match="ACL"):
            await open_backend(f"redis://fleet:pw@127.0.0.1:{server.port}?stream=somebody-elses")
