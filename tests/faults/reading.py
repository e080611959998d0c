"""What an engine tells when a run is over, asked through the interfaces that every engine has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from queue_backends import (
    Backend,
    BackendOptions,
    BackendUnavailable,
    ReplayTrimmed,
    TaskNotFound,
    TaskResult,
    TaskState,
    open_backend,
)
from queue_backends.conformance.support import iterating
from tests.faults.evidence import Letter, Told

PAGE = 500
EVERYTHING = 1_000_000
STREAM_WITHIN_S = 10.0
EMPTY_WITHIN_S = 10.0
"""A worker's last word may reach an engine's figures a moment later."""
ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
READERS = 16
USAGE_LOG, USAGE_INDEX = "usage", "usage:index"


async def settled(url: str, options: BackendOptions, ids: Sequence[str], *, within_s: float) -> list[str]:
    """Wait until all these tasks have a result; returns those that have none when the time is over."""
    deadline = time.monotonic() + within_s
    missing = list(ids)
    async with await open_backend(url, options) as backend:
        while missing and time.monotonic() < deadline:
            try:
                missing = [task_id for task_id, found in (await _results(backend, missing)).items() if not found]
            except BackendUnavailable:
                continue
            finally:
                await asyncio.sleep(0.2)  # results of many tasks have no common event to wait for
    return missing


async def read_told(
    url: str, options: BackendOptions, ids: Sequence[str], *, empty_within_s: float = EMPTY_WITHIN_S
) -> Told:
    """Everything that the queue, the chunk streams and the books say of these tasks, and of those that nobody knows."""
    async with await open_backend(url, options) as backend:
        ended = await backend.queue.list_tasks(limit=EVERYTHING, states=ENDED)
        listed = dict.fromkeys([*ids, *(status.id for status in ended)])
        results = {task_id: found for task_id, found in (await _results(backend, list(listed))).items() if found}
        return Told(
            results=results,
            letters=[Letter(one.task_id, one.error) for one in await backend.queue.dead_letters(limit=EVERYTHING)],
            streams=await _streams(backend, list(results)),
            ledger=await _ledger(backend),
            counters=await _counters(backend),
            left_over=await _left_over(backend, len(ended), len(results), empty_within_s),
        )


async def _results(backend: Backend, ids: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    found: dict[str, dict[str, Any] | None] = {}
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        for task_id, result in zip(page, await backend.queue.results(page), strict=True):
            found[task_id] = _fields(result) if result is not None else None
    return found


def _fields(result: TaskResult) -> dict[str, Any]:
    amounts = {"input_tokens": result.usage.input_tokens or 0, "output_tokens": result.usage.output_tokens or 0}
    return {"result": result.output, "error": result.error, **amounts}


async def _streams(backend: Backend, ids: Sequence[str]) -> dict[str, Sequence[dict[str, Any]]]:
    limit = asyncio.Semaphore(READERS)

    async def read(task_id: str) -> Sequence[dict[str, Any]]:
        async with limit:
            return await _stream(backend, task_id)

    async with asyncio.TaskGroup() as group:
        reading = {task_id: group.create_task(read(task_id)) for task_id in ids}
    return {task_id: task.result() for task_id, task in reading.items()}


async def _stream(backend: Backend, task_id: str) -> Sequence[dict[str, Any]]:
    """A stream that does not end, has a gap, or is not there, comes back as far as it goes: the checks will say it."""
    chunks: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(STREAM_WITHIN_S), iterating(backend.chunks.subscribe(task_id)) as stream:
            async for chunk in stream:
                chunks.append(msgspec.to_builtins(chunk))  # noqa: PERF401 - what came before an error counts
    except (TimeoutError, TaskNotFound, ReplayTrimmed):
        return chunks
    return chunks


async def _ledger(backend: Backend) -> dict[str, dict[str, Any]]:
    entries = await backend.state.read_log(USAGE_LOG, limit=EVERYTHING)
    return {entry.id: msgspec.json.decode(entry.value) for entry in entries}


async def _counters(backend: Backend) -> dict[str, dict[str, int]]:
    index = await backend.state.counters(USAGE_INDEX)
    return {USAGE_INDEX: index, **{name: await backend.state.counters(name) for name in index}} if index else {}


async def _left_over(backend: Backend, ended: int, results: int, within_s: float) -> dict[str, int]:
    deadline = time.monotonic() + within_s
    while True:
        stats = await backend.queue.stats()
        found = {"ready tasks": stats.ready, "running tasks": stats.running, "delayed tasks": stats.delayed}
        if not any(found.values()) or time.monotonic() > deadline:
            return {**found, "results that are not listed": abs(results - ended)}
        await asyncio.sleep(0.2)  # figures have no event to wait for
