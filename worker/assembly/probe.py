"""ark's semantic readiness: the agent answers the validator prompt as it would a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers import ToolCall, ToolOutcome, tool_loop
from queue_backends import ChunkType, Task
from worker.assembly.parts import Parts
from worker.settings import Settings
from worker.tools.interfaces import ToolContext


async def probe(settings: Settings, parts: Parts) -> str:
    """What the agent answers. Not charged to a budget."""
    tools, providers, routing = parts.abilities.tools, parts.models.providers, parts.models.routing
    task = Task(id="health-probe", prompt=settings.validator_prompt)
    context = ToolContext(task_id=task.id, agent=settings.agent_name)

    async def call_tool(call: ToolCall) -> ToolOutcome:
        return await tools.call(call, context)

    specs = tools.specs(settings.agent.tools)
    if providers.routed(settings.agent):
        router, taken = routing.begin(settings.agent, task)
        try:
            run = await tool_loop.run(None, settings.agent, task, specs, call_tool, _drop_chunk, router=router)
        finally:
            taken.give_back()
        return run.output
    async with providers.lease(settings.agent) as provider:
        output, _ = await provider.run_task(settings.agent, task, specs, call_tool, _drop_chunk)
    return output


async def _drop_chunk(kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
    """Nobody watches a probe."""
