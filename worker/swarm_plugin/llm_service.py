"""`LLMProvider` of `swarm.plugin.v1`: a kubeswarm agent sends its tasks, one of our providers works on them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from providers import AgentConfig, ProviderError, StreamBroken, ToolCall, ToolOutcome, ToolSpec
from providers.errors import PERMANENT_PREFIX
from queue_backends import ChunkType, Task, TokenUsage
from queue_backends.protobuf import MalformedMessage, decode, encode
from queue_backends.swarm_plugin.messages import (
    Result,
    RunTaskMessage,
    RunTaskRequest,
    TextChunk,
    Tool,
    ToolCallRequest,
    ToolCallResult,
)
from worker.providers_in_use import ProvidersInUse
from worker.retries import error_text, is_permanent

log = structlog.get_logger(__name__)


class LLMService:
    """Runs tasks with the agent's provider and settings; model, prompt, output limit and tools are the caller's."""

    def __init__(self, providers: ProvidersInUse, agent: AgentConfig) -> None:
        self._providers = providers
        self._agent = agent

    async def run_task(self, _requests: Any, context: Any) -> None:
        """The handler of one stream (`grpc.aio`). A caller that goes away cancels it, and the run with it."""
        run = _Run(context)
        init = await run.first()
        if init is None:
            await run.refuse("the first message must be init")
        else:
            await run.send(RunTaskMessage(result=await self._result(init, run)))

    async def _result(self, init: RunTaskRequest, run: _Run) -> Result:
        try:
            config = self._config(init)
            tools = tuple(_spec(tool) for tool in init.tools)
            task = Task(id=init.task_id, prompt=init.prompt)
            async with self._providers.lease(config) as provider, run.listening():
                output, usage = await provider.run_task(config, task, tools, run.call_tool, run.chunk)
        except ProviderError as error:
            return _failed(error, error.usage)
        except Exception as error:  # a provider is anybody's code: whatever it raises is a failed attempt
            log.exception("provider crashed", task=init.task_id)
            return _failed(error, None)
        return Result(
            output=output, input_tokens=usage.input_tokens or 0, output_tokens=usage.output_tokens or 0, error=""
        )

    def _config(self, init: RunTaskRequest) -> AgentConfig:
        return replace(
            self._agent,
            model=init.model or self._agent.model,
            system_prompt=init.system_prompt or self._agent.system_prompt,
            max_tokens=init.max_tokens if init.max_tokens > 0 else self._agent.max_tokens,
            tools=("*",),
            max_turn_restarts=0,  # a turn that starts over would say its text twice: the protocol cannot take it back
        )


class _Run:
    """One stream, from the plugin's side."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._numbers = itertools.count(1)
        self._calls: dict[str, asyncio.Future[ToolCallResult]] = {}
        self._sending = asyncio.Lock()
        self._is_over = False
        """The caller sends no more."""

    async def first(self) -> RunTaskRequest | None:
        """What is to be done; None if something else was sent."""
        message = await self._receive()
        return message.init if message is not None else None

    async def refuse(self, reason: str) -> None:
        """End the stream with an error of the caller's."""
        import grpc

        await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)

    def listening(self) -> _Listening:
        """While entered, answers to tool calls are heard."""
        return _Listening(self)

    async def listen(self) -> None:
        """Hand each tool's answer to whoever called it; when nothing more can come, those that wait are told."""
        try:
            while (message := await self._receive()) is not None:
                answer = message.tool_result
                waiting = self._calls.pop(answer.call_id, None) if answer is not None else None
                if waiting is not None and answer is not None and not waiting.done():
                    waiting.set_result(answer)
        finally:
            self._is_over = True
            for waiting in self._calls.values():
                if not waiting.done():
                    waiting.set_exception(_ended_early())

    async def call_tool(self, call: ToolCall) -> ToolOutcome:
        """Let the caller run a tool. The ids are ours: a model may use one twice. Raises `StreamBroken`."""
        if self._is_over:
            raise _ended_early()
        call_id = f"call-{next(self._numbers)}"
        answered = self._calls[call_id] = asyncio.get_running_loop().create_future()
        request = ToolCallRequest(call_id=call_id, tool_name=call.name, input=call.arguments.encode())
        await self.send(RunTaskMessage(tool_call=request))
        answer = await answered
        return ToolOutcome(
            call_id=call.id, name=call.name, content=answer.error or answer.output, is_error=bool(answer.error)
        )

    async def chunk(self, kind: ChunkType, content: str, _metadata: Mapping[str, Any] | None = None, /) -> None:
        """Send a piece of the answer; the protocol has no place for anything else."""
        if kind is ChunkType.CONTENT and content:
            await self.send(RunTaskMessage(chunk=TextChunk(text=content)))

    async def send(self, message: RunTaskMessage) -> None:
        """Send one message: one at a time, as grpc wants it."""
        async with self._sending:
            await self._context.write(encode(message))

    async def _receive(self) -> RunTaskMessage | None:
        data = await self._context.read()
        if not isinstance(data, bytes):  # grpc's mark of the end
            return None
        try:
            return decode(RunTaskMessage, data)
        except MalformedMessage as error:
            await self.refuse(str(error))
            return None


def _ended_early() -> StreamBroken:
    return StreamBroken("the agent closed its side of the stream before it had answered a tool call")


class _Listening:
    """The reading side of a run, as a context."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._run.listen(), name="answers to tool calls")

    async def __aexit__(self, *_details: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def _spec(tool: Tool) -> ToolSpec:
    try:
        schema = msgspec.json.decode(tool.input_schema, type=dict[str, Any]) if tool.input_schema else None
    except msgspec.DecodeError as error:
        raise ProviderError(f"the input schema of tool {tool.name!r} is no JSON object: {error}") from error
    described = ToolSpec(name=tool.name, description=tool.description, kind="remote")
    return replace(described, input_schema=schema) if schema else described


def _failed(error: Exception, usage: TokenUsage | None) -> Result:
    text = error_text(error)
    if is_permanent(error, text) and not text.startswith(PERMANENT_PREFIX):
        text = PERMANENT_PREFIX + text
    used = usage or TokenUsage()
    return Result(input_tokens=used.input_tokens or 0, output_tokens=used.output_tokens or 0, error=text)
