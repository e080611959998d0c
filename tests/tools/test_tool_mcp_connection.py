"""The connection to an MCP server: names, time limits, and being ended twice."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from providers.transport import Transport
from tests.tools.tool_servers import call, own_stdio_server
from worker.tools import McpServer
from worker.tools.backoff import Backoff
from worker.tools.catalogue import ToolCatalogue
from worker.tools.mcp import McpConnection
from worker.tools.mcp_tools import tool_name


@pytest.mark.parametrize(
    ("server", "tool", "name"),
    [
        ("search", "find", "search__find"),
        ("my.server", "ns/find it", "my_server__ns_find_it"),
    ],
)
def test_names_fit_what_vendors_allow(server: str, tool: str, name: str) -> None:
    """ark's `<server>__<tool>`, with what no vendor takes replaced."""
    assert tool_name(server, tool) == name


def test_long_names_are_cut_and_stay_different() -> None:
    """64 characters at most; two tools that differ at the end only do not become one."""
    first, second = tool_name("s" * 40, "t" * 40 + "1"), tool_name("s" * 40, "t" * 40 + "2")

    assert len(first) == len(second) == 64
    assert first != second


async def test_a_server_that_never_answers_is_given_up_and_named(http: Transport) -> None:
    """Connecting has a time limit, and a call to such a server says why it failed."""
    silent = McpServer(name="silent", command="sleep", args=("3600",))
    connection = McpConnection(silent, http, connect_timeout_s=0.2, reconnect_wait_s=0.05)

    async with asyncio.timeout(30), ToolCatalogue(servers=[connection]) as catalogue:
        assert catalogue.problems() == {"silent": "no answer within 0.2 s"}


async def test_a_long_absence_is_told_once_each_time(http: Transport, tmp_path: Path) -> None:
    """Whoever is to hear of it hears once however many attempts follow, and again after the server was there between;
    a hook that fails is asked again. Nobody hears of a server that is away for a moment."""
    marker = tmp_path / "there"
    own = own_stdio_server()
    script = f'test -e {marker} && exec "$@"; exit 1'
    server = McpServer(name="own", command="sh", args=("-c", script, "-", own.command, *own.args))
    told: list[str] = []
    heard = asyncio.Event()

    async def hear(name: str, reason: str) -> None:
        told.append(name)
        if len(told) == 1:
            raise ConnectionError("the store is away")
        heard.set()

    async def never(name: str, reason: str) -> None:
        raise AssertionError(f"{name} is told of: {reason}")

    backoff = Backoff(first_s=0.02, longest_s=0.05)
    connection = McpConnection(server, http, backoff=backoff, on_long_away=hear, long_away_s=0.0)
    patient = McpConnection(server, http, backoff=Backoff(first_s=0.02), on_long_away=never, long_away_s=3600.0)
    async with asyncio.timeout(50), ToolCatalogue(servers=[connection]), ToolCatalogue(servers=[patient]):
        await heard.wait()
        assert told == ["own", "own"]
        marker.touch()
        pid = int((await connection.call("pid", {}, True)).text)
        assert told == ["own", "own"]
        heard.clear()
        marker.unlink()
        os.kill(pid, signal.SIGKILL)
        await heard.wait()
    assert told == ["own"] * 3


async def test_many_calls_share_one_session(http: Transport) -> None:
    """Calls run side by side on one process; the answers come back to their callers."""
    connection = McpConnection(own_stdio_server(), http)

    async with ToolCatalogue(servers=[connection]) as catalogue:
        outcomes = await asyncio.gather(*(call(catalogue, "own__add", f'{{"a": {n}, "b": 1}}') for n in range(50)))
        pids = {(await call(catalogue, "own__pid")).content for _ in range(2)}

    assert [outcome.content for outcome in outcomes] == [str(n + 1) for n in range(50)]
    assert len(pids) == 1


async def test_a_second_cancel_does_not_leave_the_server_behind(http: Transport) -> None:
    """Whoever is impatient twice still gets a clean end."""
    connection = McpConnection(own_stdio_server(), http)
    serving = asyncio.create_task(connection.serve())
    async with asyncio.timeout(30):
        await connection.first_attempt()
        pid = int((await connection.call("pid", {}, True)).text)

        serving.cancel()
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_waits_double_and_start_over_after_a_steady_time() -> None:
    """What worked long enough begins at the first wait again; what failed at once goes on doubling."""
    now = [0.0]
    backoff = Backoff(first_s=0.5, longest_s=2.0, steady_s=10.0, random=lambda: 1.0, clock=lambda: now[0])

    failing = [backoff.next_wait_s() for _ in range(4)]
    backoff.reset()
    now[0] = 1.0
    flapping = backoff.next_wait_s()
    backoff.reset()
    now[0] = 20.0
    steady = backoff.next_wait_s()

    assert failing == [0.5, 1.0, 2.0, 2.0]
    assert flapping == 2.0
    assert steady == 0.5


async def test_a_wait_can_be_cut_short() -> None:
    """Somebody who needs the server does not sit out half a minute."""
    backoff = Backoff(first_s=0.01, longest_s=3600, random=lambda: 1.0)
    for _ in range(25):
        backoff.wake()
        async with asyncio.timeout(10):
            await backoff.wait()
