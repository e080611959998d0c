"""What these tests share: a model that follows a plan, tools that write down what they do, and a worker with both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

import providers
from providers import (
    AgentConfig,
    CallTool,
    ChatProvider,
    ChunkFn,
    Message,
    ModelInfo,
    ProviderError,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.messages import Part
from queue_backends import Backend, BackendOptions, Task, TaskResult, TokenUsage, open_backend
from worker.assembly import open_worker
from worker.client import Fleet, Handle
from worker.loop_policy import LoopPolicy
from worker.settings import Settings, load_settings
from worker.worker import Worker

LIMIT_S = 20
MODEL = "planned"
USAGE = TokenUsage(input_tokens=100, output_tokens=10)
SIDE_USAGE = TokenUsage(input_tokens=7, output_tokens=3)
TOOLS = '''
import json

from worker import tool
from worker.errors import ToolCallFailed

def _write(line):
    with open({diary!r}, "a") as diary:
        diary.write(line + "\\n")

@tool(idempotent=True)
async def look(topic: str, depth: int = 1) -> str:
    """Look something up."""
    _write("look " + topic)
    return "about " + topic + ": " + "x" * depth

@tool
async def write(text: str) -> str:
    """Write something down."""
    _write("write " + text)
    return "written: " + text

@tool
async def stumble(text: str) -> str:
    """Fails the first time."""
    with open({diary!r}) as diary:
        again = "stumble " + text in diary.read()
    _write("stumble " + text)
    if not again:
        raise ToolCallFailed("not this time")
    return "at last: " + text
'''


class Plan:
    """What the model does, turn by turn, and what it was asked."""

    def __init__(self) -> None:
        self.turns: list[tuple[str, tuple[ToolCall, ...]]] = []
        self.asked: list[TurnRequest] = []
        """Of the run's own turns."""
        self.beside: list[TurnRequest] = []
        """Without tools."""
        self.said = "in short"
        """To those."""
        self.failure: ProviderError | None = None
        """Of those."""
        self.hangs = False
        self.is_asked_beside = asyncio.Event()
        self.heard: dict[str, ToolOutcome] = {}
        """By call id: what the model was told of its calls."""
        self.window: int | None = None

    def does(self, *turns: Sequence[ToolCall]) -> None:
        """Calls of each turn; then the answer."""
        self.turns = [("let me see", tuple(calls)) for calls in turns]

    def hear(self, request: TurnRequest) -> None:
        """Note the outcomes that a request carries."""
        for message in request.messages:
            self.heard |= {part.call_id: part for part in message.parts if isinstance(part, ToolOutcome)}


class Planned(ChatProvider):
    """Follows the plan. Whoever asks it without tools is answered in short."""

    name = MODEL

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """The next turn."""
        plan = self.plan
        if not request.tools:
            plan.beside.append(request)
            plan.is_asked_beside.set()
            if plan.hangs:
                await asyncio.Event().wait()
            if plan.failure is not None:
                raise plan.failure
            yield _end(plan.said, (), SIDE_USAGE)
            return
        plan.asked.append(request)
        plan.hear(request)
        turn = sum(message.role is Role.ASSISTANT for message in request.messages)
        is_planned = request.messages[0].text == "go" and turn < len(plan.turns)
        text, calls = plan.turns[turn] if is_planned else ("done", ())
        await asyncio.sleep(0)
        yield TextDelta(text)
        yield _end(text, calls, USAGE)

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """The plan's window, which is looked up elsewhere."""
        await asyncio.sleep(0)
        return ModelInfo(context_window=self.plan.window)


class WholeRun:
    """Follows the plan in one go: a provider that runs whole tasks."""

    name = "whole"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    async def run_task(
        self, config: AgentConfig, task: Task, tools: Sequence[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
    ) -> tuple[str, TokenUsage]:
        """All calls, one after another."""
        if not tools:
            self.plan.beside.append(TurnRequest(config=config, messages=(Message.user(task.prompt),)))
            return self.plan.said, SIDE_USAGE
        for _, calls in self.plan.turns:
            for call in calls:
                self.plan.heard[call.id] = await call_tool(call)
        return "done", USAGE


def _end(text: str, calls: Sequence[ToolCall], usage: TokenUsage) -> TurnEnd:
    parts: tuple[Part, ...] = (TextPart(text=text), *calls)
    reason = StopReason.TOOL_USE if calls else StopReason.END_TURN
    return TurnEnd(message=Message(role=Role.ASSISTANT, parts=parts), stop_reason=reason, usage=usage, model="m")


def call(call_id: str, name: str, **arguments: Any) -> ToolCall:
    """A tool call."""
    return ToolCall(id=call_id, name=name, arguments=msgspec.json.encode(arguments).decode())


class Ground:
    """Where the tests play: the plan, and what the tools wrote."""

    def __init__(self, folder: Path) -> None:
        self.plan = Plan()
        self.diary = folder / "diary"
        self.diary.write_text("")
        self.tools = folder / "tools.py"
        self.tools.write_text(TOOLS.format(diary=str(self.diary)))
        providers.register(MODEL, lambda: Planned(self.plan))
        providers.register(WholeRun.name, lambda: WholeRun(self.plan))

    @property
    def effects(self) -> list[str]:
        """What the tools did, in order."""
        return self.diary.read_text().splitlines()

    def settings(self, policy: Any = None, **more: Any) -> Settings:
        """A worker with the tools and the policy."""
        chosen = {
            "agent.model": "m",
            "agent.provider": MODEL,
            "retry_base_s": 0.0,
            "grace_s": 0.0,
            "python_tools": (str(self.tools),),
            "embedding_model": "lexical",
            **more,
        }
        if policy is not None:
            chosen["loop_policy"] = msgspec.convert(policy, LoopPolicy)
        return load_settings({}, file=None, overrides=chosen)

    @asynccontextmanager
    async def worker(self, policy: Any = None, **more: Any) -> AsyncIterator[tuple[Backend, Worker]]:
        """A worker on a memory backend of its own."""
        async with (
            await open_backend("memory://", BackendOptions(lease_s=5)) as backend,
            open_worker(self.settings(policy, **more), backend) as worker,
        ):
            yield backend, worker

    async def run(self, policy: Any = None, **more: Any) -> TaskResult:
        """One task, with a worker of its own."""
        async with self.worker(policy, **more) as (backend, _):
            return await done(backend, "go")

    def content(self, call_id: str) -> str:
        """What the model read of a call."""
        return self.plan.heard[call_id].content

    def asked(self, number: int = 0) -> str:
        """What was asked beside the run."""
        return self.plan.beside[number].messages[0].text


async def done(backend: Backend, prompt: str, **more: Any) -> TaskResult:
    """The result of a task."""
    async with asyncio.timeout(LIMIT_S):
        handle: Handle = await Fleet(backend).submit(prompt, **more)
        return await handle.result()
