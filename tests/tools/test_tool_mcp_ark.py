"""ark's plain-HTTP dialect of MCP, declared or found out, and servers that are not MCP at all."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from aiohttp import web

from providers.transport import Transport
from tests.tools.tool_servers import Serve, call
from worker.tools import McpServer
from worker.tools.build import build_catalogue

TOOLS = {
    "tools": [
        {"name": "find", "description": "Find it.", "inputSchema": {"type": "object", "required": ["q"]}},
        {"name": "fail"},
    ]
}


async def ark(request: web.Request) -> web.StreamResponse:
    """A server as ark's documentation describes it."""
    if request.headers.get("Authorization") != "Bearer s3cret-value":
        raise web.HTTPUnauthorized
    if request.headers.get("X-Tenant", "acme") != "acme":
        raise web.HTTPForbidden
    if request.path == "/tools/list":
        return web.json_response(TOOLS)
    if request.path != "/tools/call":
        raise web.HTTPNotFound
    body: dict[str, Any] = await request.json()
    if body["name"] == "fail":
        return web.json_response({"content": [{"type": "text", "text": "no such row"}], "isError": True})
    text = f"{body['name']} {body['arguments']['q']} {request.headers['Authorization']} {request.headers.get('X-Key')}"
    return web.json_response({"content": [{"type": "text", "text": text}]})


@pytest.mark.parametrize("transport", ["ark", ""])
async def test_tools_of_an_ark_server(http: Transport, serve: Serve, transport: Literal["", "ark"]) -> None:
    """The dialect is found out by itself; the token is sent, and does not reach the model."""
    server = McpServer(
        name="db", url=await serve(ark), transport=transport, auth_type="bearer", token_env_var="DB_TOKEN"
    )
    environ = {"DB_TOKEN": "s3cret-value"}

    async with build_catalogue(http, mcp_servers=[server], with_queue=False, environ=environ) as catalogue:
        names = [spec.name for spec in catalogue.specs()]
        found = await call(catalogue, "db__find", '{"q": "it"}')
        failed = await call(catalogue, "db__fail")

    assert names == ["db__find", "db__fail"]
    assert (found.content, found.is_error) == ("find it Bearer [redacted] None", False)
    assert (failed.content, failed.is_error) == ("no such row", True)


async def test_headers_of_a_server_come_from_the_environment(http: Transport, serve: Serve) -> None:
    """They are sent beside the token, kept from the model, and missing ones are told by the variable's name."""
    server = McpServer(
        name="db",
        url=await serve(ark),
        transport="ark",
        auth_type="bearer",
        token_env_var="DB_TOKEN",
        headers_env={"X-Tenant": "DB_TENANT", "X-Key": "DB_KEY"},
    )
    environ = {"DB_TOKEN": "s3cret-value", "DB_TENANT": "acme", "DB_KEY": "other-s3cret"}
    async with build_catalogue(http, mcp_servers=[server], with_queue=False, environ=environ) as catalogue:
        found = await call(catalogue, "db__find", '{"q": "it"}')
    assert found.content == "find it Bearer [redacted] [redacted]"

    for value in ("", "two\nlines"):
        async with build_catalogue(
            http, mcp_servers=[server], with_queue=False, environ={**environ, "DB_KEY": value}
        ) as catalogue:
            problem = catalogue.problems()["db"]
        assert 'env var "DB_KEY" for header X-Key is not set, or is no line of text' in problem


async def test_an_ark_server_that_goes_away_is_a_problem(http: Transport, serve: Serve) -> None:
    """A request that fails is told in ark's words, and shows in `problems` when the next attempt fails too."""
    is_down = False

    async def sometimes(request: web.Request) -> web.StreamResponse:
        if is_down and request.transport is not None:
            request.transport.abort()
        return await ark(request)

    server = McpServer(
        name="db", url=await serve(sometimes), transport="ark", auth_type="bearer", token_env_var="DB_TOKEN"
    )
    environ = {"DB_TOKEN": "s3cret-value"}
    async with (
        asyncio.timeout(30),
        build_catalogue(http, mcp_servers=[server], with_queue=False, environ=environ) as catalogue,
    ):
        is_down = True
        lost = await call(catalogue, "db__find", '{"q": "it"}')
        is_down = False
        found = await call(catalogue, "db__find", '{"q": "it"}')

    assert lost.is_error
    assert lost.content.startswith('MCP server "db": tools/call request failed: ')
    assert not found.is_error


async def no_entry(_: web.Request) -> web.StreamResponse:
    raise web.HTTPUnauthorized


async def web_page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<h1>Hello</h1>", content_type="text/html")


@pytest.mark.parametrize(
    ("handler", "transport", "reason"),
    [
        (no_entry, "http", "the server answered with HTTP status 401: its credentials are missing or wrong"),
        (no_entry, "sse", "401"),
        (no_entry, "ark", "tools/list returned status 401"),
        (web_page, "http", "Unexpected content type: text/html"),
        (web_page, "ark", "decoding tools/list response"),
    ],
)
async def test_a_server_that_is_none_is_explained(
    http: Transport, serve: Serve, handler: Any, transport: Literal["http", "sse", "ark"], reason: str
) -> None:
    """The reason in `problems` says what to fix."""
    server = McpServer(name="x", url=await serve(handler), transport=transport)

    async with build_catalogue(http, mcp_servers=[server], with_queue=False, environ={}) as catalogue:
        assert reason in catalogue.problems()["x"]
