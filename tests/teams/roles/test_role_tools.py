"""The tools that roles bring themselves: who sees them, how they are shared, and when they are closed."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from providers.transport import Transport
from tests.teams.roles.team_fleet import Fleet, calls, dynamic, fleet, plan_of, says, scripted
from tests.tools.tool_servers import MCP_PROGRAM, Serve, call, mcp_over_http
from worker.errors import AgentUnusable, Postponed
from worker.teams.notify.degradation import Degradation
from worker.teams.plan import Plan, Role, Team
from worker.teams.role_tools import RoleTools
from worker.tools.config import McpServer, WebhookTool

pytestmark = pytest.mark.timeout(60)

SECRET = "s3cret-value"
TEAM = Team(name="crew")


class ToolHouse:
    """A server of ark's plain dialect with one tool; counts how often it is asked what it has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.lists = 0
        self.headers: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if request.path.endswith("/tools/list"):
            self.lists += 1
            return web.json_response({"tools": [{"name": "where", "description": "Where it is."}]})
        if request.path.endswith("/tools/call"):
            self.headers.append(request.headers.get("Authorization", ""))
            return web.json_response({"content": [{"type": "text", "text": f"at {self.name}"}]})
        return web.Response(text=f"{self.name}: {await request.text()}")


def server(url: str, **fields: Any) -> McpServer:
    """A declaration of such a server."""
    return McpServer(name="house", url=url, transport="ark", **fields)


def asking(*servers: McpServer, name: str = "crew", tool: str = "house__where", **fields: Any) -> Plan:
    """A team of one role that asks its server."""
    role = Role(name="lead", config=scripted(calls(tool), says("{results}")), mcp_servers=servers, **fields)
    return plan_of(dynamic(role, name=name))


@pytest.fixture
async def http() -> AsyncIterator[Transport]:
    """The product's HTTP client."""
    transport = Transport()
    yield transport
    await transport.aclose()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an HTTP server on a free port for a handler of all requests; gives its URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Any) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


# In a fleet


async def test_two_teams_have_servers_of_the_same_name(serve: Serve) -> None:
    """Each sees its own; a role without one has none."""
    first, second = ToolHouse("home"), ToolHouse("away")
    urls = [await serve(first.answer), await serve(second.answer)]
    async with fleet() as there:
        plans = [asking(server(url), name=f"team-{number}") for number, url in enumerate(urls)]
        said = [(await there.task(plan, "lead")).output for plan in plans]
        none = (await there.task(asking(), "lead")).output

    assert said == ["at home", "at away"]
    assert none.startswith('tool "house__where" is not available to this agent; available: submit_subtask')


async def test_a_real_mcp_server_with_a_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official SDK over HTTP. The token is in nothing that is stored, shown or logged."""
    monkeypatch.setenv("HOUSE_TOKEN", SECRET)
    with capture_logs() as logs:
        async with mcp_over_http("http") as (url, _), fleet() as there:
            own = McpServer(name="own", url=url, auth_type="bearer", token_env_var="HOUSE_TOKEN")
            plan = asking(own, tool="own__authorization")
            result = await there.task(plan, "lead")
            chunks = await chunks_of(there, result.task_id)
            kept = [value async for _, value in there.backend.state.scan("")]
            kept += [entry.value for entry in await there.backend.state.read_log(f"journal/{result.task_id}")]

    assert result.output == "Bearer [redacted]"
    assert SECRET not in repr(logs)
    assert SECRET.encode() not in b"".join(kept)
    assert SECRET not in repr(chunks)
    assert SECRET not in repr(plan)


async def chunks_of(there: Fleet, task_id: str) -> list[Any]:
    """All chunks of a task that has ended."""
    return [chunk async for chunk in there.backend.chunks.subscribe(task_id)]


async def test_a_server_that_is_away_takes_nothing_from_the_others(serve: Serve) -> None:
    """It is skipped; the task is done with what there is."""
    house = ToolHouse("home")
    away = McpServer(name="away", url="http://127.0.0.1:9", transport="ark")
    async with fleet() as there:
        result = await there.task(asking(away, server(await serve(house.answer))), "lead")

    assert result.output == "at home"


async def test_roles_whose_server_is_away_for_long_are_told_of(http: Transport) -> None:
    """Each role that needs it, with its tenant and its team's policy."""
    away = McpServer(name="away", url="http://127.0.0.1:9", transport="ark")
    told: list[Degradation] = []
    heard = asyncio.Event()

    async def hear(what: Degradation) -> None:
        told.append(what)
        heard.set()

    async with asyncio.timeout(30), RoleTools(http, first_attempt_s=0.0, on_degraded=hear, long_away_s=0.0) as tools:
        role = Role(name="lead", config=scripted(says("-")), mcp_servers=(away,))
        await tools.take(Team(name="crew", notify="on-call"), role, "acme")
        await tools.take(Team(name="others"), role)
        await heard.wait()
    assert [(each.tenant, each.agent, each.policy, each.cause) for each in told] == [
        ("acme", "crew/lead", "on-call", 'MCP server "away"'),
        ("", "others/lead", "", 'MCP server "away"'),
    ]


async def test_webhooks_of_a_role(serve: Serve) -> None:
    """They are its own, too, and are listed with ark's names."""
    url = await serve(ToolHouse("hook").answer)
    hook = WebhookTool(name="ring", url=url)
    async with fleet() as there:
        result = await there.task(asking(tool="ring", webhook_tools=(hook,)), "lead")

    assert result.output == "hook: {}"


async def test_a_plan_starts_no_programs_on_a_fleet() -> None:
    """Unless the operator allows it; the message names the setting."""
    program = McpServer(name="own", command=sys.executable, args=(str(MCP_PROGRAM), "stdio"))
    plan = asking(program, tool="own__pid")
    async with fleet() as there:
        refused = await there.task(plan, "lead")
    async with fleet({"SHOAL_TEAM_COMMANDS": "1"}) as there:
        allowed = await there.task(plan, "lead")

    assert refused.error == (
        "role 'lead' of team 'crew' wants MCP server 'own' started by a command, which this worker does not allow: set "
        "SHOAL_TEAM_COMMANDS=1 on the workers, or name a server with a url"
    )
    assert int(allowed.output) != os.getpid()


async def test_without_mcp_a_role_does_without(serve: Serve) -> None:
    """`--no-mcp`: nothing is connected to, and the run goes on."""
    house = ToolHouse("home")
    async with fleet({"SHOAL_TEAM_MCP": "0"}) as there:
        result = await there.task(asking(server(await serve(house.answer))), "lead")

    assert result.output.startswith('tool "house__where" is not available')
    assert house.lists == 0


async def test_the_tools_of_the_worker_come_beside_those_of_the_role(serve: Serve) -> None:
    """In ark's order; the worker's are chosen by the role's patterns, its own are not."""
    url = await serve(ToolHouse("home").answer)
    role = Role(
        name="lead",
        config=msgspec.structs.replace(scripted(calls("nothing"), says("{results}")), tools=("submit_*",)),
        mcp_servers=(server(url),),
        webhook_tools=(WebhookTool(name="ring", url=url),),
    )
    async with fleet() as there:
        result = await there.task(plan_of(dynamic(role)), "lead")

    assert result.output.endswith("available: house__where, ring, submit_subtask, read_output")


async def test_where_clouds_keep_credentials_nobodys_plan_leads(http: Transport) -> None:
    """Nor may an address hold a password: plans are kept and shown."""
    for url in ("http://169.254.169.254/mcp", "http://user:s3cret@127.0.0.1/mcp"):
        async with role_tools(http) as tools:
            with pytest.raises(AgentUnusable, match="role 'lead' of team 'crew': MCP server 'house'") as refused:
                await tools.take(TEAM, with_server(url))
            assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("transport", ["http", "sse", "ark"])
async def test_a_callers_team_reaches_nothing_within_the_network(serve: Serve, http: Transport, transport: str) -> None:
    """What its names resolve to is looked at when a connection is made, by tools and by MCP servers of every kind; the
    fleet's own team with the same declaration is let through."""
    house = ToolHouse("home")
    url = (await serve(house.answer)).replace("127.0.0.1", "localhost")
    role = Role(
        name="lead",
        mcp_servers=(McpServer(name="house", url=url, transport=transport),),  # type: ignore[arg-type] # one of them
        webhook_tools=(WebhookTool(name="ring", url=url),),
    )
    async with role_tools(http) as tools:
        foreign = await tools.take(Team(name="crew", is_foreign=True), role)
        assert foreign is not None
        assert house.requests == 0
        problems = foreign.catalogue.problems().values()
        refused = await call(foreign.catalogue, "ring")
        assert house.requests == 0
        for text in (*problems, refused.content):
            assert "is this machine; to allow it" in text
        own = await tools.take(TEAM, role)
        assert own is not None
        assert (await call(own.catalogue, "ring")).content == "home: {}"
        assert house.requests > 1


# Sharing and closing


@asynccontextmanager
async def role_tools(http: Transport, **options: Any) -> AsyncIterator[RoleTools]:
    async with RoleTools(http, environ={}, **options) as tools:
        yield tools


def with_server(url: str, name: str = "lead", **fields: Any) -> Role:
    return Role(name=name, mcp_servers=(server(url, **fields),))


async def test_the_same_declaration_is_connected_to_once(serve: Serve, http: Transport) -> None:
    """By whichever roles, in whichever teams, and however many at once; another one has its own."""
    house = ToolHouse("home")
    url = await serve(house.answer)
    hook = WebhookTool(name="ring", url=url)
    async with role_tools(http) as tools:
        taken = await asyncio.gather(
            tools.take(TEAM, with_server(url)),
            tools.take(Team(name="others"), with_server(url, "other")),
            tools.take(TEAM, Role(name="hooked", mcp_servers=(server(url),), webhook_tools=(hook,))),
            tools.take(TEAM, with_server(url, timeout_s=7)),
        )
        assert tools.connected == 2
        assert house.lists == 2
        outcomes = [await call(each.catalogue, "house__where") for each in taken if each is not None]

    assert [outcome.content for outcome in outcomes] == ["at home"] * 4
    assert tools.connected == 0


async def test_what_nobody_uses_is_closed(serve: Serve, http: Transport) -> None:
    """After a while, and not while anybody uses it."""
    url = await serve(ToolHouse("home").answer)
    async with role_tools(http, idle_s=0.01) as tools:
        used = await tools.take(TEAM, with_server(url))
        left = await tools.take(TEAM, with_server(url, timeout_s=7))
        assert used is not None
        assert left is not None
        tools.give_back(left)
        async with asyncio.timeout(30):
            while tools.connected == 2:
                await asyncio.sleep(0)

        assert tools.connected == 1
        assert (await call(used.catalogue, "house__where")).content == "at home"
        again = await tools.take(TEAM, with_server(url, timeout_s=7))
        assert again is not None
        assert (await call(again.catalogue, "house__where")).content == "at home"


async def test_only_so_many_servers_are_connected(serve: Serve, http: Transport) -> None:
    """One that is idle makes room; if all are in use, the task comes back later."""
    url = await serve(ToolHouse("home").answer)
    async with role_tools(http, most_servers=1) as tools:
        first = await tools.take(TEAM, with_server(url))
        assert first is not None
        with pytest.raises(Postponed, match="all 1 connections to roles' MCP servers are in use"):
            await tools.take(TEAM, with_server(url, timeout_s=7))
        tools.give_back(first)
        second = await tools.take(TEAM, with_server(url, timeout_s=7))

        assert second is not None
        assert tools.connected == 1


async def test_a_server_that_hangs_holds_up_only_those_who_come_first(
    serve: Serve, http: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later runs do without its tools at once, however long its connection is still being tried."""
    reached, over = asyncio.Event(), asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        reached.set()
        await over.wait()
        return web.Response(status=503)

    async with role_tools(http, first_attempt_s=3600.0) as tools:
        role = with_server(await serve(hang))
        first = asyncio.create_task(tools.take(TEAM, role))
        await reached.wait()
        later = time.monotonic() + 3600.0
        monkeypatch.setattr("worker.teams.role_tools.time", SimpleNamespace(monotonic=lambda: later))
        async with asyncio.timeout(30):
            second = await tools.take(TEAM, role)
        monkeypatch.undo()
        first.cancel()
    over.set()

    assert second is not None
    assert second.catalogue.specs() == ()


async def test_a_declaration_that_cannot_work(http: Transport) -> None:
    """Two servers of one name; the message names role and team."""
    role = Role(name="lead", mcp_servers=(server("http://127.0.0.1:9/a"), server("http://127.0.0.1:9/b")))
    async with role_tools(http) as tools:
        with pytest.raises(AgentUnusable, match="role 'lead' of team 'crew': MCP server name 'house' is used 2 times"):
            await tools.take(TEAM, role)
        assert tools.connected == 0


async def test_a_role_without_tools_costs_nothing(http: Transport) -> None:
    """There is nothing to take."""
    async with role_tools(http) as tools:
        assert await tools.take(TEAM, Role(name="lead")) is None


async def test_a_run_that_is_cancelled_while_it_connects_gives_back(serve: Serve, http: Transport) -> None:
    """So that the connection can be closed."""
    begun, never = asyncio.Event(), asyncio.Event()

    async def silent(_request: web.Request) -> web.StreamResponse:
        begun.set()
        await never.wait()
        return web.Response()

    url = await serve(silent)
    async with role_tools(http, idle_s=0.01) as tools:
        taking = asyncio.create_task(tools.take(TEAM, with_server(url)))
        await asyncio.wait_for(begun.wait(), 30)
        taking.cancel()
        await asyncio.wait([taking])
        async with asyncio.timeout(30):
            while tools.connected:
                await asyncio.sleep(0)
        never.set()

    assert taking.cancelled()
