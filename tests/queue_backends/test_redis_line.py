"""One connection for many commands: whose reply is whose, and what becomes of those under way when it is lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from queue_backends.redis.client import MOST_CONNECTIONS, Pool
from queue_backends.redis.line import Line, Link
from tests.servers import Server

LIMIT_S = 30
SLOW_SCRIPT = "local n = 0 for i = 1, 2e7 do n = n + i end return 'slow'"


@pytest.fixture
async def pool(valkey_server: Server) -> AsyncIterator[Pool]:
    """The driver's connections to a server."""
    connections = Pool.from_url(f"redis://127.0.0.1:{valkey_server.port}", max_connections=MOST_CONNECTIONS, protocol=2)
    yield connections
    await connections.disconnect()


@pytest.fixture
async def line(pool: Pool) -> AsyncIterator[Line]:
    """A line to it."""
    made = Line(pool)
    yield made
    await made.close()


@pytest.fixture
async def admin(valkey_server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """Somebody else at the same server."""
    async with redis.asyncio.Redis(port=valkey_server.port, decode_responses=True) as client:
        yield client


async def test_each_caller_gets_its_own_reply(line: Line) -> None:
    """Many at once, an error among them: the connection is one, and nobody gets another's answer."""
    async with asyncio.timeout(LIMIT_S):
        calls = [line.call("ECHO", str(number)) for number in range(100)]
        replies = await asyncio.gather(
            *calls, line.call("NO-SUCH-COMMAND"), line.call("ECHO", "last"), return_exceptions=True
        )
    assert replies[:100] == [str(number).encode() for number in range(100)]
    assert isinstance(replies[100], redis.exceptions.ResponseError)
    assert replies[101] == b"last"


async def test_the_reply_of_a_cancelled_caller_is_nobody_elses(line: Line) -> None:
    """It is on its way when its caller goes: the next caller gets its own."""
    async with asyncio.timeout(LIMIT_S):
        first_id = await line.call("CLIENT", "ID")
        slow = asyncio.create_task(line.call("EVAL", SLOW_SCRIPT, 0))
        await asyncio.sleep(0)  # it is sent
        slow.cancel()
        assert await line.call("ECHO", "mine") == b"mine"
        assert await line.call("CLIENT", "ID") == first_id
    assert slow.cancelled()


async def test_a_server_that_has_hung_up_is_noticed_before_anything_is_sent(
    line: Line, admin: redis.asyncio.Redis
) -> None:
    """Even if the event loop has not had a chance to hear of it: no command is lost to a connection that is gone."""
    async with asyncio.timeout(LIMIT_S):
        for _ in range(20):
            killed = await line.call("CLIENT", "ID")
            await admin.client_kill_filter(_id=str(killed))
            assert await line.call("CLIENT", "ID") != killed


async def test_a_lost_connection_is_told_to_all_who_wait(line: Line, admin: redis.asyncio.Redis) -> None:
    """They get the driver's own error; later calls make a new connection."""
    async with asyncio.timeout(LIMIT_S):
        blocked = await line.call("CLIENT", "ID")
        waiting = [asyncio.create_task(line.call("BLPOP", "nothing", 0)), asyncio.create_task(line.call("PING"))]
        while "flags=b" not in await _facts(admin, blocked):
            await asyncio.sleep(0.01)  # until the server has it: nothing tells
        await admin.client_kill_filter(_id=str(blocked))
        for failed in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(failed, redis.exceptions.ConnectionError)
        assert await line.call("PING") == b"PONG"


async def test_replies_that_nobody_looks_at_are_no_complaints(line: Line, admin: redis.asyncio.Redis) -> None:
    """Of two commands whose connection is lost, the caller hears of the first: the second's error is not left over."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with asyncio.timeout(LIMIT_S):
        (blocked,) = await line.call_alone([("CLIENT", "ID")])
        waiting = asyncio.create_task(line.call_alone([("BLPOP", "nothing", 0), ("PING",)]))
        while "flags=b" not in await _facts(admin, blocked):
            await asyncio.sleep(0.01)  # until the server has it: nothing tells
        await admin.client_kill_filter(_id=str(blocked))
        await asyncio.wait([waiting])
    assert isinstance(waiting.exception(), redis.exceptions.ConnectionError)
    del waiting
    gc.collect()
    assert complaints == []


async def test_what_was_sent_before_a_drop_is_answered_yet(line: Line) -> None:
    """Others have found the connection useless for new commands; who waits for a reply loses nothing by that."""
    async with asyncio.timeout(LIMIT_S):
        before = await line.call("CLIENT", "ID")
        slow = asyncio.create_task(line.call("EVAL", SLOW_SCRIPT, 0))
        await asyncio.sleep(0)  # it is sent
        line.drop()
        assert await line.call("CLIENT", "ID") != before
        assert await slow == b"slow"


async def test_a_drop_from_another_thread(line: Line, admin: redis.asyncio.Redis) -> None:
    """Another event loop has found out: the connection is closed where it lives, and the next call makes a new one."""
    async with asyncio.timeout(LIMIT_S):
        before = await line.call("CLIENT", "ID")
        await asyncio.to_thread(line.drop)
        while await _facts(admin, before):
            await asyncio.sleep(0.01)  # until the server has noticed: nothing tells
        assert await line.call("CLIENT", "ID") != before


async def test_drops_without_end_use_up_no_connections(line: Line) -> None:
    """Each former connection goes back to the driver's pool."""
    async with asyncio.timeout(LIMIT_S):
        for _ in range(3 * MOST_CONNECTIONS):
            assert await line.call("PING") == b"PONG"
            line.drop()


async def test_a_cancelled_wait_ends_at_the_server_too(line: Line, admin: redis.asyncio.Redis) -> None:
    """Nothing may be handed to a reader that has gone: its connection goes with it."""
    async with asyncio.timeout(LIMIT_S):
        (blocked,) = await line.call_alone([("CLIENT", "ID")])
        waiting = asyncio.create_task(line.call_alone([("BLPOP", "list", 0), ("PING",)]))
        while "flags=b" not in await _facts(admin, blocked):
            await asyncio.sleep(0.01)  # until the server has it: nothing tells
        waiting.cancel()
        await asyncio.wait([waiting])
        while await _facts(admin, blocked):
            await asyncio.sleep(0.01)  # until the server has noticed: nothing tells
        await admin.rpush("list", "kept")
        assert await admin.llen("list") == 1
        assert await line.call_alone([("BLPOP", "list", 0), ("ECHO", "x")]) == [[b"list", b"kept"], b"x"]


async def test_a_reply_that_comes_with_the_cancel_is_heard(
    line: Line, admin: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is cancelled between the arrival of the reply and its own next step: the reply is kept."""
    heard: list[list[Any] | None] = []
    receive = Link.data_received

    def receive_and_cancel(link: Link, data: bytes) -> None:
        receive(link, data)
        if b"kept" in data:
            waiting.cancel()

    monkeypatch.setattr(Link, "data_received", receive_and_cancel)
    async with asyncio.timeout(LIMIT_S):
        waiting = await _blocked(line, heard)
        await admin.rpush("list", "kept")
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert heard == [[[b"list", b"kept"], b"x"]]
        assert await line.call_alone([("LLEN", "list")]) == [0]


async def test_who_was_cancelled_can_wait_for_the_reply(line: Line, admin: redis.asyncio.Redis) -> None:
    """It comes later, is heard all the same, and the connection is still good for the next call."""
    heard: list[list[Any] | None] = []
    async with asyncio.timeout(LIMIT_S):
        (before,) = await line.call_alone([("CLIENT", "ID")])
        waiting = await _blocked(line, heard)
        waiting.cancel()
        await asyncio.sleep(0)  # it has been told
        await admin.rpush("list", "late")
        await asyncio.wait([waiting])
        assert heard == [[[b"list", b"late"], b"x"]]
        assert await line.call_alone([("CLIENT", "ID")]) == [before]


async def test_there_is_nothing_to_hear_on_a_lost_connection(line: Line, admin: redis.asyncio.Redis) -> None:
    """It goes while somebody who was cancelled still listens: that ends at once, and the next call has another one."""
    heard: list[list[Any] | None] = []
    async with asyncio.timeout(LIMIT_S):
        (before,) = await line.call_alone([("CLIENT", "ID")])
        waiting = await _blocked(line, heard)
        waiting.cancel()
        await asyncio.sleep(0)  # it has been told
        await admin.client_kill_filter(_id=str(before))
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert heard == [None]
        assert await line.call_alone([("CLIENT", "ID")]) != [before]


async def test_whoever_listens_too_late_is_told_at_once(line: Line, admin: redis.asyncio.Redis) -> None:
    """The connection went between the cancel and that."""
    async with asyncio.timeout(LIMIT_S):
        (before,) = await line.call_alone([("CLIENT", "ID")])
        with await line.begin_alone([("BLPOP", "list", 0)]) as alone:
            waiting = asyncio.create_task(alone.replies())
            await asyncio.sleep(0)  # it waits
            waiting.cancel()
            await asyncio.wait([waiting])
            await admin.client_kill_filter(_id=str(before))
            while line.client_id is not None:
                await asyncio.sleep(0.01)  # until the event loop has heard of it: nothing tells
            assert await alone.heard_out(2 * LIMIT_S) is None


async def test_an_error_that_the_server_answers_costs_no_connection(line: Line) -> None:
    """Whoever asks for a group that is not there, and makes it then, goes on over the same connection."""
    async with asyncio.timeout(LIMIT_S):
        before = await line.call_alone([("CLIENT", "ID")])
        with pytest.raises(redis.exceptions.ResponseError, match="NOGROUP"):
            await line.call_alone([("XREADGROUP", "GROUP", "g", "c", "BLOCK", 1, "STREAMS", "nothing", ">"), ("PING",)])
        assert await line.call_alone([("CLIENT", "ID")]) == before


@pytest.mark.parametrize(
    "answer", [b"rubbish\r\n", b"*-1\r\n+x\r\n+nobody asked\r\n"], ids=["no-protocol", "one-too-many"]
)
async def test_a_server_that_talks_nonsense_is_hung_up_on(answer: bytes) -> None:
    """Under a blocked call: its caller hears of a lost connection, or has the reply that came before the nonsense."""
    async with _answering(b"BLPOP", answer) as (port, gone):
        line = Line(Pool.from_url(f"redis://127.0.0.1:{port}", max_connections=2, protocol=2))
        async with asyncio.timeout(LIMIT_S):
            await line.call_alone([("PING",)])
            calling = asyncio.create_task(line.call_alone([("BLPOP", "list", 0), ("ECHO", "x")]))
            await asyncio.wait([calling])
            await gone.wait()
        failure = calling.exception()
        if answer.startswith(b"*"):
            assert failure is None
            assert calling.result() == [None, b"x"]
        else:
            assert isinstance(failure, redis.exceptions.ConnectionError)
        await line.close()


async def test_an_unreachable_server_is_the_drivers_error() -> None:
    """In the words by which others know that nothing was sent."""
    line = Line(Pool.from_url("redis://127.0.0.1:1", max_connections=2, protocol=2))
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(redis.exceptions.ConnectionError, match="connecting to"):
            await line.call("PING")
        await line.close()


async def _facts(admin: redis.asyncio.Redis, client_id: int) -> str:
    """The server's line about a connection; empty if it is gone."""
    return str(await admin.execute_command("CLIENT", "LIST", "ID", client_id)).strip() if client_id else ""


async def _blocked(line: Line, heard: list[list[Any] | None]) -> asyncio.Task[list[Any]]:
    """Somebody who blocks, and hears the server out when cancelled."""
    is_sent = asyncio.Event()

    async def call() -> list[Any]:
        with await line.begin_alone([("BLPOP", "list", 0), ("ECHO", "x")]) as alone:
            is_sent.set()
            try:
                return await alone.replies()
            except asyncio.CancelledError:
                heard.append(await alone.heard_out(LIMIT_S))
                raise

    waiting = asyncio.create_task(call())
    await is_sent.wait()
    return waiting


@asynccontextmanager
async def _answering(request: bytes, answer: bytes) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A server's port that says OK to everything but one request; and whether somebody has hung up on it."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            commands = data.count(b"*")
            writer.write(answer if request in data else b"+OK\r\n" * commands)
        gone.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], gone
