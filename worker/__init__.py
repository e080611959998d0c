"""The worker fleet: the client, tools, and what runs tasks.

Names are imported when they are first used, so that the command line starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.agents.model import Agent, App, Group, Llm
    from worker.client import Fleet, Handle, connect
    from worker.errors import WorkerError
    from worker.tools.interfaces import ToolContext, ToolResult
    from worker.tools.python import tool

__all__ = [
    "Agent",
    "App",
    "Fleet",
    "Group",
    "Handle",
    "Llm",
    "ToolContext",
    "ToolResult",
    "WorkerError",
    "connect",
    "tool",
]

_HOMES = {
    "Agent": "worker.agents.model",
    "App": "worker.agents.model",
    "Fleet": "worker.client",
    "Group": "worker.agents.model",
    "Handle": "worker.client",
    "Llm": "worker.agents.model",
    "ToolContext": "worker.tools.interfaces",
    "ToolResult": "worker.tools.interfaces",
    "WorkerError": "worker.errors",
    "connect": "worker.client",
    "tool": "worker.tools.python",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'worker' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
