"""The tools of an MCP server, as the catalogue and the model see them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from providers.messages import ToolSpec
from worker.tools.config import McpServer
from worker.tools.interfaces import Tool, ToolContext, ToolResult
from worker.tools.mcp_session import RemoteTool
from worker.tools.shared_folders import META, reaches_folders, with_folder, without_folder

CallRemote = Callable[[str, dict[str, Any], bool, dict[str, Any] | None], Awaitable[ToolResult]]
"""Calls a tool by the server's own name; the flag says whether the call may be repeated; last comes what the protocol
calls `_meta`. Raises `ToolCallFailed`."""

_NAME_CHARS = 64


class McpTool:
    """One tool of an MCP server."""

    after_timeout = "the server was told to stop, but the call may have taken effect"

    def __init__(self, call_remote: CallRemote, remote_name: str, spec: ToolSpec, *, reaches_folders: bool) -> None:
        self.spec = spec
        self._reaches_folders = reaches_folders
        self._call_remote = call_remote
        self._remote_name = remote_name

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Call it on the server. Raises `ToolCallFailed`."""
        files = context.artifacts if self._reaches_folders else None
        if files is None:
            return await self._call_remote(self._remote_name, arguments, self.spec.idempotent, None)
        folder = str(await asyncio.to_thread(getattr, files, "folder"))
        arguments, meta = with_folder(arguments, folder), {META: folder}
        return without_folder(await self._call_remote(self._remote_name, arguments, self.spec.idempotent, meta), folder)


def tool_name(server: str, tool: str) -> str:
    """`<server>__<tool>` as ark has it, fitted to what model vendors allow: 64 letters, digits, `_` and `-`."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{server}__{tool}")
    if len(name) <= _NAME_CHARS:
        return name
    digest = hashlib.sha256(f"{server}__{tool}".encode()).hexdigest()[:8]
    return f"{name[: _NAME_CHARS - 9]}_{digest}"


def tools_of(server: McpServer, listed: Sequence[RemoteTool], call_remote: CallRemote) -> tuple[Tool, ...]:
    """The tools that a server lists, in its order."""
    return tuple(
        McpTool(
            call_remote,
            remote.name,
            ToolSpec(
                name=tool_name(server.name, remote.name),
                description=remote.description,
                input_schema=remote.input_schema,
                idempotent=remote.idempotent,
                timeout_s=server.timeout_s,
                kind="mcp",
            ),
            reaches_folders=reaches_folders(server),
        )
        for remote in listed
    )
