"""MCP servers: real ones, in processes of their own, over each transport, killed and cancelled in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Literal

import pytest
from structlog.testing import capture_logs

from providers.transport import Transport
from tests.tools.tool_servers import call, mcp_over_http, own_stdio_server
from worker.tools import McpServer
from worker.tools.backoff import Backoff
from worker.tools.build import build_catalogue
from worker.tools.catalogue import ToolCatalogue
from worker.tools.mcp import McpConnection

TIME_SERVER = str(Path(sys.executable).parent / "mcp-server-time")

pytestmark = pytest.mark.timeout(60)


def open_server(http: Transport, *servers: McpServer, environ: dict[str, str] | None = None) -> ToolCatalogue:
    return build_catalogue(http, mcp_servers=servers, with_queue=False, environ=environ or {})


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_official_time_server_over_stdio(http: Transport) -> None:
    """The newest protocol revision; the answer has text and a structured value."""
    server = McpServer(name="time", command=TIME_SERVER, args=("--local-timezone", "UTC"))

    with capture_logs() as logs:
        async with open_server(http, server) as catalogue:
            outcome = await call(catalogue, "time__get_current_time", '{"timezone": "UTC"}')

            assert catalogue.problems() == {}
    assert outcome.structured["timezone"] == "UTC"
    assert json.loads(outcome.content) == outcome.structured
    assert [line["protocol"] for line in logs if line["event"] == "tool server connected"] == ["2026-07-28"]


async def test_the_official_npm_server_over_stdio(http: Transport, everything: str) -> None:
    """The older revision: texts, pictures, structured values, resources, hints, and errors of the tool itself."""
    server = McpServer(name="every", command=everything, args=("stdio",), env={"DEMO_API_KEY": "s3cret-value"})

    with capture_logs() as logs:
        async with open_server(http, server) as catalogue:
            echo = await call(catalogue, "every__echo", '{"message": "hi"}')
            image = await call(catalogue, "every__get-tiny-image")
            structured = await call(catalogue, "every__get-structured-content", '{"location": "Chicago"}')
            resource = await call(catalogue, "every__get-resource-reference")
            environment = await call(catalogue, "every__get-env")
            wrong = await call(catalogue, "every__get-resource-reference", '{"resourceId": -3}')
            spec = catalogue.spec("every__echo")

    assert [line["protocol"] for line in logs if line["event"] == "tool server connected"] == ["2025-11-25"]
    assert echo.content == "Echo: hi"
    assert [picture.media_type for picture in image.images] == ["image/png"]
    assert set(structured.structured) == {"temperature", "conditions", "humidity"}
    assert "[resource demo://resource/dynamic/text/1]\n" in resource.content
    assert '"DEMO_API_KEY": "[redacted]"' in environment.content
    assert wrong.is_error
    assert spec is not None
    assert spec.idempotent
    assert spec.kind == "mcp"


async def test_the_official_npm_server_over_http(http: Transport, everything: str) -> None:
    """Streamable HTTP with a server-side session, which a restarted server does not know any more."""
    port = _free_port()
    server = McpServer(name="every", url=f"http://127.0.0.1:{port}/mcp")
    first = await _start_everything(everything, port)
    async with open_server(http, server) as catalogue:
        before = await call(catalogue, "every__echo", '{"message": "one"}')
        first.kill()
        await first.wait()
        second = await _start_everything(everything, port)
        after = await call(catalogue, "every__echo", '{"message": "two"}')
    second.kill()
    await second.wait()

    assert before.content == "Echo: one"
    assert after.content == "Echo: two"


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_our_own_server_over_http_with_a_bearer_token(http: Transport, transport: Literal["http", "sse"]) -> None:
    """The token of the named variable is sent with each request, and does not reach the model."""
    async with mcp_over_http(transport) as (url, _):
        server = McpServer(
            name="own",
            url=url,
            transport=transport,
            auth_type="bearer",
            token_env_var="OWN_TOKEN",
        )
        async with open_server(http, server, environ={"OWN_TOKEN": "s3cret-value"}) as catalogue:
            total = await call(catalogue, "own__add", '{"a": 1, "b": 2}')
            header = await call(catalogue, "own__authorization")

    assert (total.content, total.structured) == ("3", {"result": 3})
    assert header.content == "Bearer [redacted]"


@pytest.mark.parametrize(
    ("server", "environ", "reason"),
    [
        (
            McpServer(name="s", url="http://127.0.0.1:9/", auth_type="bearer"),
            {},
            "bearer auth configured but tokenEnvVar is empty",
        ),
        (
            McpServer(name="s", url="http://127.0.0.1:9/", auth_type="bearer", token_env_var="T"),
            {"T": ""},
            'bearer token env var "T" is not set or empty',
        ),
        (
            McpServer(name="s", url="http://127.0.0.1:9/", auth_type="mtls", cert_file="c"),
            {},
            "mtls auth configured but certFile or keyFile is empty",
        ),
    ],
)
async def test_missing_credentials_have_arks_texts(
    http: Transport, server: McpServer, environ: dict[str, str], reason: str
) -> None:
    """What is missing is named, and nothing was sent."""
    async with open_server(http, server, environ=environ) as catalogue:
        assert catalogue.problems() == {"s": f'MCP server "s" auth setup failed: {reason}'}


async def test_servers_that_are_down_leave_the_others_working(http: Transport) -> None:
    """Each has its reason in `problems`, said once in the log; the good one answers."""
    servers = (
        McpServer(name="refused", url="http://127.0.0.1:9/mcp?key=s3cret-value"),
        McpServer(name="missing", command="no-such-program-here"),
        McpServer(name="dies", command="sh", args=("-c", "echo no licence >&2; exit 3")),
        own_stdio_server(),
    )

    with capture_logs() as logs:
        async with open_server(http, *servers) as catalogue:
            total = await call(catalogue, "own__add", '{"a": 1, "b": 2}')
            problems = catalogue.problems()

    assert total.content == "3"
    assert set(problems) == {"refused", "missing", "dies"}
    assert problems["refused"].startswith("cannot reach http://127.0.0.1:9/mcp?…: ")
    assert "install it" in problems["missing"]
    assert problems["dies"].endswith("it wrote: …no licence")
    said = [line["server"] for line in logs if line["log_level"] == "warning"]
    assert sorted(said) == ["dies", "missing", "refused"]


async def test_a_server_killed_between_calls_is_back_for_the_next(http: Transport) -> None:
    """The next call waits for the new process."""
    async with open_server(http, own_stdio_server()) as catalogue:
        first = await call(catalogue, "own__pid")
        os.kill(int(first.content), signal.SIGKILL)
        second = await call(catalogue, "own__add", '{"a": 1, "b": 2}')
        third = await call(catalogue, "own__pid")

    assert second.content == "3"
    assert third.content != first.content


async def test_a_server_killed_in_the_middle_of_a_call(http: Transport, tmp_path: Path) -> None:
    """The call is not repeated: the model learns that its effect is unknown, and the next call works."""
    diary = tmp_path / "diary"
    async with open_server(http, own_stdio_server()) as catalogue:
        lost = await call(catalogue, "own__die", json.dumps({"diary": str(diary)}))
        following = await call(catalogue, "own__add", '{"a": 1, "b": 2}')

    assert lost.is_error
    assert "whether it took effect is not known" in lost.content
    assert following.content == "3"
    assert diary.read_text() == "called\n"


async def test_an_http_server_that_comes_back_is_used_again(http: Transport) -> None:
    """While it is away a call says so; then the next one works, without anybody's help."""
    port = _free_port()
    server = McpServer(name="own", url=f"http://127.0.0.1:{port}/mcp")
    connection = McpConnection(server, http, environ={}, backoff=Backoff(first_s=0.05, longest_s=0.2))
    async with asyncio.timeout(50), ToolCatalogue(servers=[connection]) as catalogue:
        away = catalogue.problems()
        async with mcp_over_http("http", port=port):
            first = await connection.call("add", {"a": 1, "b": 2}, True)
        lost = await call(catalogue, "own__pid")
        async with mcp_over_http("http", port=port):
            second = await call(catalogue, "own__add", '{"a": 2, "b": 2}')

    assert away["own"].startswith(f"cannot reach http://127.0.0.1:{port}/mcp: ")
    assert (first.text, second.content) == ("3", "4")
    assert lost.is_error
    assert lost.content.startswith('MCP server "own"')  # "…: the connection was lost" or "… cannot be reached"


async def test_a_call_that_may_be_repeated_is_repeated(http: Transport, tmp_path: Path) -> None:
    """A tool with `idempotentHint` survives the death of its server unseen."""
    async with open_server(http, own_stdio_server()) as catalogue:
        outcome = await call(catalogue, "own__die_once", json.dumps({"marker": str(tmp_path / "died")}))

    assert outcome.content == "survived"
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_cancelling_a_call_reaches_the_server(
    http: Transport, transport: Literal["stdio", "http", "sse"]
) -> None:
    """The tool ends on the server, and the session serves further calls."""
    if transport == "stdio":
        await _cancel_on(http, own_stdio_server())
        return
    async with mcp_over_http(transport) as (url, _):
        await _cancel_on(http, McpServer(name="own", url=url, transport=transport))


async def _cancel_on(http: Transport, server: McpServer) -> None:
    async with asyncio.timeout(30), open_server(http, server) as catalogue:
        hanging = asyncio.create_task(call(catalogue, "own__hang"))
        assert (await call(catalogue, "own__has_started")).content == "started"

        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

        assert (await call(catalogue, "own__was_cancelled")).content == "cancelled"


async def test_a_call_that_takes_too_long_is_ended_on_the_server(http: Transport) -> None:
    """The time limit is told to the model, and the server is told to stop."""
    own = own_stdio_server()
    server = McpServer(name="own", command=own.command, args=own.args, timeout_s=0.3)
    async with asyncio.timeout(30), open_server(http, server) as catalogue:
        outcome = await call(catalogue, "own__hang")
        stopped = await call(catalogue, "own__was_cancelled")

    assert outcome.content == (
        'tool "own__hang" gave no answer within 0.3 s; the server was told to stop, but the call may have taken effect'
    )
    assert stopped.content == "cancelled"


@pytest.mark.parametrize("how", ["closed", "cancelled", "failed"])
async def test_a_started_server_is_gone_afterwards(http: Transport, how: str) -> None:
    """However the worker ends, no process is left behind."""
    pids: list[int] = []
    ready = asyncio.Event()

    async def work() -> None:
        async with open_server(http, own_stdio_server()) as catalogue:
            pids.append(int((await call(catalogue, "own__pid")).content))
            ready.set()
            if how == "cancelled":
                await call(catalogue, "own__hang")
            if how == "failed":
                raise ZeroDivisionError

    working = asyncio.create_task(work())
    async with asyncio.timeout(30):
        await ready.wait()
        if how == "cancelled":
            working.cancel()
        result = (await asyncio.gather(working, return_exceptions=True))[0]

    expected = {"closed": type(None), "cancelled": asyncio.CancelledError, "failed": ZeroDivisionError}
    assert isinstance(result, expected[how])
    assert not is_running(pids[0])


async def test_a_server_that_chatters_does_not_reach_the_terminal(
    http: Transport, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a server writes to its standard error is kept for the case of need, not shown."""
    chatty = McpServer(
        name="own",
        command="sh",
        args=("-c", f"yes noise | head -c 300000 >&2; exec {sys.executable} {own_stdio_server().args[0]} stdio"),
    )

    async with open_server(http, chatty) as catalogue:
        outcome = await call(catalogue, "own__add", '{"a": 1, "b": 2}')

    assert outcome.content == "3"
    assert "noise" not in capfd.readouterr().err


async def test_tools_are_offered_by_the_lists(http: Transport) -> None:
    """`allow` names the only ones, `deny` takes some away; both take patterns."""
    own = own_stdio_server()
    allowed = McpServer(name="a", command=own.command, args=own.args, allow=("ad*", "pid"))
    denied = McpServer(name="d", command=own.command, args=own.args, deny=("pid", "die*", "hang", "learn"))

    async with open_server(http, allowed, denied) as catalogue:
        names = [spec.name for spec in catalogue.specs()]

    assert names == ["a__add", "a__pid", "d__add", "d__has_started", "d__was_cancelled", "d__authorization"]


async def test_a_tool_learnt_later_is_offered(http: Transport) -> None:
    """The server says that its list has changed, and the catalogue asks again."""
    async with asyncio.timeout(30), open_server(http, own_stdio_server()) as catalogue:
        assert catalogue.spec("own__sum") is None
        await call(catalogue, "own__learn")
        while catalogue.spec("own__sum") is None:
            await call(catalogue, "own__pid")  # each answer gives the notification another chance to have arrived
        outcome = await call(catalogue, "own__sum", '{"a": 1, "b": 2}')

    assert outcome.content == "3"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def _start_everything(command: str, port: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        command,
        "streamableHttp",
        env={**os.environ, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while b"listening" not in (line := await process.stdout.readline()):
            assert line, "the npm server ended at its start"
    return process
