"""One live session with an MCP server, whatever dialect it speaks."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from msgspec import Struct, field

from queue_backends.messages import JsonObject
from worker.errors import ToolError
from worker.tools.interfaces import ToolResult


class RemoteTool(Struct, frozen=True, kw_only=True):
    """A tool as the server lists it."""

    name: str
    description: str = ""
    input_schema: JsonObject = field(default_factory=lambda: {"type": "object"})
    idempotent: bool = False


class SessionLost(ToolError):
    """The session cannot be used any more. `sent` says whether the call may have reached the server."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class McpSession(Protocol):
    """A session that is open. It is used by many tasks, and opened and closed by one."""

    lost: asyncio.Event
    """Set as soon as the session is known to be unusable."""
    tools_changed: asyncio.Event
    """Set when the server says that its list of tools has changed."""

    @property
    def protocol(self) -> str:
        """The protocol revision that was agreed on, or `ark`."""
        ...

    async def list_tools(self) -> list[RemoteTool]:
        """All tools, in the server's order. Raises `SessionLost` or `ToolSetupFailed`."""
        ...

    async def call(self, name: str, arguments: dict[str, Any], meta: dict[str, Any] | None = None) -> ToolResult:
        """Call a tool by the server's own name; a cancel reaches the server. Raises `SessionLost`, `ToolCallFailed`."""
        ...
