"""An external LLM plugin runs our tasks: `SWARM_PLUGIN_LLM_ADDR`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from providers import (
    AgentConfig,
    BadResponse,
    InvalidRequest,
    LimitReached,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StreamBroken,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    Unavailable,
)
from providers.swarm_plugin import SwarmPluginProvider
from queue_backends import ChunkType, Task, TokenUsage, open_backend
from tests.servers import free_port
from tests.swarm_plugin.peers import llm_plugin
from worker.assembly import open_worker
from worker.client import Fleet
from worker.settings import load_settings

LIMIT_S = 30.0
CONFIG = AgentConfig(model="m-1", system_prompt="Be brief.", max_tokens=77)
TOOL = ToolSpec(name="add", description="adds", input_schema={"type": "object", "properties": {"a": {}}})


class Consumer:
    """Takes chunks, and runs tools."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, str]] = []
        self.metadata: list[Mapping[str, Any]] = []
        self.calls: list[ToolCall] = []

    async def chunk(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        self.chunks.append((kind.value, content))
        self.metadata.append(metadata or {})

    async def tool(self, call: ToolCall) -> ToolOutcome:
        self.calls.append(call)
        failed = call.name != "add"
        return ToolOutcome(call_id=call.id, name=call.name, content="no such tool" if failed else "5", is_error=failed)


async def run(address: str, consumer: Consumer, task: Task | None = None, **config: Any) -> tuple[str, TokenUsage]:
    """Run one task at the plugin."""
    from msgspec.structs import replace

    async with asyncio.timeout(LIMIT_S):
        return await SwarmPluginProvider(address).run_task(
            replace(CONFIG, **config),
            task or Task(id="t-1", prompt="2+3?"),
            [TOOL],
            consumer.tool,
            consumer.chunk,
        )


async def test_a_run_with_tools_and_chunks(generated: ModuleType) -> None:
    """Everything that the protocol has arrives on the other side, and all that comes back is shown."""
    pb2, seen = generated, {}

    async def script(context: Any, init: Any) -> None:
        seen["init"] = init
        await context.write(pb2.RunTaskMessage(chunk=pb2.Chunk(text="Let me ")))
        call = pb2.ToolCallRequest(call_id="c1", tool_name="add", input=b'{"a": 2}')
        await context.write(pb2.RunTaskMessage(tool_call=call))
        seen["first"] = (await context.read()).tool_result
        await context.write(pb2.RunTaskMessage(tool_call=pb2.ToolCallRequest(call_id="c2", tool_name="nope")))
        seen["second"] = (await context.read()).tool_result
        await context.write(pb2.RunTaskMessage(chunk=pb2.Chunk(text="see: 5")))
        await context.write(pb2.RunTaskMessage(result=pb2.Result(output="5", input_tokens=12, output_tokens=3)))

    consumer = Consumer()
    async with llm_plugin(pb2, script) as address:
        answer = await run(address, consumer)
    assert answer == ("5", TokenUsage(input_tokens=12, output_tokens=3))
    init = seen["init"]
    assert (init.task_id, init.prompt, init.system_prompt, init.model, init.max_tokens) == (
        "t-1", "2+3?", "Be brief.", "m-1", 77,
    )  # fmt: skip
    assert [(tool.name, tool.description, json.loads(tool.input_schema)) for tool in init.tools] == [
        ("add", "adds", {"type": "object", "properties": {"a": {}}})
    ]
    assert (seen["first"].call_id, seen["first"].output, seen["first"].error) == ("c1", "5", "")
    assert (seen["second"].call_id, seen["second"].output, seen["second"].error) == ("c2", "", "no such tool")
    assert consumer.chunks == [
        ("CONTENT", "Let me "),
        ("TOOL_CALL", "add"),
        ("TOOL_RESULT", "5"),
        ("TOOL_CALL", "nope"),
        ("TOOL_RESULT", "no such tool"),
        ("CONTENT", "see: 5"),
    ]
    assert consumer.metadata[1] == {"id": "c1", "name": "add", "arguments": {"a": 2}}
    assert [call.arguments for call in consumer.calls] == ['{"a": 2}', "{}"]


async def test_an_answer_that_was_not_streamed_is_one_chunk(generated: ModuleType) -> None:
    """And counts that are both zero were not reported."""
    pb2 = generated

    async def script(context: Any, init: Any) -> None:
        await context.write(pb2.RunTaskMessage(result=pb2.Result(output=init.prompt)))

    consumer = Consumer()
    history = ({"role": "user", "content": "I am Ada."}, {"role": "assistant", "content": "Hello Ada."})
    async with llm_plugin(pb2, script) as address:
        output, usage = await run(address, consumer, Task(prompt="Who am I?", history=history))
    assert output == "User: I am Ada.\n\nAssistant: Hello Ada.\n\nWho am I?"
    assert usage == TokenUsage()
    assert consumer.chunks == [("CONTENT", output)]


@pytest.mark.parametrize(
    ("result", "kind", "text"),
    [
        ({"error": "permanent failure: no such model", "input_tokens": 4}, InvalidRequest, "permanent failure: no"),
        ({"error": "busy"}, Unavailable, "busy"),
    ],
)
async def test_what_the_plugin_says_of_a_failure(
    generated: ModuleType, result: dict[str, Any], kind: type[ProviderError], text: str
) -> None:
    """The permanent prefix decides whether it is tried again; tokens that were used still count."""
    pb2 = generated

    async def script(context: Any, _init: Any) -> None:
        await context.write(pb2.RunTaskMessage(result=pb2.Result(**result)))

    async with llm_plugin(pb2, script) as address:
        with pytest.raises(kind, match=text) as caught:
            await run(address, Consumer())
    assert caught.value.retryable is (kind is Unavailable)
    assert (caught.value.usage or TokenUsage()).input_tokens == result.get("input_tokens")


async def test_errors_have_kubeswarms_texts(generated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators know them."""
    pb2 = generated

    async def ends(_context: Any, _init: Any) -> None:
        return

    async def aborts(context: Any, _init: Any) -> None:
        import grpc

        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")

    async def odd(context: Any, init: Any) -> None:
        await context.write(pb2.RunTaskMessage(init=init))

    async def hangs(context: Any, _init: Any) -> None:
        await context.read()

    with pytest.raises(InvalidRequest, match="grpc provider: ExternalProviderAddr is not set"):
        await run("", Consumer())
    with pytest.raises(Unavailable, match=r"grpc provider: dial 127\.0\.0\.1:"):
        await run(f"127.0.0.1:{free_port()}", Consumer(), connect_timeout_s=0.3)
    for script, kind, text in (
        (ends, StreamBroken, "grpc provider: stream closed before Result"),
        (aborts, RateLimited, "grpc provider: recv: .*slow down"),
        (odd, BadResponse, "no chunk, tool call or result"),
        (hangs, ProviderTimeout, "grpc provider: recv: nothing came within"),
    ):
        async with llm_plugin(pb2, script) as address:
            with pytest.raises(kind, match=text):
                await run(address, Consumer(), first_event_timeout_s=0.5 if script is hangs else 60.0)


async def test_an_endless_answer_is_cut(generated: ModuleType) -> None:
    """A plugin that ignores `max_tokens` cannot fill a worker's memory."""
    pb2 = generated

    async def script(context: Any, _init: Any) -> None:
        while True:
            await context.write(pb2.RunTaskMessage(chunk=pb2.Chunk(text="x" * 1000)))

    async with llm_plugin(pb2, script) as address:
        with pytest.raises(LimitReached, match="more than 5000 characters"):
            await run(address, Consumer(), max_answer_chars=5000)


async def test_a_cancelled_run_ends_at_the_plugin(generated: ModuleType) -> None:
    """The plugin sees the stream cancelled, so it stops spending."""
    reached, ended = asyncio.Event(), asyncio.Event()

    async def script(context: Any, _init: Any) -> None:
        reached.set()
        try:
            await context.read()
        except asyncio.CancelledError:
            ended.set()
            raise
        ended.set()

    async with asyncio.timeout(LIMIT_S), llm_plugin(generated, script) as address:
        running = asyncio.create_task(run(address, Consumer()))
        await reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await ended.wait()


async def test_health_is_whether_it_can_be_connected_to(generated: ModuleType) -> None:
    """The protocol has no call that costs nothing."""

    async def script(_context: Any, _init: Any) -> None:
        return

    async with llm_plugin(generated, script) as address:
        health = await SwarmPluginProvider(address).health_check(CONFIG)
    assert (health.healthy, health.details) == (True, {"address": address})
    health = await SwarmPluginProvider().health_check(CONFIG)
    assert not health.healthy


async def test_a_worker_with_the_variable_uses_it_for_every_agent(
    generated: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever provider, route or address an agent names; results, usage and stream are as always."""
    pb2 = generated

    async def script(context: Any, init: Any) -> None:
        await context.write(pb2.RunTaskMessage(chunk=pb2.Chunk(text=f"{init.model}: ")))
        await context.write(pb2.RunTaskMessage(chunk=pb2.Chunk(text=init.prompt)))
        output = f"{init.model}: {init.prompt}"
        await context.write(pb2.RunTaskMessage(result=pb2.Result(output=output, input_tokens=5, output_tokens=6)))

    async with asyncio.timeout(LIMIT_S), llm_plugin(pb2, script) as address:
        environ = {"SWARM_PLUGIN_LLM_ADDR": address, "AGENT_MODEL": "claude-x", "AGENT_PROVIDER": "anthropic"}
        settings = load_settings(environ, overrides={"agent.base_url": "http://127.0.0.1:9"})
        async with await open_backend("memory://") as backend, open_worker(settings, backend):
            handle = await Fleet(backend).submit("hi")
            chunks = [chunk async for chunk in handle]
            result = await handle.result()
    assert (result.output, result.error) == ("claude-x: hi", "")
    assert result.usage == TokenUsage(input_tokens=5, output_tokens=6)
    assert "".join(chunk.content for chunk in chunks if chunk.type is ChunkType.CONTENT) == "claude-x: hi"
