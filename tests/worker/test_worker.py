"""What becomes of a task in the hands of a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

import providers
from providers import AgentConfig, CallTool, ChunkFn, ToolSpec
from queue_backends import (
    RUN_CANCELLED,
    Backend,
    CancelOutcome,
    Chunk,
    ChunkType,
    Task,
    TaskResult,
    TaskState,
    TokenUsage,
)
from worker.client import Fleet, Handle
from worker.usage import UsageReport
from worker.worker import Worker

FleetOf = Callable[..., AbstractAsyncContextManager[tuple[Fleet, Worker]]]
LIMIT_S = 10


def turns(*items: dict[str, Any]) -> dict[str, Any]:
    """A script that plays these turns for any prompt."""
    return {"scenarios": [{"turns": list(items)}]}


async def ended(handle: Handle) -> tuple[TaskResult, list[Chunk]]:
    """The task's result and all its chunks."""
    async with asyncio.timeout(LIMIT_S):
        chunks = [chunk async for chunk in handle]
        return await handle.result(), chunks


async def test_task_is_answered_streamed_and_accounted(fleet_of: FleetOf, backend: Backend) -> None:
    """One result, chunks that add up to it, one final chunk with the usage, one usage record."""
    async with fleet_of(script=turns({"text": "hello there", "usage": {"input_tokens": 7, "output_tokens": 2}})) as (
        fleet,
        _,
    ):
        result, chunks = await ended(await fleet.submit("hi", tenant="acme"))
    assert (result.output, result.error) == ("hello there", "")
    assert "".join(chunk.content for chunk in chunks if chunk.type is ChunkType.CONTENT) == "hello there"
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.type for chunk in chunks if chunk.is_final] == [ChunkType.DONE]
    assert chunks[-1].metadata["usage"] == {"input_tokens": 7, "output_tokens": 2}
    (record,) = await UsageReport(backend.state).recent()
    assert record.id == f"{result.task_id}:0:0"
    assert (record.tenant, record.usage) == ("acme", TokenUsage(input_tokens=7, output_tokens=2))


async def test_tools_are_called_and_every_turn_is_accounted(fleet_of: FleetOf, backend: Backend, tmp_path: Any) -> None:
    """A Python tool's answer reaches the model; each model call has its own record."""
    tools = tmp_path / "tools.py"
    tools.write_text(
        "from worker import tool\n@tool\ndef add(a: int, b: int) -> int:\n    '''Sum.'''\n    return a + b\n"
    )
    script = turns({"tool_calls": [{"name": "add", "arguments": {"a": 2, "b": 3}}]}, {"text": "it is {last_result}"})
    async with fleet_of(script=script, python_tools=(str(tools),)) as (fleet, _):
        result, chunks = await ended(await fleet.submit("2 + 3?"))
    assert result.output == "it is 5"
    assert [chunk.content for chunk in chunks if chunk.type is ChunkType.TOOL_RESULT] == ["5"]
    records = await UsageReport(backend.state).recent()
    assert sorted(record.id for record in records) == [f"{result.task_id}:0:0", f"{result.task_id}:1:0"]


async def test_failed_attempt_is_tried_again_and_its_text_superseded(fleet_of: FleetOf) -> None:
    """A retry streams under a higher attempt than anything before, and the task succeeds once."""
    fault = {"kind": "unavailable", "after_chunks": 1, "attempts": 3}
    async with fleet_of(script=turns({"text": "a b", "fault": fault}), **{"agent.max_turn_restarts": 1}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
    assert result.output == "a b"
    attempts = [chunk.attempt for chunk in chunks]
    assert attempts == sorted(attempts)
    last = [chunk.content for chunk in chunks if chunk.attempt == attempts[-1] and chunk.type is ChunkType.CONTENT]
    assert "".join(last) == "a b"
    assert sum(chunk.is_final for chunk in chunks) == 1


async def test_task_that_keeps_failing_goes_to_the_dead_letters(fleet_of: FleetOf, backend: Backend) -> None:
    """After the last retry: result with the error, one final ERROR chunk, a dead letter; requeue runs it again."""
    script = turns({"fault": {"kind": "overloaded", "message": "much too busy"}})
    async with fleet_of(script=script, max_retries=2) as (fleet, _):
        handle = await fleet.submit("hi")
        result, chunks = await ended(handle)
        (letter,) = await backend.queue.dead_letters()
        assert await backend.queue.requeue([letter.id]) == [handle.id]
        again, _ = await ended(handle)
    assert result.error == again.error == "much too busy"
    assert letter.attempt == 3
    assert [(chunk.type, chunk.content) for chunk in chunks if chunk.is_final] == [(ChunkType.ERROR, "much too busy")]


async def test_permanent_failure_is_not_repeated(fleet_of: FleetOf, backend: Backend) -> None:
    """What the provider will never accept is given up at once, in ark's words."""
    async with fleet_of(script=turns({"fault": {"kind": "invalid_request", "message": "no such model"}})) as (fleet, _):
        result, _ = await ended(await fleet.submit("hi"))
    assert result.error == "permanent failure: no such model"
    assert (await backend.queue.dead_letters())[0].attempt == 1


async def test_running_task_is_cancelled(fleet_of: FleetOf, backend: Backend) -> None:
    """The run ends, its result and its one final chunk say so, and what it had used is in the books."""
    slow = turns({"text": "one two three", "chunk_delay_s": 60})
    async with fleet_of(script=slow) as (fleet, worker):
        handle = await fleet.submit("hi")
        async with asyncio.timeout(LIMIT_S):
            async for _ in handle:
                break
            assert await handle.cancel() is CancelOutcome.REQUESTED
        result, chunks = await ended(handle)
        assert worker.running == 0
    assert result.error == RUN_CANCELLED
    assert [(chunk.type, chunk.content) for chunk in chunks if chunk.is_final] == [(ChunkType.ERROR, RUN_CANCELLED)]
    (record,) = await UsageReport(backend.state).recent()
    assert (record.outcome, record.estimated) == ("cancelled", True)


async def test_time_limit_ends_an_attempt(fleet_of: FleetOf) -> None:
    """A run that takes too long fails with the limit's name, after its retries."""
    async with fleet_of(script=turns({"text": "late", "delay_s": 60}), timeout_s=1, max_retries=0) as (fleet, _):
        result, _ = await ended(await fleet.submit("hi"))
    assert "longer than 1 s" in result.error
    assert "AGENT_TIMEOUT_SECONDS" in result.error


async def test_deadline_of_the_task_counts(fleet_of: FleetOf) -> None:
    """A passed deadline ends the task for good, before or while it runs."""
    async with fleet_of(script=turns({"text": "late", "delay_s": 60})) as (fleet, _):
        passed = await fleet.submit(Task(prompt="hi", deadline=time.time() - 1))
        soon = await fleet.submit("hi", deadline_s=0.2)
        assert "before it was started" in (await ended(passed))[0].error
        assert "deadline has passed" in (await ended(soon))[0].error


async def test_draining_finishes_what_runs(fleet_of: FleetOf, backend: Backend) -> None:
    """A worker that is told to stop pulls nothing more, and what it had in hand gets its result."""
    async with fleet_of(script=turns({"text": "done", "delay_s": 0.2}), concurrency=1) as (fleet, worker):
        first, second = await fleet.submit_many(["one", "two"])
        async with asyncio.timeout(LIMIT_S):
            while (await first.status()).state is not TaskState.RUNNING:
                await asyncio.sleep(0)
        worker.stop()
    assert (await backend.queue.results([first.id]))[0] is not None
    assert (await second.status()).state is TaskState.READY


async def test_tasks_over_the_grace_period_are_handed_back_at_once(fleet_of: FleetOf, backend: Backend) -> None:
    """They are ready again without waiting for a lease, at the front, without a counted attempt."""
    async with fleet_of(script=turns({"text": "never", "delay_s": 60}), grace_s=0) as (fleet, _):
        handle = await fleet.submit("hi")
        async with asyncio.timeout(LIMIT_S):
            while (await handle.status()).state is not TaskState.RUNNING:
                await asyncio.sleep(0)
    (again,) = await backend.queue.pull(1, 0)
    assert (again.task.id, again.task.attempt, again.first) == (handle.id, 0, False)
    assert again.next_attempt > 0


async def test_concurrency_bounds_what_runs(fleet_of: FleetOf) -> None:
    """Never more runs than slots."""
    running, most = 0, 0

    class Counting:
        name = "counting"

        async def run_task(
            self, config: AgentConfig, task: Task, tools: list[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
        ) -> tuple[str, TokenUsage]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            return "ok", TokenUsage(input_tokens=1, output_tokens=1)

    providers.register("counting", Counting)  # type: ignore[arg-type]  # a class with the protocol's shape
    async with fleet_of(**{"agent.provider": "counting", "concurrency": 3}) as (fleet, _):
        handles = await fleet.submit_many(["x"] * 12)
        results = [await handle.result(LIMIT_S) for handle in handles]
    assert {result.output for result in results} == {"ok"}
    assert most == 3


async def test_provider_that_crashes_is_a_failed_attempt(fleet_of: FleetOf) -> None:
    """Anything a provider raises becomes the task's error; the worker goes on."""

    class Crashing:
        name = "crashing"

        async def run_task(self, *_: Any) -> tuple[str, TokenUsage]:
            raise ZeroDivisionError("by accident")

    providers.register("crashing", Crashing)
    async with fleet_of(**{"agent.provider": "crashing", "max_retries": 1}) as (fleet, _):
        result, _ = await ended(await fleet.submit("hi"))
    assert result.error == "by accident"


async def test_overrides_change_one_task_and_only_what_is_allowed(fleet_of: FleetOf) -> None:
    """A task may choose its prompt or limits, not where keys are sent to."""
    async with fleet_of() as (fleet, _):
        fine, _ = await ended(await fleet.submit("hi", temperature=0.1, max_tokens=5))
        refused, _ = await ended(await fleet.submit("hi", base_url="http://elsewhere"))
    assert fine.ok
    assert "base_url" in refused.error


async def test_agent_names_do_not_matter_where_none_is_declared(fleet_of: FleetOf) -> None:
    """With no declared agents every task runs with the worker's own, as ark's does."""
    async with fleet_of() as (fleet, _):
        assert (await ended(await fleet.submit("hi", agent="whoever")))[0].ok


async def test_unknown_provider_says_what_there_is(fleet_of: FleetOf) -> None:
    """ark's text, and the registered names."""
    async with fleet_of(**{"agent.provider": "nosuch"}) as (fleet, _):
        result, _ = await ended(await fleet.submit("hi"))
    assert 'unknown provider "nosuch" — did you register it with providers.register?' in result.error
    assert "scripted" in result.error


@pytest.mark.parametrize("count", [200])
async def test_many_tasks_each_get_their_own_answer(fleet_of: FleetOf, count: int) -> None:
    """Group commit keeps results, chunks and records apart."""
    async with fleet_of(script=turns({"text": "answer to {prompt}"}), concurrency=50) as (fleet, _):
        handles = await fleet.submit_many([f"question {number}" for number in range(count)])
        for number, handle in enumerate(handles):
            result, chunks = await ended(handle)
            assert result.output == f"answer to question {number}"
            assert chunks[-1].is_final
