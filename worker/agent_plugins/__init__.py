"""Agent plugins: agents that are code. A package with a manifest, a schema of its configuration, and a class."""

from __future__ import annotations

from worker.agent_plugins.errors import AgentPluginError, BadPluginConfig, PluginDenied
from worker.agent_plugins.plugin import AgentPlugin
from worker.agent_plugins.registry import AgentPlugins
from worker.agent_plugins.request import AgentRequest, PluginSession
from worker.agent_plugins.services import AgentStream, LlmAnswer, PluginServices

__all__ = [
    "AgentPlugin",
    "AgentPluginError",
    "AgentPlugins",
    "AgentRequest",
    "AgentStream",
    "BadPluginConfig",
    "LlmAnswer",
    "PluginDenied",
    "PluginServices",
    "PluginSession",
]
