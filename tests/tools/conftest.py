"""Fixtures for tools: the product's HTTP client, local HTTP servers, and where the npm server is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from providers.transport import Transport
from tests.npm import npm_program
from tests.tools.tool_servers import Handler, Serve


@pytest.fixture
async def http() -> AsyncIterator[Transport]:
    """The product's HTTP client."""
    transport = Transport()
    yield transport
    await transport.aclose()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an HTTP server on a free port for a handler of all requests; gives its URL."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield start


@pytest.fixture(scope="session")
def everything() -> str:
    """The command of the official npm server with every feature, which speaks the older protocol revision."""
    return npm_program("@modelcontextprotocol/server-everything", "mcp-server-everything")
