"""How an MCP server learns where the task writes files for which it is called.

A session is shared by all tasks, and the protocol's roots are a session's: they name the folder in which the tasks'
own folders are. A call's `_meta` names the task's own, for servers that look there; for all others,
`$AGENT_ARTIFACT_DIR` in an argument becomes that folder, and the folder in the answer becomes the variable again: the
model sees the same in every attempt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from worker.tools.config import McpServer
from worker.tools.interfaces import ToolResult

VARIABLE = "AGENT_ARTIFACT_DIR"
META = "shoal/artifact_dir"
_WRITTEN = (f"${{{VARIABLE}}}", f"${VARIABLE}")


class SharedFolders(Struct, frozen=True, kw_only=True):
    """What all sessions are told."""

    roots: tuple[Path, ...] = ()
    """Where tasks write files; empty: nowhere that is known."""
    of_the_only_task: Path | None = None
    """Where a task may write without being told, because there is one at a time: the variable of started servers."""


NO_FOLDERS = SharedFolders()


def reaches_folders(server: McpServer) -> bool:
    """Whether the server writes on this machine's disks. One at a URL has to say so."""
    return server.kind == "stdio" or server.artifacts


def with_folder(value: Any, folder: str) -> Any:
    """Arguments with the folder in place of the variable."""
    if isinstance(value, str):
        for written in _WRITTEN:
            value = value.replace(written, folder)
        return value
    if isinstance(value, dict):
        return {name: with_folder(item, folder) for name, item in value.items()}
    if isinstance(value, list):
        return [with_folder(item, folder) for item in value]
    return value


def without_folder(result: ToolResult, folder: str) -> ToolResult:
    """What the server said, with the variable in place of the folder."""
    return replace(result, text=result.text.replace(folder, f"${VARIABLE}")) if folder in result.text else result
