"""A provider that runs whole tasks, seen as one turn: its text as it comes, then its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from providers.interfaces import LLMProvider
from providers.messages import (
    Message,
    Role,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolOutcome,
    TurnEnd,
    TurnEvent,
)
from providers.remote.payload import Ask
from queue_backends import ChunkType, Task, TokenUsage

_MOST_WAITING = 256


async def run_whole(provider: LLMProvider, ask: Ask, tenant: str) -> AsyncGenerator[TurnEvent, None]:
    """Run it on the last thing the user said; what was said before is the task's history. Closing this ends it."""
    last = ask.messages[-1]
    is_prompt = last.role is Role.USER and bool(last.text)
    history = ask.messages[:-1] if is_prompt else ask.messages
    task = Task(prompt=last.text if is_prompt else "", history=tuple(msgspec.to_builtins(list(history))), tenant=tenant)
    events: asyncio.Queue[TurnEvent | None] = asyncio.Queue(_MOST_WAITING)

    async def chunk(kind: ChunkType, content: str, _metadata: Mapping[str, Any] | None = None, /) -> None:
        if kind is ChunkType.CONTENT:
            await events.put(TextDelta(content))
        elif kind is ChunkType.THINKING:
            await events.put(ThinkingDelta(content))

    async def run() -> tuple[str, TokenUsage]:
        try:
            return await provider.run_task(ask.config, task, (), _no_tools, chunk)
        finally:
            if not events.full():  # else who reads looks whether we have ended when the queue is empty
                events.put_nowait(None)

    running = asyncio.create_task(run(), name=f"run of {provider.name}")
    try:
        streamed = False
        while not (running.done() and events.empty()):
            event = await events.get()
            if event is None:
                break
            streamed = streamed or isinstance(event, TextDelta)
            yield event
        output, usage = await running
        if output and not streamed:
            yield TextDelta(output)
        yield TurnEnd(message=Message.assistant(output), stop_reason=StopReason.END_TURN, usage=usage)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _no_tools(call: ToolCall) -> ToolOutcome:
    """A whole-run provider in a process of its own has no tools: they are the engine's."""
    return ToolOutcome(call_id=call.id, name=call.name, content="there are no tools here", is_error=True)
