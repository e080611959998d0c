"""Targets that answer from a script, and what a task that went through them has left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from queue_backends import Backend, Chunk, ChunkType, TaskResult, UsageRecord
from worker.client import Handle
from worker.journal import Entry, entries_of, read_journal
from worker.usage import UsageReport

LIMIT_S = 30


def scripted(model: str, *turns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A target of that model which plays these turns for any prompt."""
    script = {"scenarios": [{"turns": list(turns)}]}
    return {"provider": "scripted", "model": model, "options": {"script": script}, **fields}


def failing(model: str, kind: str, *, after_chunks: int = 0, text: str = "never mind", **fields: Any) -> dict[str, Any]:
    """A target that fails each time, after some chunks."""
    wait_s = fields.pop("retry_after_s", None)
    fault = {"kind": kind, "after_chunks": after_chunks, "retry_after_s": wait_s, "message": f"{model} is {kind}"}
    return scripted(model, {"text": text, "fault": fault}, **fields)


async def ended(handle: Handle) -> tuple[TaskResult, list[Chunk]]:
    """The task's result and all its chunks."""
    async with asyncio.timeout(LIMIT_S):
        chunks = [chunk async for chunk in handle]
        return await handle.result(), chunks


def shown(chunks: Sequence[Chunk]) -> str:
    """The text that a consumer shows in the end, by the rule of restarted turns."""
    last: dict[int, int] = {}
    for chunk in chunks:
        last[chunk.turn] = max(last.get(chunk.turn, 0), chunk.attempt)
    kept = [chunk for chunk in chunks if chunk.attempt == last[chunk.turn] and chunk.type is ChunkType.CONTENT]
    return "".join(chunk.content for chunk in kept)


def switches(chunks: Sequence[Chunk]) -> list[tuple[str, str, str]]:
    """From, to, reason: as the chunks tell it."""
    told = [chunk.metadata["route"] for chunk in chunks if "route" in chunk.metadata]
    return [(route["from"], route["target"], route["reason"]) for route in told]


async def journal_of(backend: Backend, task_id: str) -> list[Entry]:
    """What was stored of the run."""
    return entries_of(await read_journal(backend.state, task_id))


async def calls_of(backend: Backend, task_id: str) -> list[UsageRecord]:
    """The usage records of a task, by attempt."""
    records = [record for record in await UsageReport(backend.state).recent() if record.task_id == task_id]
    return sorted(records, key=lambda record: tuple(map(int, record.id.split(":")[1:])))
