"""Actions of registered agents, as tools: `<agent>__<action>`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from providers import ProviderError
from providers.messages import ToolSpec
from providers.remote.client import Answer
from providers.remote.clients import InstanceClients
from providers.remote.faults import CallFailed
from providers.remote.instances import RemoteAction
from providers.remote.payload import flat
from providers.remote.tenants import tenant_id
from worker.errors import ToolCallFailed, ToolUnavailable
from worker.remote_providers.in_use import RemoteProviders
from worker.tools.interfaces import Tool, ToolContext, ToolResult

NAME = "remote agents"


class ActionTool:
    """One action. Whichever process of the agent is free carries it out."""

    def __init__(self, agent: str, action: RemoteAction, clients: InstanceClients) -> None:
        self._agent = agent
        self._action = action
        self._clients = clients

    @property
    def spec(self) -> ToolSpec:
        """What the model is told of it."""
        return self._action.tool

    @property
    def after_timeout(self) -> str:
        """An agent goes its own way."""
        return "the agent was told to stop, but its action may still take effect"

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Execute the action. Raises `ToolCallFailed` with what the agent said."""
        tenant = tenant_id(context.tenant)
        try:
            async with self._clients.to(self._clients.pick(tenant)) as client:
                answer = await client.execute(
                    {name: flat(value) for name, value in arguments.items()},
                    action_id=self._action.id,
                    tenant_id=tenant,
                    execution_id=context.task_id,
                    step_id=context.call_id,
                    timeout_s=self.spec.timeout_s,
                )
        except ProviderError as error:  # none of its processes is there, or well
            raise ToolUnavailable(str(error)) from error
        except CallFailed as failed:
            kind = ToolUnavailable if failed.status == "UNAVAILABLE" else ToolCallFailed
            raise kind(f"agent {self._agent}: {failed.details or failed.status}") from failed
        return _result(answer)


def _result(answer: Answer) -> ToolResult:
    if not answer.success:
        return ToolResult(text=answer.error or "the agent failed and did not say why", is_error=True)
    return ToolResult(text=answer.result.decode(errors="replace"))


class RemoteActions:
    """A `ToolServer`: the actions of all agents that are registered at present."""

    def __init__(self, remote: RemoteProviders) -> None:
        self._remote = remote
        self._actions: dict[str, tuple[str, RemoteAction]] = {}
        self._tools: tuple[Tool, ...] = ()
        self._revision = 0

    @property
    def name(self) -> str:
        """What it is called where problems are listed."""
        return NAME

    def tools(self) -> Sequence[Tool]:
        """The tools; a new tuple only when they changed."""
        directory = self._remote.directory
        if directory.revision != self._revision:
            self._revision = directory.revision
            actions = {
                action.tool.name: (instance.name, action) for instance in directory.all() for action in instance.actions
            }
            if actions != self._actions:
                self._actions = actions
                self._tools = tuple(
                    ActionTool(agent, action, self._remote.clients(agent)) for agent, action in actions.values()
                )
        return self._tools

    def problem(self) -> str:
        """Agents that are not well have tools all the same, and say so when called."""
        return ""

    async def first_attempt(self) -> None:
        """Return when the registry has been read."""
        await self._remote.directory.loaded()

    async def serve(self) -> None:
        """The directory keeps itself up to date; this only has to last."""
        await asyncio.Event().wait()
