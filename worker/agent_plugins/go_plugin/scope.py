"""The message that a process is handling: what its calls to the host are about."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

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
        self._context = contextvars.copy_context()
        self._open_calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def remembered(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """What a model asks for, each call with an id that no other one of the message has: many models count anew in
        each answer."""
        found = []
        for call in calls:
            if self.tool_calls.get(call.id, call) != call or not call.id:
                call = replace(call, id=f"{call.id or 'call'}.{len(self.tool_calls)}")
            self.tool_calls[call.id] = call
            found.append(call)
        return tuple(found)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """A call of the process is being answered, in the task of this block: as a part of this message, so that its
        spans belong to the message's trace."""
        for variable, value in self._context.items():
            variable.set(value)
        self._open_calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._open_calls -= 1
            if not self._open_calls:
                self._idle.set()

    async def is_idle(self, within_s: float) -> bool:
        """Whether no call is being answered any more, at the latest after some time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        return self._idle.is_set()

    def tool(self, number: int) -> ToolSpec | None:
        """The tool of a number."""
        name = self.tools.get(number)
        return next((tool for tool in self.request.tools if tool.name == name), None)
