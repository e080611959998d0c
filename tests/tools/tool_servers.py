"""Real counterparts for tools, and how to call them as a run does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from providers.messages import ToolCall, ToolOutcome
from worker.tools import McpServer, ToolContext
from worker.tools.catalogue import ToolCatalogue

MCP_PROGRAM = Path(__file__).parent / "mcp_program.py"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


async def call(
    catalogue: ToolCatalogue, name: str, arguments: str = "{}", context: ToolContext | None = None
) -> ToolOutcome:
    """Call a tool as a run does."""
    return await catalogue.call(ToolCall(id="call-1", name=name, arguments=arguments), context or ToolContext())


def own_stdio_server(name: str = "own") -> McpServer:
    """Our own MCP server, started by the connection itself."""
    return McpServer(name=name, command=sys.executable, args=(str(MCP_PROGRAM), "stdio"))


@asynccontextmanager
async def mcp_over_http(
    transport: str, *tls: str, port: int = 0
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Our own MCP server in a process of its own; gives its URL and the process. `tls`: certificate and key."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(MCP_PROGRAM), transport, str(port), *tls, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            listening_on = int(await process.stdout.readline())
        yield (
            f"{'https' if tls else 'http'}://127.0.0.1:{listening_on}/{'sse' if transport == 'sse' else 'mcp'}",
            process,
        )
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
