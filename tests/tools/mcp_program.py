"""An MCP server for tests, on the official SDK: `mcp_program.py stdio | http | sse [port [certificate key]]`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from pathlib import Path

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations

server = MCPServer("for-tests")
started = asyncio.Event()
cancelled = asyncio.Event()


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def pid() -> str:
    """The server's process id."""
    return str(os.getpid())


@server.tool()
async def hang() -> str:
    """Answer never."""
    started.set()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    return "never"


@server.tool()
async def has_started() -> str:
    """Wait until `hang` was called."""
    await started.wait()
    return "started"


@server.tool()
async def was_cancelled() -> str:
    """Wait until `hang` was cancelled."""
    await cancelled.wait()
    return "cancelled"


@server.tool()
def die(diary: str) -> str:
    """Be killed in the middle of the call."""
    with Path(diary).open("a") as book:
        book.write("called\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def die_once(marker: str) -> str:
    """Be killed in the middle of the first call."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@server.tool()
def authorization(context: Context) -> str:
    """The Authorization header of this request."""
    request = context.request_context.request
    return str(request.headers.get("authorization")) if request is not None else "no request"


@server.tool()
async def learn(context: Context) -> str:
    """Get one more tool, and tell the client."""
    server.add_tool(add, name="sum")
    await context.notify_tools_changed()
    return "learnt"


def main() -> None:
    """Run on standard streams, or on a port that is written to standard output."""
    transport, port = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    if transport == "stdio":
        server.run(transport="stdio")
        return
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    listener = socket.create_server(("127.0.0.1", port))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    certificate = sys.argv[3] if len(sys.argv) > 3 else None
    config = uvicorn.Config(
        app,
        log_level="critical",
        ssl_certfile=certificate,
        ssl_keyfile=sys.argv[4] if certificate else None,
        ssl_ca_certs=certificate,
        ssl_cert_reqs=ssl.CERT_REQUIRED if certificate else ssl.CERT_NONE,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
