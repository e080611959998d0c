"""Asks the agent `bot` and looks at what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from queue_backends import Chunk, ChunkType, Task, TaskResult
from worker.client import Fleet, Handle

LIMIT_S = 30


async def answered(fleet: Fleet, prompt: str = "hello", **fields: Any) -> tuple[TaskResult, list[Chunk]]:
    """Ask `bot`; the result, and all chunks."""
    return await ending(await fleet.submit(Task(prompt=prompt, agent="bot", **fields)))


async def ending(handle: Handle) -> tuple[TaskResult, list[Chunk]]:
    """How a task ended, and all its chunks."""
    async with asyncio.timeout(LIMIT_S):
        chunks = [chunk async for chunk in handle]
        return await handle.result(), chunks


def text_of(chunks: Iterable[Chunk], kind: ChunkType = ChunkType.CONTENT) -> str:
    """What was said in chunks of a kind."""
    return "".join(chunk.content for chunk in chunks if chunk.type is kind)
