"""An MCP server that writes files, and tells what it knows of where they go."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("folders")


@server.tool()
def write_file(path: str, text: str) -> str:
    """Write a file where the caller says."""
    Path(path).write_text(text)
    return f"written to {path}"


@server.tool()
def echo(text: str) -> str:
    """What was said."""
    return text


@server.tool()
async def where_files_go(context: Context) -> str:
    """What the server was told of folders: by its variable, and with this call."""
    meta = context.request_context.meta or {}
    return json.dumps([os.environ.get("AGENT_ARTIFACT_DIR"), meta.get("shoal/artifact_dir")])


if __name__ == "__main__":
    server.run(transport="stdio")
