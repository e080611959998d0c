"""Where the tools of agents come from."""

from __future__ import annotations

from worker.settings.setting import Setting, whole
from worker.tools.config import McpServer, WebhookTool

TOOLS: tuple[Setting, ...] = (
    Setting(
        key="mcp_servers",
        type=tuple[McpServer, ...],
        variable="AGENT_MCP_SERVERS",
        meaning="MCP servers whose tools the agents get",
        secret=True,
    ),
    Setting(
        key="webhook_tools",
        type=tuple[WebhookTool, ...],
        variable="AGENT_WEBHOOK_TOOLS",
        meaning="Tools that are an HTTP request",
        secret=True,
    ),
    Setting(
        key="python_tools",
        type=tuple[str, ...],
        variable="SHOAL_PYTHON_TOOLS",
        meaning="Tools that are Python functions: `module:name`, or the path of a file",
    ),
    whole(
        "max_stored_output_chars",
        "SHOAL_MAX_STORED_OUTPUT_CHARS",
        "Characters of tool outputs too long to be shown that are stored, per task; 0: none, they are only cut",
        0,
        1_073_741_824,
    ),
    Setting(
        key="team_routes",
        type=dict[str, str],
        variable="AGENT_TEAM_ROUTES",
        meaning="Role -> queue URL: whom the agent may delegate to",
        secret=True,
    ),
    Setting(
        key="team_commands",
        type=bool,
        variable="SHOAL_TEAM_COMMANDS",
        meaning="MCP servers of teams may be programs that workers start; otherwise only those with a URL are used",
    ),
    Setting(
        key="team_mcp",
        type=bool,
        variable="SHOAL_TEAM_MCP",
        meaning="Connect to the MCP servers that teams declare; without it, their roles do without those tools",
    ),
)
