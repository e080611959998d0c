"""Puts a worker's catalogue together from its settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from providers.transport import Transport
from worker.artifacts.tools import ReadArtifact, SaveArtifact
from worker.teams.team_tools import queue_tools
from worker.tools.catalogue import ToolCatalogue
from worker.tools.config import McpServer, WebhookTool
from worker.tools.interfaces import Tool, ToolServer
from worker.tools.loading import load_tools
from worker.tools.mcp import McpConnection, OnLongAway
from worker.tools.read_output import READ_OUTPUT, ReadOutput
from worker.tools.shared_folders import NO_FOLDERS, SharedFolders
from worker.tools.webhook import Webhook


def build_catalogue(
    http: Transport,
    *,
    mcp_servers: Sequence[McpServer] = (),
    webhook_tools: Sequence[WebhookTool] = (),
    python_tools: Sequence[str] = (),
    with_queue: bool = True,
    environ: Mapping[str, str] = os.environ,
    max_output_chars: int | None = None,
    with_outputs: bool = False,
    with_artifacts: bool = False,
    servers: Sequence[ToolServer] = (),
    team_routes: Iterable[str] = (),
    on_long_away: OnLongAway | None = None,
    folders: SharedFolders = NO_FOLDERS,
) -> ToolCatalogue:
    """A catalogue that is not open yet. `http` stays the caller's to close; `with_queue` adds the queue's own tools,
    with `delegate` for the roles of `team_routes`; `with_outputs` the one that reads kept outputs, `with_artifacts`
    those that save and read files. `servers` are asked after the MCP ones; `on_long_away` hears of MCP servers that are
    away for long, and `folders` is where they may write files.

    Raises `BadSetting` for names used twice, `ToolSetupFailed` for a Python tool that cannot be loaded.
    """
    tools: list[Tool] = [Webhook(config, http, environ=environ) for config in webhook_tools]
    if with_queue:
        tools += queue_tools(team_routes)
    for reference in python_tools:
        tools.extend(load_tools(reference))
    if with_outputs and all(tool.spec.name != READ_OUTPUT.name for tool in tools):  # a tool of yours goes first
        tools.append(ReadOutput())
    if with_artifacts:
        tools += [SaveArtifact(), ReadArtifact()]
    return ToolCatalogue(
        servers=[
            *(
                McpConnection(server, http, environ=environ, on_long_away=on_long_away, folders=folders)
                for server in mcp_servers
            ),
            *servers,
        ],
        tools=tools,
        max_output_chars=max_output_chars,
    )
