"""Whoever ends a task ends its spending: the model's stream, its tools, and everything that would have come after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from providers import CallTool, ChunkFn
from queue_backends import RUN_CANCELLED, CancelOutcome, Chunk, ChunkType, Task, TaskResult, TaskState
from tests.tools.tool_servers import own_stdio_server
from tests.worker.redis_fleets import LIMIT_S, provider_of, worker_on
from worker.client import Fleet, Handle
from worker.early_cancels import EarlyCancels
from worker.tools import WebhookTool
from worker.usage import UsageReport

TOOLS = '''
import asyncio
import time
from pathlib import Path
from worker import tool

@tool
async def patient(diary: str) -> str:
    """Wait for ever, and note how that ends."""
    Path(diary).write_text("started")
    try:
        await asyncio.sleep(3600)
    finally:
        Path(diary).write_text("cancelled")
    return "never"

@tool
def stuck(diary: str) -> str:
    """Wait in a thread until somebody writes into the diary."""
    Path(diary).write_text("started")
    while Path(diary).read_text() == "started":
        time.sleep(0.02)
    Path(diary).write_text("ended")
    return "at last"

@tool
async def deaf(diary: str) -> str:
    """Do not heed a cancellation, until somebody writes into the diary."""
    Path(diary).write_text("started")
    while Path(diary).read_text() == "started":
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass
    return "at last"
'''

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an HTTP server for a handler of all requests; gives its URL."""
    async with AsyncExitStack() as stack:

        async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> str:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield start


class Model:
    """An OpenAI-compatible server. Its first answers go on for ever, until their reader leaves."""

    def __init__(self, *, endless: int = 1_000_000) -> None:
        self.calls = 0
        self.streaming = asyncio.Event()
        self.left = asyncio.Event()
        self._endless = endless

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while self.calls <= self._endless:
                await response.write(b'data: {"choices": [{"index": 0, "delta": {"content": "tick "}}]}\n\n')
                self.streaming.set()
                await asyncio.sleep(0.02)
        except (ConnectionResetError, asyncio.CancelledError):
            self.left.set()
            raise
        await response.write(b'data: {"choices": [{"index": 0, "delta": {"content": "done"}}]}\n\n')
        await response.write(b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n')
        await response.write(b"data: [DONE]\n\n")
        return response


def openai_at(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    return {"agent.provider": "openai", "agent.model": "gpt-test", "agent.base_url": f"{url}/v1"}


async def ended(handle: Handle) -> tuple[TaskResult, list[Chunk]]:
    """Result and chunks of a task; the chunks are whole, with one end."""
    async with asyncio.timeout(LIMIT_S):
        chunks = [chunk async for chunk in handle]
        result = await handle.result()
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return result, chunks


async def happened(event: asyncio.Event) -> None:
    async with asyncio.timeout(LIMIT_S):
        await event.wait()


async def says(diary: Path, text: str) -> None:
    """Wait until a tool's diary says so."""
    async with asyncio.timeout(LIMIT_S):
        while not diary.exists() or diary.read_text() != text:
            await asyncio.sleep(0.02)


# The model's stream


async def test_cancel_closes_the_models_stream(queue_url: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sees its reader leave; result, one final chunk and the usage of the cut call say what happened."""
    model = Model()
    async with worker_on(queue_url, **openai_at(await serve(model.answer), monkeypatch)) as (fleet, worker):
        handle = await fleet.submit("hi")
        await happened(model.streaming)
        assert await handle.cancel() is CancelOutcome.REQUESTED
        await happened(model.left)
        result, chunks = await ended(handle)
        records = await UsageReport(fleet.backend.state).recent()
        assert worker.running == 0
    assert (result.error, result.output) == (RUN_CANCELLED, "")
    assert (chunks[-1].type, chunks[-1].content) == (ChunkType.ERROR, RUN_CANCELLED)
    assert [(record.id, record.outcome, record.estimated) for record in records] == [
        (f"{handle.id}:0:0", "cancelled", True)
    ]
    assert model.calls == 1


async def test_deadline_closes_the_models_stream(queue_url: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose time is up ends for good, and is not tried again."""
    model = Model()
    async with worker_on(queue_url, **openai_at(await serve(model.answer), monkeypatch)) as (fleet, _):
        handle = await fleet.submit("hi", deadline_s=0.5)
        await happened(model.left)
        result, chunks = await ended(handle)
        (letter,) = await fleet.backend.queue.dead_letters()
    assert "deadline has passed" in result.error
    assert (chunks[-1].type, chunks[-1].content, letter.error) == (ChunkType.ERROR, result.error, result.error)
    assert model.calls == 1


async def test_time_limit_closes_the_models_stream_and_tries_again(
    queue_url: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AGENT_TIMEOUT_SECONDS ends an attempt, not the task."""
    model = Model(endless=1)
    settings = openai_at(await serve(model.answer), monkeypatch)
    async with worker_on(queue_url, timeout_s=1, **settings) as (fleet, _):
        handle = await fleet.submit("hi")
        await happened(model.left)
        result, _ = await ended(handle)
        records = await UsageReport(fleet.backend.state).recent()
    assert (result.output, result.error) == ("done", "")
    assert sorted(record.outcome for record in records) == ["cancelled", "completed"]
    assert model.calls == 2


# Tools


def calling(tool: str, **arguments: Any) -> dict[str, Any]:
    """Settings of an agent that calls this tool, and then would ask the model again."""
    turns = [{"tool_calls": [{"name": tool, "arguments": arguments}]}, {"text": "the tool said {last_result}"}]
    return {"agent.options": {"script": {"scenarios": [{"turns": turns}]}}}


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "tools.py").write_text(TOOLS)
    return {"python_tools": (str(tmp_path / "tools.py"),)}


async def assert_cancelled_in_its_tool(fleet: Fleet, handle: Handle) -> None:
    """It ended as cancelled; the turn that called the tool is in the books, and no other one followed."""
    result, chunks = await ended(handle)
    assert result.error == RUN_CANCELLED
    assert [chunk.type for chunk in chunks] == [ChunkType.TOOL_CALL, ChunkType.ERROR]
    records = await UsageReport(fleet.backend.state).recent()
    assert [(record.id, record.outcome) for record in records] == [(f"{handle.id}:0:0", "completed")]


@pytest.mark.parametrize("way", ["cancel", "deadline"])
async def test_async_tool_is_cancelled(queue_url: str, tmp_path: Path, tools: dict[str, Any], way: str) -> None:
    """It gets a CancelledError where it waits; the model is not asked again."""
    diary = tmp_path / "diary"
    async with worker_on(queue_url, **tools, **calling("patient", diary=str(diary))) as (fleet, _):
        handle = await fleet.submit("hi", deadline_s=1.0 if way == "deadline" else None)
        await says(diary, "started")
        if way == "cancel":
            await handle.cancel()
            await assert_cancelled_in_its_tool(fleet, handle)
        else:
            assert "deadline" in (await ended(handle))[0].error
        assert diary.read_text() == "cancelled"


async def test_tool_in_a_thread_does_not_hold_up_the_end(queue_url: str, tmp_path: Path, tools: dict[str, Any]) -> None:
    """A thread cannot be stopped: the run ends all the same, and what the thread says later is heard by nobody."""
    diary = tmp_path / "diary"
    async with worker_on(queue_url, **tools, **calling("stuck", diary=str(diary))) as (fleet, worker):
        handle = await fleet.submit("hi")
        await says(diary, "started")
        await handle.cancel()
        await assert_cancelled_in_its_tool(fleet, handle)
        assert (worker.running, diary.read_text()) == (0, "started")
        diary.write_text("go on")
        await says(diary, "ended")


async def test_webhook_request_is_closed(queue_url: str, serve: Serve) -> None:
    """The tool's server sees the connection close."""
    called, closed = asyncio.Event(), asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        called.set()
        try:
            await asyncio.sleep(3600)
        finally:
            closed.set()
        return web.Response()

    hook = WebhookTool(name="hook", url=await serve(hang))
    async with worker_on(queue_url, webhook_tools=(hook,), **calling("hook")) as (fleet, _):
        handle = await fleet.submit("hi")
        await happened(called)
        await handle.cancel()
        await happened(closed)
        await assert_cancelled_in_its_tool(fleet, handle)


async def test_mcp_server_in_a_subprocess_is_told(queue_url: str) -> None:
    """The call ends on the server too, and the server goes on serving other tasks."""

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        from providers import ToolCall

        return (await call_tool(ToolCall(id="1", name=f"own__{task.prompt}", arguments="{}"))).content

    settings: dict[str, Any] = {"mcp_servers": (own_stdio_server(),), "agent.provider": provider_of("one-tool", run)}
    async with worker_on(queue_url, **settings) as (fleet, _):
        hanging = await fleet.submit("hang")
        assert (await (await fleet.submit("has_started")).result(LIMIT_S)).output == "started"
        await hanging.cancel()
        assert (await ended(hanging))[0].error == RUN_CANCELLED
        assert (await (await fleet.submit("was_cancelled")).result(LIMIT_S)).output == "cancelled"


async def test_tool_that_swallows_its_cancellation_is_left_behind(
    queue_url: str, tmp_path: Path, tools: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends as cancelled and its slot is free; the log names the tool, and its late answer changes nothing."""
    monkeypatch.setattr("worker.stubborn.HEED_WITHIN_S", 0.1)
    diary = tmp_path / "diary"
    settings: dict[str, Any] = {**tools, **calling("deaf", diary=str(diary)), "concurrency": 1}
    with capture_logs() as logs:
        async with worker_on(queue_url, **settings) as (fleet, worker):
            handle = await fleet.submit("hi")
            await says(diary, "started")
            await handle.cancel()
            await assert_cancelled_in_its_tool(fleet, handle)
            assert worker.running == 0
            diary.write_text("go on")
            again = await fleet.submit("hi", deadline_s=0.0)
            assert "deadline" in (await ended(again))[0].error
    (line,) = [line for line in logs if "does not end" in line["event"]]
    assert (line["task"], line["reason"], line["log_level"]) == (handle.id, "cancelled", "error")
    assert line["hangs_in"] == [f"tool deaf of {handle.id}"]


# Tasks that nobody runs


async def in_state(handle: Handle, state: TaskState) -> None:
    async with asyncio.timeout(LIMIT_S):
        while (await handle.status()).state is not state:
            await asyncio.sleep(0.01)


async def test_task_between_two_attempts_is_cancelled_at_once(queue_url: str) -> None:
    """One that failed and waits for its next attempt ends as cancelled, with what its first attempt had used."""
    script: Any = {"scenarios": [{"turns": [{"fault": {"kind": "overloaded", "retry_after_s": 3600}}]}]}
    async with worker_on(queue_url, **dict[str, Any]({"agent.options": {"script": script}})) as (fleet, _):
        handle = await fleet.submit("hi")
        await in_state(handle, TaskState.DELAYED)
        assert await handle.cancel() is CancelOutcome.CANCELLED
        result, chunks = await ended(handle)
    assert result.error == chunks[-1].content == RUN_CANCELLED


async def test_cancelled_task_that_waits_is_never_run(queue_url: str) -> None:
    """Behind a full worker, or scheduled: it ends at once, and no model is ever asked."""
    asked: list[str] = []
    busy = asyncio.Event()

    async def run(task: Task, call_tool: CallTool, chunk_fn: ChunkFn) -> str:
        asked.append(task.prompt)
        busy.set()
        await asyncio.sleep(0 if task.prompt == "last" else 3600)
        return "ok"

    settings: dict[str, Any] = {"agent.provider": provider_of("asked", run), "concurrency": 1}
    async with worker_on(queue_url, **settings) as (fleet, _):
        running = await fleet.submit("running")
        await happened(busy)
        queued, scheduled = await fleet.submit("queued"), await fleet.submit("scheduled", delay_s=3600)
        for handle in (queued, scheduled):
            assert await handle.cancel() is CancelOutcome.CANCELLED
            result, chunks = await ended(handle)
            assert (result.error, [chunk.content for chunk in chunks]) == (RUN_CANCELLED, [RUN_CANCELLED])
        await running.cancel()
        assert (await (await fleet.submit("last")).result(LIMIT_S)).ok
    assert asked == ["running", "last"]


async def test_task_whose_deadline_passed_while_it_waited_is_not_started(queue_url: str) -> None:
    """Queued behind others or scheduled for later than its deadline: a clear error, and no model call."""
    now = time.time()
    async with worker_on(queue_url) as (fleet, _):
        late = await fleet.submit(Task(prompt="hi", deadline=now - 1))
        scheduled = await fleet.submit(Task(prompt="hi", deadline=now + 0.1), delay_s=0.3)
        for handle in (late, scheduled):
            result, chunks = await ended(handle)
            assert result.error == "the task's deadline had passed before it was started"
            assert [chunk.type for chunk in chunks] == [ChunkType.ERROR]
        assert await UsageReport(fleet.backend.state).recent() == []


def test_cancel_that_comes_before_its_task_is_kept_for_a_short_while() -> None:
    """Once, for thirty seconds, and not for more than a thousand tasks: a later life of a task is nobody's to end."""
    now = 0.0
    early = EarlyCancels(clock=lambda: now)
    early.add("first")
    assert (early.take("other"), early.take("first"), early.take("first")) == (False, True, False)
    early.add("old")
    now = 31.0
    assert not early.take("old")
    for number in range(1001):
        early.add(str(number))
    assert (early.take("0"), early.take("1"), early.take("1000")) == (False, True, True)
