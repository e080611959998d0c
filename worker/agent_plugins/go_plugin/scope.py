"""The message that a process is handling: what its calls to the host are about."""

from __future__ import annotations

from collections.abc import Mapping

from providers.messages import ToolCall, ToolSpec
from worker.agent_plugins.go_plugin.numbers import numbered
from worker.agent_plugins.request import AgentRequest
from worker.agent_plugins.services import PluginServices


class MessageScope:
    """One message, its services, and the numbers of what belongs to its agent."""

    def __init__(self, request: AgentRequest, services: PluginServices) -> None:
        self.request = request
        self.services = services
        self.llms: Mapping[int, str] = numbered(llm.slug for llm in request.llms)
        self.tools: Mapping[int, str] = numbered(tool.name for tool in request.tools)
        self.datasources: Mapping[int, str] = numbered(source.slug for source in request.datasources)
        self.tool_calls: dict[str, ToolCall] = {}
        """What models have asked for, by id: the protocol has no place for it in what it sends back."""

    def tool(self, number: int) -> ToolSpec | None:
        """The tool of a number."""
        name = self.tools.get(number)
        return next((tool for tool in self.request.tools if tool.name == name), None)
