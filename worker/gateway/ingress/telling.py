"""The narration of a task, chunk by chunk as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec.structs import replace

from queue_backends import Chunk
from worker.gateway.ingress.narration import ClientCall, Ended, Event, Narrator
from worker.gateway.operation import Call

RESULT_LIMIT_S = 30.0
"""A result stands at the latest so long after its final chunk."""


async def told(call: Call, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Event, None]:
    """The events of some chunks, from a task's first one on. Raises `WaitTimeout`, and what `chunks` raises."""
    narrator = Narrator()
    async with aclosing(chunks):
        async for chunk in chunks:
            for event in narrator.events(chunk):
                if isinstance(event, Ended) and event.stop_reason == "tool_use" and not event.calls:
                    yield await _with_calls(call, chunk.task_id, event)
                else:
                    yield event


async def _with_calls(call: Call, task_id: str, end: Ended) -> Ended:
    """Calls that are too long for a chunk stand in the result."""
    result = await call.gateway.backend.queue.wait(task_id, RESULT_LIMIT_S)
    return replace(end, calls=tuple(ClientCall(made["name"], made["arguments"]) for made in result.tool_calls))
