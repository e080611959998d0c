"""Shoal as kubeswarm's plugin: agents have their tasks run by our providers, and work on our queues."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import pytest

import providers
from providers import AgentConfig, AuthenticationFailed, CallTool, ChunkFn, StreamBroken, ToolCall, ToolSpec
from queue_backends import Backend, BackendOptions, Chunk, ChunkType, Task, TaskState, TokenUsage, open_backend
from tests.servers import Server
from tests.swarm_plugin.peers import Agent, agent_at
from tests.worker.fleet_programs import eventually
from worker.providers_in_use import ProvidersInUse
from worker.retries import RetryPolicy
from worker.swarm_plugin.llm_service import LLMService
from worker.swarm_plugin.queue_service import QueueService
from worker.swarm_plugin.server import plugin_server

LIMIT_S = 30.0


class Told:
    """A provider that does what its prompt says."""

    name = "told"
    cancelled: asyncio.Event
    seen: AgentConfig
    tools: Sequence[ToolSpec]

    async def run_task(
        self, config: AgentConfig, task: Task, tools: Sequence[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
    ) -> tuple[str, TokenUsage]:
        """Calls tools at once, fails, hangs or answers."""
        Told.seen, Told.tools = config, tools
        match task.prompt:
            case "tools":
                calls = [ToolCall(id="same", name=name, arguments='{"n": 1}') for name in ("add", "nope", "add")]
                outcomes = await asyncio.gather(*(call_tool(call) for call in calls))
                output = " ".join(f"{outcome.name}={outcome.content}/{outcome.is_error}" for outcome in outcomes)
            case "permanent":
                raise AuthenticationFailed("no key", usage=TokenUsage(input_tokens=9))
            case "broken":
                raise StreamBroken("cut")
            case "crash":
                raise RuntimeError("oops")
            case "hang":
                await chunk_fn(ChunkType.THINKING, "hm")
                await chunk_fn(ChunkType.CONTENT, "begun")
                try:
                    await asyncio.Event().wait()
                finally:
                    Told.cancelled.set()
            case _:
                output = "hello"
                await chunk_fn(ChunkType.CONTENT, "hel")
                await chunk_fn(ChunkType.CONTENT, "lo")
        return output, TokenUsage(input_tokens=5, output_tokens=2)


@pytest.fixture
async def llm_agent(generated: ModuleType) -> AsyncIterator[Agent]:
    """An agent whose LLM plugin we are."""
    Told.cancelled = asyncio.Event()
    providers.register("told", Told)  # type: ignore[arg-type]  # a class with the protocol's shape
    in_use = ProvidersInUse()
    service = LLMService(in_use, AgentConfig(model="ours", provider="told", system_prompt="ours", max_tokens=100))
    async with (
        asyncio.timeout(LIMIT_S),
        plugin_server("127.0.0.1:0", llm=service) as port,
        agent_at(generated, port) as agent,
    ):
        yield agent
    await in_use.close()


def no_tool(_name: str, _input: bytes) -> str:
    """For runs that call none."""
    raise AssertionError("no tool is called")


async def test_a_run_is_streamed_and_counted(llm_agent: Agent) -> None:
    """What the agent says of model, prompt and limit counts more than our settings."""
    tool = {"name": "add", "description": "adds", "input_schema": b'{"type": "object"}'}
    chunks, result = await llm_agent.run(
        no_tool, task_id="t", prompt="hi", system_prompt="Be brief.", model="theirs", max_tokens=7, tools=[tool]
    )
    assert (chunks, result.output, result.error) == (["hel", "lo"], "hello", "")
    assert (result.input_tokens, result.output_tokens) == (5, 2)
    assert (Told.seen.model, Told.seen.system_prompt, Told.seen.max_tokens) == ("theirs", "Be brief.", 7)
    assert [(spec.name, spec.description, spec.input_schema) for spec in Told.tools] == [
        ("add", "adds", {"type": "object"})
    ]
    await llm_agent.run(no_tool, prompt="hi")
    assert (Told.seen.model, Told.seen.system_prompt, Told.seen.max_tokens) == ("ours", "ours", 100)


async def test_tools_are_the_agents(llm_agent: Agent) -> None:
    """Each call gets its own answer, though a model may give several the same id; a failure is told to the model."""
    numbers = iter(range(10))

    def tool(name: str, given: bytes) -> str:
        if name != "add":
            raise ValueError("no such tool")
        return f"{json.loads(given)['n']}.{next(numbers)}"

    _, result = await llm_agent.run(tool, prompt="tools")
    assert result.output == "add=1.0/False nope=no such tool/True add=1.1/False"


@pytest.mark.parametrize(
    ("prompt", "error", "tokens"),
    [("permanent", "permanent failure: no key", 9), ("broken", "cut", 0), ("crash", "oops", 0)],
)
async def test_failures_say_whether_to_try_again(llm_agent: Agent, prompt: str, error: str, tokens: int) -> None:
    """By kubeswarm's prefix; what was used is told as well."""
    _, result = await llm_agent.run(no_tool, prompt=prompt)
    assert (result.output, result.error, result.input_tokens) == ("", error, tokens)


async def test_an_agent_that_goes_away_ends_its_run(llm_agent: Agent) -> None:
    """Nobody pays for an answer that nobody waits for."""
    stream = llm_agent.open_run()
    pb2 = llm_agent.pb2
    await stream.write(pb2.RunTaskMessage(init=pb2.RunTaskRequest(prompt="hang")))
    assert (await stream.read()).chunk.text == "begun"
    stream.cancel()
    await Told.cancelled.wait()


async def test_a_stream_that_ends_before_its_tools_answer_fails(llm_agent: Agent) -> None:
    """Instead of waiting for ever."""
    stream, pb2 = llm_agent.open_run(), llm_agent.pb2
    await stream.write(pb2.RunTaskMessage(init=pb2.RunTaskRequest(prompt="tools")))
    await stream.done_writing()
    while (message := await stream.read()).WhichOneof("payload") != "result":
        pass
    assert "closed its side" in message.result.error


async def test_a_run_has_to_begin_with_init(llm_agent: Agent) -> None:
    """Anything else is the caller's error."""
    stream, pb2 = llm_agent.open_run(), llm_agent.pb2
    await stream.write(pb2.RunTaskMessage(chunk=pb2.Chunk(text="hi")))
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "must be init" in await stream.details()


# The queue


@asynccontextmanager
async def served(
    generated: ModuleType, url: str, *, lease_s: float = 5.0, timeout_s: float = 60.0, max_retries: int = 1
) -> AsyncIterator[tuple[Agent, Backend]]:
    """An agent whose queue plugin is one of our queues. `timeout_s` is for the first task that it gets."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(LIMIT_S))
        backend = await stack.enter_async_context(await open_backend(url, BackendOptions(lease_s=lease_s)))
        retries = RetryPolicy(max_retries=max_retries, base_s=0.0)
        service = QueueService(backend, retries=retries, lease_s=lease_s, timeout_s=timeout_s)
        await stack.enter_async_context(service.renewing())
        port = await stack.enter_async_context(plugin_server("127.0.0.1:0", queue=service))
        agent = await stack.enter_async_context(agent_at(generated, port))
        agent.on_task = lambda: setattr(service, "timeout_s", 60.0)
        yield agent, backend


async def polled(agent: Agent) -> Any:
    """The next task."""
    while not (answer := await agent.call("Poll", timeout_ms=2000)).task.id:
        pass
    agent.on_task()
    return answer.task


async def stream_of(backend: Backend, task_id: str) -> list[Chunk]:
    """All chunks of an ended task."""
    return [chunk async for chunk in backend.chunks.subscribe(task_id)]


async def test_an_agent_works_on_a_shoal_queue(generated: ModuleType, queue_url: str) -> None:
    """Result, usage and stream are there for Shoal's own clients, as from a Shoal worker."""
    async with served(generated, queue_url) as (agent, backend):
        assert not (await agent.call("Poll", timeout_ms=50)).HasField("task")
        task_id = (await agent.call("Submit", prompt="hi", meta={"a": "b"})).task_id
        task = await polled(agent)
        assert (task.id, task.prompt, dict(task.meta)["a"]) == (task_id, "hi", "b")
        await agent.call("Ack", task=task, result="done", input_tokens=3, output_tokens=4)
        (result,) = await backend.queue.results([task_id])
        assert result is not None
        assert (result.output, result.usage) == ("done", TokenUsage(input_tokens=3, output_tokens=4))
        chunks = await stream_of(backend, task_id)
        assert [(chunk.type, chunk.content) for chunk in chunks] == [("CONTENT", "done"), ("DONE", "")]
        results = (await agent.call("Results", task_ids=[task_id, "nobody"])).results
        assert [(each.task_id, each.output, each.input_tokens) for each in results] == [(task_id, "done", 3)]


async def test_retries_and_dead_letters_are_ours(generated: ModuleType, queue_url: str) -> None:
    """A failure comes back until the retries are used up; a permanent one never does."""
    async with served(generated, queue_url, max_retries=1) as (agent, backend):
        task_id = await backend.queue.submit(Task(prompt="hi"))
        await agent.call("Nack", task=await polled(agent), reason="busy")
        await agent.call("Nack", task=await polled(agent), reason="busy again")
        (result,) = await backend.queue.results([task_id])
        assert result is not None
        assert result.error == "busy again"
        other_id = await backend.queue.submit(Task(prompt="hi"))
        await agent.call("Nack", task=await polled(agent), reason="permanent failure: no such model")
        letters = {letter.task_id: letter.error for letter in await backend.queue.dead_letters()}
        assert letters == {task_id: "busy again", other_id: "permanent failure: no such model"}
        assert [chunk.type for chunk in await stream_of(backend, task_id)] == ["ERROR"]


async def test_an_agents_task_keeps_its_lease(generated: ModuleType, queue_url: str) -> None:
    """For as long as one attempt may take, though the protocol renews nothing."""
    async with served(generated, queue_url, lease_s=3.0) as (agent, backend):
        await backend.queue.submit(Task(prompt="hi"))
        task = await polled(agent)
        ages_s = [0.0]
        while ages_s[-1] >= max(ages_s):  # until it is younger than it was
            await asyncio.sleep(0.05)
            (status,) = await backend.queue.status([task.id])
            assert status.leased_s is not None
            ages_s.append(status.leased_s)
        await agent.call("Ack", task=task, result="done")


async def test_an_agent_that_does_not_answer_loses_its_task(generated: ModuleType, queue_url: str) -> None:
    """Somebody else gets it, and the late answer is refused."""
    async with served(generated, queue_url, lease_s=1.5, timeout_s=0.1) as (agent, backend):
        await backend.queue.submit(Task(prompt="hi"))
        first = await polled(agent)
        second = await polled(agent)
        assert second.id == first.id
        for _ in range(2):  # while the second one works, and when it has ended
            with pytest.raises(grpc.aio.AioRpcError, match="not in this agent's hands"):
                await agent.call("Ack", task=first, result="first")
            if not (await backend.queue.results([first.id]))[0]:
                await agent.call("Ack", task=second, result="second")
        (result,) = await backend.queue.results([first.id])
        assert result is not None
        assert result.output == "second"


@pytest.mark.parametrize("by_agent", [True, False], ids=["by the plugin's call", "by a client of Shoal's"])
async def test_a_cancelled_task_ends_though_an_agent_has_it(
    generated: ModuleType, queue_url: str, by_agent: bool
) -> None:
    """The agent is not told, because the protocol cannot; what it says later changes nothing."""
    async with served(generated, queue_url) as (agent, backend):
        task_id = await backend.queue.submit(Task(prompt="hi"))
        task = await polled(agent)
        if by_agent:
            await agent.call("Cancel", task_ids=[task_id])
        else:
            async with await open_backend(queue_url) as client:
                await client.queue.cancel([task_id])
        assert (await backend.queue.wait(task_id, LIMIT_S)).error == "run cancelled"
        await agent.call("Ack", task=task, result="too late")
        assert (await backend.queue.status([task_id]))[0].state is TaskState.CANCELLED
        assert [chunk.content for chunk in await stream_of(backend, task_id)] == ["run cancelled"]


async def test_what_agents_have_is_given_back_at_the_end(generated: ModuleType, queue_url: str) -> None:
    """A plugin server that stops holds up nobody; a task that a poll was to bring is not lost either."""
    async with served(generated, queue_url, lease_s=30.0) as (agent, backend):
        await backend.queue.submit(Task(prompt="hi"))
        await polled(agent)
    async with served(generated, queue_url, lease_s=30.0) as (agent, _):
        assert (await polled(agent)).prompt == "hi"


async def test_bad_calls_have_a_status(generated: ModuleType, queue_url: str) -> None:
    """The agent's log says what was wrong."""
    async with served(generated, queue_url) as (agent, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await agent.call("Submit", prompt="hi", meta={"shoal.task": "{"})
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await agent.call("Ack", task={"id": "nobody"}, result="x")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_the_command_serves_both_to_a_shoal_worker(
    generated: ModuleType, valkey_server: Server, stream: str, tmp_path: Path
) -> None:
    """Round trip: `shoal serve-swarm` on one side; an agent, and our own client of the protocol, on the other."""
    config = tmp_path / "shoal.yaml"
    script = {"scenarios": [{"turns": [{"text": "scripted answer"}]}]}
    agent = {"model": "scripted", "provider": "scripted", "options": {"script": script}}
    config.write_text(json.dumps({"agent": agent, "log_format": "json"}))
    log = tmp_path / "serve.log"
    command = [sys.executable, "-m", "worker.cli", "serve-swarm", "--listen", "127.0.0.1:0", "--config", str(config)]
    with log.open("wb") as out:
        program = subprocess.Popen([*command, "--queue", valkey_server.url(stream)], stdout=out, stderr=out)
    try:
        lines = await eventually(lambda: [line for line in log.read_text().splitlines() if '"port"' in line] or None)
        port = json.loads(lines[0])["port"]
        async with asyncio.timeout(LIMIT_S), agent_at(generated, port) as agent_side:
            chunks, result = await agent_side.run(no_tool, prompt="hi")
            assert ("".join(chunks), result.output) == ("scripted answer", "scripted answer")
            async with await open_backend(f"grpc://127.0.0.1:{port}") as backend:
                task_id = await backend.queue.submit(Task(prompt="by our own side", agent="poet", tenant="acme"))
                (delivery,) = await backend.queue.pull(1, 5.0)
                assert (delivery.task.id, delivery.task.agent, delivery.task.tenant) == (task_id, "poet", "acme")
        program.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(program.wait, LIMIT_S) == 0
    except BaseException:
        print(log.read_text())
        raise
    finally:
        program.kill()
        program.wait(LIMIT_S)
