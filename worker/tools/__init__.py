"""The tools that agents may call: MCP servers', webhooks, built-in ones and Python functions.

What declares a tool is here and cheap to import; what runs them is in `worker.tools.build` and
`worker.tools.catalogue`.
"""

from worker.tools.config import (
    McpServer,
    WebhookTool,
    check_mcp_servers,
    check_webhook_tools,
    parse_mcp_servers,
    parse_webhook_tools,
)
from worker.tools.interfaces import SubmitTask, Tool, ToolContext, ToolResult, ToolServer
from worker.tools.python import PythonTool, python_tool, tool

__all__ = [
    "McpServer",
    "PythonTool",
    "SubmitTask",
    "Tool",
    "ToolContext",
    "ToolResult",
    "ToolServer",
    "WebhookTool",
    "check_mcp_servers",
    "check_webhook_tools",
    "parse_mcp_servers",
    "parse_webhook_tools",
    "python_tool",
    "tool",
]
