"""kubeswarm's side of the plugin protocol, written from its published facts, on Google's protobuf and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import grpc
import grpc.aio

Script = Callable[[Any, Any], Awaitable[None]]
"""Takes the stream of an LLM plugin's run (its grpc context) and the init message."""


@asynccontextmanager
async def llm_plugin(pb2: ModuleType, script: Script) -> AsyncIterator[str]:
    """A plugin whose runs do what the script says; gives its address."""

    async def run_task(_requests: Any, context: Any) -> None:
        first = await context.read()
        assert first.WhichOneof("payload") == "init"
        await script(context, first.init)

    handler = grpc.stream_stream_rpc_method_handler(
        run_task,
        request_deserializer=pb2.RunTaskMessage.FromString,
        response_serializer=pb2.RunTaskMessage.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("swarm.plugin.v1.LLMProvider", {"RunTask": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


class QueuePlugin:
    """A queue plugin in memory: hands tasks out in order, tries a failed one again unless its reason is permanent."""

    def __init__(self, pb2: ModuleType) -> None:
        self.pb2 = pb2
        self.ready: list[Any] = []
        self.results: dict[str, Any] = {}
        self.said: list[tuple[str, str, str]] = []
        """Call, task id, and what was said."""
        self.polls: list[int] = []
        self.filled = asyncio.Condition()
        self.next_id = 0

    async def Submit(self, request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Queue it."""
        self.next_id += 1
        task_id = f"task-{self.next_id}"
        async with self.filled:
            self.ready.append(self.pb2.Task(id=task_id, prompt=request.prompt, meta=dict(request.meta)))
            self.filled.notify_all()
        return self.pb2.SubmitResponse(task_id=task_id)

    async def Poll(self, request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        """The next one, waiting as long as it was told to."""
        self.polls.append(request.timeout_ms)
        async with self.filled:
            try:
                async with asyncio.timeout(request.timeout_ms / 1000):
                    await self.filled.wait_for(lambda: self.ready)
            except TimeoutError:
                return self.pb2.PollResponse()
            return self.pb2.PollResponse(task=self.ready.pop(0))

    async def Ack(self, request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        """It has succeeded."""
        self.said.append(("ack", request.task.id, request.result))
        self.results[request.task.id] = self.pb2.TaskResult(
            task_id=request.task.id,
            output=request.result,
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
        )
        return self.pb2.AckResponse()

    async def Nack(self, request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        """It has failed."""
        self.said.append(("nack", request.task.id, request.reason))
        if request.reason.startswith("permanent failure: "):
            self.results[request.task.id] = self.pb2.TaskResult(task_id=request.task.id, error=request.reason)
        else:
            async with self.filled:
                self.ready.append(request.task)
                self.filled.notify_all()
        return self.pb2.NackResponse()

    async def Results(self, request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Those that there are."""
        found = [self.results[task_id] for task_id in request.task_ids if task_id in self.results]
        return self.pb2.ResultsResponse(results=found)

    async def Cancel(self, request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Note it."""
        self.said += [("cancel", task_id, "") for task_id in request.task_ids]
        return self.pb2.CancelResponse()


@asynccontextmanager
async def queue_plugin(pb2: ModuleType) -> AsyncIterator[tuple[str, QueuePlugin]]:
    """A queue plugin and its address."""
    plugin = QueuePlugin(pb2)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(plugin, name),
            request_deserializer=getattr(pb2, f"{name}Request").FromString,
            response_serializer=getattr(pb2, f"{name}Response").SerializeToString,
        )
        for name in ("Submit", "Poll", "Ack", "Nack", "Results", "Cancel")
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("swarm.plugin.v1.TaskQueue", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", plugin
    finally:
        await server.stop(None)


class Agent:
    """kubeswarm's agent: polls a queue plugin, and has tasks run by an LLM plugin."""

    def __init__(self, pb2: ModuleType, channel: grpc.aio.Channel) -> None:
        self.pb2 = pb2
        self.on_task: Callable[[], None] = lambda: None
        """Called when it has got a task."""
        self._channel = channel

    async def call(self, method: str, **fields: Any) -> Any:
        """One call of the queue plugin."""
        unary = self._channel.unary_unary(
            f"/swarm.plugin.v1.TaskQueue/{method}",
            request_serializer=getattr(self.pb2, f"{method}Request").SerializeToString,
            response_deserializer=getattr(self.pb2, f"{method}Response").FromString,
        )
        return await unary(getattr(self.pb2, f"{method}Request")(**fields), timeout=15)

    async def run(self, tool: Callable[[str, bytes], str], **init: Any) -> tuple[list[str], Any]:
        """One run: what was streamed, and the result. Tools are called one after the other; one that raises failed."""
        stream = self.open_run()
        await stream.write(self.pb2.RunTaskMessage(init=self.pb2.RunTaskRequest(**init)))
        chunks: list[str] = []
        while (message := await stream.read()) is not grpc.aio.EOF:
            match message.WhichOneof("payload"):
                case "chunk":
                    chunks.append(message.chunk.text)
                case "tool_call":
                    await stream.write(self.pb2.RunTaskMessage(tool_result=self._answer(tool, message.tool_call)))
                case "result":
                    stream.cancel()
                    return chunks, message.result
        raise AssertionError("stream closed before Result")

    def open_run(self) -> Any:
        """A stream without anything said."""
        return self._channel.stream_stream(
            "/swarm.plugin.v1.LLMProvider/RunTask",
            request_serializer=self.pb2.RunTaskMessage.SerializeToString,
            response_deserializer=self.pb2.RunTaskMessage.FromString,
        )()

    def _answer(self, tool: Callable[[str, bytes], str], call: Any) -> Any:
        try:
            return self.pb2.ToolCallResult(call_id=call.call_id, output=tool(call.tool_name, call.input))
        except ValueError as error:
            return self.pb2.ToolCallResult(call_id=call.call_id, error=str(error))


@asynccontextmanager
async def agent_at(pb2: ModuleType, port: int) -> AsyncIterator[Agent]:
    """An agent whose plugins are at this port."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Agent(pb2, channel)
