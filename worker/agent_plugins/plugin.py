"""The base class of Python agent plugins."""

from __future__ import annotations

from queue_backends.messages import JsonObject
from worker.agent_plugins.request import AgentRequest, PluginSession
from worker.agent_plugins.services import AgentStream, PluginServices


class AgentPlugin:
    """An agent that is code. Only `handle_message` must be written.

    There is one instance for each agent and version of its configuration in a process, and messages come to it several
    at a time: what belongs to one message is kept in local variables. All methods run in the worker's event loop, so
    none may block it.
    """

    config: JsonObject
    services: PluginServices

    async def initialize(self, config: JsonObject, services: PluginServices) -> None:
        """Called once, first. `config` is the agent's, with the schema's defaults; `services` stay valid for good.

        Override it to prepare what all messages share; call `super().initialize(config, services)` first. Raise to
        say that the plugin cannot work: its messages are then tried again later.
        """
        self.config = config
        self.services = services

    async def on_session_ready(self, session: PluginSession) -> None:
        """The first message of a session is about to come to this process. The default does nothing."""
        return

    async def handle_message(self, request: AgentRequest, stream: AgentStream) -> None:
        """Answer one message: write to the `stream`, and return. What is raised makes the attempt fail: the task is
        tried again, and steps that had ended are not repeated. To fail for good, use `stream.error`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method handle_message(self, request, stream)")

    async def on_session_closing(self, session: PluginSession) -> None:
        """A session has ended, or leaves this process. The default does nothing."""
        return

    async def shutdown(self) -> None:
        """Called once, last: give up what `initialize` has opened. The default does nothing."""
        return
