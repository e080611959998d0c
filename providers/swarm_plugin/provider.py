"""A provider in another process, in any language, that speaks kubeswarm's `swarm.plugin.v1`: it runs whole tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from providers.answer_limits import answer_too_long
from providers.decoding import UNREADABLE
from providers.errors import PERMANENT_PREFIX, BadResponse, InvalidRequest, ProviderError, StreamBroken, Unavailable
from providers.interfaces import CallTool, ChunkFn, ConfigParam, Health
from providers.live_config import Configurable
from providers.messages import AgentConfig, Message, Role, ToolCall, ToolSpec, conversation
from providers.swarm_plugin.stream import NAME, RunStream, reachable, run_stream
from queue_backends import ChunkType, Task, TokenUsage
from queue_backends.swarm_plugin.messages import (
    Result,
    RunTaskMessage,
    RunTaskRequest,
    Tool,
    ToolCallRequest,
    ToolCallResult,
)
from queue_backends.swarm_plugin.task_form import usage_of

ADDRESS_VARIABLE = "SWARM_PLUGIN_LLM_ADDR"
_HEALTH_LIMIT_S = 5.0
_MOST_INT32 = 2**31 - 1


class SwarmPluginProvider(Configurable):
    """Sends each task to the plugin, over a connection of its own, and calls the tools that the plugin asks for.

    The protocol has a task's prompt, system prompt, model, output limit and tools. Earlier messages of a conversation
    are put in front of the prompt as text; thinking, images, output schema and sampling settings have no place in it.
    """

    name = NAME
    params = (ConfigParam(key="address", description=f"host:port of the plugin; else {ADDRESS_VARIABLE}"),)

    def __init__(self, address: str = "") -> None:
        self._address = address

    async def run_task(
        self, config: AgentConfig, task: Task, tools: Sequence[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
    ) -> tuple[str, TokenUsage]:
        """Let the plugin work on the task. Raises a `ProviderError`: one that says `permanent failure: ` is final."""
        address = self._address_for(config)
        async with run_stream(address, config.connect_timeout_s) as stream:
            await stream.send(RunTaskMessage(init=_init(config, task, tools)), "send init")
            streamed_chars = 0
            while (message := await stream.receive(config.first_event_timeout_s)) is not None:
                if message.result is not None:
                    output, usage = _ended(message.result)
                    if not streamed_chars:
                        await chunk_fn(ChunkType.CONTENT, output)
                    return output, usage
                if message.chunk is not None:
                    streamed_chars += len(message.chunk.text)
                    if streamed_chars > config.max_answer_chars:
                        raise answer_too_long(config.max_answer_chars, self.name)
                    await chunk_fn(ChunkType.CONTENT, message.chunk.text)
                elif message.tool_call is not None:
                    await _call(stream, message.tool_call, call_tool, chunk_fn)
                else:
                    raise BadResponse("grpc provider: recv: the plugin sent no chunk, tool call or result")
        raise StreamBroken("grpc provider: stream closed before Result", provider=NAME)

    async def health_check(self, config: AgentConfig) -> Health:
        """Connect: the protocol has no lighter call that is real."""
        try:
            address = self._address_for(config)
            await reachable(address, _HEALTH_LIMIT_S)
        except ProviderError as error:
            return Health(healthy=False, message=str(error))
        return Health(healthy=True, details={"address": address})

    def _address_for(self, config: AgentConfig) -> str:
        own = config.base_url if config.provider == self.name else ""  # else it is that of another provider
        address = own or self.value("address") or self._address or os.environ.get(ADDRESS_VARIABLE, "").strip()
        if not address:
            raise InvalidRequest(
                f"grpc provider: ExternalProviderAddr is not set: set {ADDRESS_VARIABLE} to the plugin's host:port",
                provider=NAME,
            )
        return address.removeprefix("grpc://").rstrip("/")


def _init(config: AgentConfig, task: Task, tools: Sequence[ToolSpec]) -> RunTaskRequest:
    return RunTaskRequest(
        task_id=task.id,
        prompt=_prompt(task),
        system_prompt=config.system_prompt,
        model=config.model,
        max_tokens=min(config.max_tokens, _MOST_INT32),
        tools=tuple(
            Tool(name=tool.name, description=tool.description, input_schema=msgspec.json.encode(tool.input_schema))
            for tool in tools
        ),
    )


def _prompt(task: Task) -> str:
    """The prompt; what was said before comes first, as text, for the protocol has no place for it."""
    earlier = [_line(message) for message in conversation(task.history, "")]
    return "\n\n".join([*filter(None, earlier), task.prompt]) if earlier else task.prompt


def _line(message: Message) -> str:
    speaker = "User" if message.role is Role.USER else "Assistant"
    return f"{speaker}: {message.text}" if message.text else ""


async def _call(stream: RunStream, call: ToolCallRequest, call_tool: CallTool, chunk_fn: ChunkFn) -> None:
    arguments = call.input.decode(errors="replace") or "{}"
    named = {"id": call.call_id, "name": call.tool_name}
    await chunk_fn(ChunkType.TOOL_CALL, call.tool_name, {**named, "arguments": _parsed(arguments)})
    outcome = await call_tool(ToolCall(id=call.call_id, name=call.tool_name, arguments=arguments))
    await chunk_fn(ChunkType.TOOL_RESULT, outcome.content, {**named, "is_error": outcome.is_error})
    if outcome.is_error:
        answer = ToolCallResult(call_id=call.call_id, error=outcome.content or "the tool failed")
    else:
        answer = ToolCallResult(call_id=call.call_id, output=outcome.content)
    await stream.send(RunTaskMessage(tool_result=answer), "send tool result")


def _parsed(arguments: str) -> Any:
    try:
        return msgspec.json.decode(arguments)
    except UNREADABLE:
        return arguments


def _ended(result: Result) -> tuple[str, TokenUsage]:
    usage = usage_of(result.input_tokens, result.output_tokens)
    if not result.error:
        return result.output, usage
    if result.error.startswith(PERMANENT_PREFIX):
        raise InvalidRequest(result.error, provider=NAME, usage=usage)
    raise Unavailable(result.error, provider=NAME, usage=usage)
