"""A compiled AI Studio agent plugin as its host sees it: go-plugin's handshake and services, and the agent's, on
Google's gRPC and protobuf. Written from the published facts of both protocols; nothing of ours is imported.

Run by a script in a plugin's folder: `main(folder of the generated modules)`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

COOKIE = ("AI_STUDIO_PLUGIN", "v1")
DIAL_LIMIT_S = 5.0
"""So long a dial waits for an announcement."""


class Peer:
    """The echo agent, and others that the word at the beginning of a message chooses."""

    def __init__(self, pb: Any, api: Any) -> None:
        self.pb, self.api = pb, api
        self.config: dict[str, str] = {}
        self.plugin_id = 0
        self.announced: dict[int, asyncio.Future[str]] = {}
        self.host: grpc.aio.Channel | None = None
        self.closing = asyncio.Event()
        self.stopped = asyncio.Event()
        self.opened = 0
        self.left_alone: list[Any] = []

    # go-plugin

    async def start_stream(self, requests: Any, _context: Any) -> Any:
        async for info in requests:
            found = self.announced.setdefault(info.service_id, asyncio.get_running_loop().create_future())
            if not found.done():
                found.set_result(f"{info.network}:{info.address}")
        return
        yield  # an async generator that yields nothing

    async def stream_stdio(self, _request: Any, _context: Any) -> Any:
        yield self.pb.StdioData(channel=1, data=b"a line of output\n")
        await self.stopped.wait()

    async def controller_shutdown(self, _request: Any, _context: Any) -> Any:
        self.stopped.set()
        return self.pb.Empty()

    # The agent

    async def initialize(self, request: Any, _context: Any) -> Any:
        self.config = dict(request.config)
        self.plugin_id = int(self.config["plugin_id"])
        if self.config.get("fail"):
            return self.pb.InitResponse(success=False, error_message=self.config["fail"])
        if self.config.get("dials_late"):
            await asyncio.wait_for(
                self.announced.setdefault(1, asyncio.get_running_loop().create_future()), DIAL_LIMIT_S
            )
            self.announced.clear()  # as after five seconds
        await self.dial(int(self.config["service_broker_id"]))
        return self.pb.InitResponse(success=True)

    async def dial(self, broker_id: int) -> None:
        """As the SDK: once, and then that connection for good."""
        if self.host is None:
            waiting = self.announced.setdefault(broker_id, asyncio.get_running_loop().create_future())
            self.host = grpc.aio.insecure_channel(await asyncio.wait_for(waiting, DIAL_LIMIT_S))

    async def open_session(self, request: Any, _context: Any) -> Any:
        self.opened += 1
        reasons = self.pb.OpenSessionResponse
        try:
            await asyncio.wait_for(self.closing.wait(), request.timeout_ms / 1000)
        except TimeoutError:
            return reasons(success=True, close_reason=reasons.TIMEOUT)
        return reasons(success=True, close_reason=reasons.EXPLICIT_CLOSE)

    async def close_session(self, request: Any, _context: Any) -> Any:
        if told := self.config.get("goodbye_file"):
            Path(told).write_text(request.reason)
        self.closing.set()
        return self.pb.CloseSessionResponse(success=True)

    async def shutdown(self, _request: Any, _context: Any) -> Any:
        return self.pb.ShutdownResponse(success=True)

    async def handle_agent_message(self, request: Any, _context: Any) -> Any:
        word, _, rest = request.user_message.partition(" ")
        answer = getattr(self, f"do_{word}", None)
        try:
            if answer is None:
                async for chunk in self.echo(request):
                    yield chunk
                return
            async for chunk in answer(request, rest):
                yield chunk
        except grpc.aio.AioRpcError as error:
            yield self.chunk("ERROR", f"{error.code().name}: {error.details()}", is_final=True)
            return
        yield self.chunk("DONE", "completed", is_final=True)

    async def echo(self, request: Any) -> Any:
        config = json.loads(request.config_json)
        prefix, suffix = config.get("prefix", "<<"), config.get("suffix", ">>")
        if not request.available_llms:
            yield self.chunk("CONTENT", f"{prefix} {request.user_message} {suffix}")
        else:
            said = [{"role": each.role, "content": each.content} for each in request.history]
            messages = [*said, {"role": "user", "content": request.user_message}]
            answers = await self.call_llm(request.available_llms[0].id, messages)
            if answers[-1].error_message:
                yield self.chunk("ERROR", f"LLM error: {answers[-1].error_message}", is_final=True)
                return
            yield self.chunk("CONTENT", f"{prefix} {''.join(each.content for each in answers)} {suffix}")
        yield self.chunk("DONE", "completed", is_final=True)

    async def do_describe(self, request: Any, _rest: str) -> Any:
        seen = {
            "config": json.loads(request.config_json),
            "initialized": self.config,
            "session_id": request.session_id,
            "tools": [each.name for each in request.available_tools],
            "datasources": [each.name for each in request.available_datasources],
            "llms": [each.default_model for each in request.available_llms],
            "history": [[each.role, each.content] for each in request.history],
            "metadata": dict(request.context.metadata),
            "environment": sorted(os.environ),
            "temporary": tempfile.gettempdir(),
            "pid": os.getpid(),
        }
        yield self.chunk("CONTENT", json.dumps(seen))

    async def do_stream(self, request: Any, rest: str) -> Any:
        for answer in await self.call_llm(
            request.available_llms[0].id, [{"role": "user", "content": rest}], stream=True
        ):
            yield self.chunk("CONTENT", f"[{answer.content}]")

    async def do_tool(self, request: Any, rest: str) -> Any:
        name, _, params = rest.partition(" ")
        number = next((each.id for each in request.available_tools if each.name == name), 77)
        yield self.chunk("TOOL_CALL", f"Calling {name}", metadata={"tool_name": name})
        answer = await self.unary(
            "ExecuteTool",
            self.api.ExecuteToolRequest(context=self.context(), tool_id=number, params_json=params),
            self.api.ExecuteToolResponse,
        )
        text = answer.result_json if answer.success else answer.error_message
        yield self.chunk("TOOL_RESULT", text, metadata={"tool_name": name})
        yield self.chunk("CONTENT", text)

    async def do_loop(self, request: Any, rest: str) -> Any:
        """A tool-use loop of its own, as agents of the original have to write it, with the tool `weather`."""
        tool = next(each for each in request.available_tools if each.name == "weather")
        described = self.api.LLMFunction(name=tool.name, parameters_json='{"type": "object"}')
        tools = [self.api.LLMTool(type="function", function=described)]
        messages = [{"role": "user", "content": rest}]
        for _ in range(5):
            last = (await self.call_llm(request.available_llms[0].id, messages, tools=tools))[-1]
            if not last.tool_calls:
                yield self.chunk("CONTENT", last.content)
                return
            messages.append({"role": "assistant", "content": last.content})
            for call in last.tool_calls:
                answer = await self.unary(
                    "ExecuteTool",
                    self.api.ExecuteToolRequest(
                        context=self.context(), tool_id=tool.id, payload_json=call.function.arguments
                    ),
                    self.api.ExecuteToolResponse,
                )
                said = {"role": "tool", "content": answer.result_json, "tool_call_id": call.id}
                messages.append(said)

    async def do_query(self, request: Any, rest: str) -> Any:
        number = request.available_datasources[0].id if request.available_datasources else 99
        answer = await self.unary(
            "QueryDatasource",
            self.api.QueryDatasourceRequest(context=self.context(), datasource_id=number, query=rest),
            self.api.QueryDatasourceResponse,
        )
        found = [[each.content, each.similarity_score, dict(each.metadata)] for each in answer.results]
        yield self.chunk("CONTENT", json.dumps(found) if answer.success else answer.error_message)

    async def do_count(self, _request: Any, rest: str) -> Any:
        """Keeps how often it was asked."""
        try:
            value = await self.unary(
                "ReadPluginKV",
                self.api.KeyRequest(context=self.context(), key=rest),
                self.api.ReadPluginKVResponse,
            )
            count = int(value.value) + 1
        except grpc.aio.AioRpcError as error:
            if error.details() != f"key not found: {rest}":
                raise
            count = 1
        await self.unary(
            "WritePluginKV",
            self.api.WritePluginKVRequest(context=self.context(), key=rest, value=str(count).encode()),
            self.api.WritePluginKVResponse,
        )
        yield self.chunk("CONTENT", str(count))

    async def do_event(self, _request: Any, rest: str) -> Any:
        assert self.host is not None
        call = self.host.unary_stream(
            "/plugin_events.PluginEventService/Subscribe",
            request_serializer=self.api.SubscribeRequest.SerializeToString,
            response_deserializer=self.api.Event.FromString,
        )(self.api.SubscribeRequest(topic="news"))
        heard = asyncio.ensure_future(call.read())
        publish = self.host.unary_unary(
            "/plugin_events.PluginEventService/Publish",
            request_serializer=self.api.PublishRequest.SerializeToString,
            response_deserializer=self.api.PublishResponse.FromString,
        )
        while not heard.done():  # until the subscription has begun
            await publish(self.api.PublishRequest(topic="news", payload=rest.encode()))
            await asyncio.wait([heard], timeout=0.05)
        call.cancel()
        yield self.chunk("CONTENT", heard.result().payload.decode())

    async def do_stranger(self, _request: Any, _rest: str) -> Any:
        """Asks in another plugin's name."""
        context = self.api.PluginContext(plugin_id=self.plugin_id + 1)
        await self.unary("ReadPluginKV", self.api.KeyRequest(context=context, key="x"), self.api.ReadPluginKVResponse)
        yield self.chunk("CONTENT", "it was answered")

    async def do_flood(self, _request: Any, rest: str) -> Any:
        """Writes much."""
        print("\n".join(f"{number} {rest}" for number in range(100_000)), file=sys.stderr, flush=True)
        yield self.chunk("CONTENT", "written")

    async def do_leave(self, request: Any, rest: str) -> Any:
        """Leaves a model call behind, and answers."""
        asked = [{"role": "user", "content": rest}]
        call = self.llm_call(request.available_llms[0].id, asked, stream=True)
        await call.read()  # the host has it
        self.left_alone.append(call)
        yield self.chunk("CONTENT", str(os.getpid()))

    async def do_end(self, _request: Any, rest: str) -> Any:
        """Ends with something that is no DONE, and goes on."""
        yield self.chunk("CONTENT", rest, is_final=True)
        await asyncio.Event().wait()

    async def do_die(self, _request: Any, _rest: str) -> Any:
        yield self.chunk("CONTENT", "so far")
        print("its last words", file=sys.stderr, flush=True)
        os._exit(7)

    async def do_hang(self, _request: Any, _rest: str) -> Any:
        yield self.chunk("CONTENT", "hanging")
        await asyncio.Event().wait()

    async def do_think(self, _request: Any, rest: str) -> Any:
        yield self.chunk("THINKING", rest)
        yield self.chunk("CONTENT", "thought")

    # Calls to the host

    def llm_call(self, llm_id: int, messages: list[dict[str, str]], **more: Any) -> Any:
        assert self.host is not None
        request = self.api.CallLLMRequest(
            context=self.context(),
            llm_id=llm_id,
            messages=[self.api.LLMMessage(**message) for message in messages],
            temperature=0.7,
            max_tokens=1000,
            **more,
        )
        return self.host.unary_stream(
            "/ai_studio_management.AIStudioManagementService/CallLLM",
            request_serializer=self.api.CallLLMRequest.SerializeToString,
            response_deserializer=self.api.CallLLMResponse.FromString,
        )(request)

    async def call_llm(self, llm_id: int, messages: list[dict[str, str]], **more: Any) -> list[Any]:
        answers = []
        async for answer in self.llm_call(llm_id, messages, **more):
            answers.append(answer)
            if answer.done:
                break
        return answers

    async def unary(self, method: str, request: Any, answer: Any) -> Any:
        assert self.host is not None
        call = self.host.unary_unary(
            f"/ai_studio_management.AIStudioManagementService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return await call(request)

    def context(self) -> Any:
        return self.api.PluginContext(plugin_id=self.plugin_id)

    def chunk(self, kind: str, content: str, *, metadata: Any = None, is_final: bool = False) -> Any:
        chunk = self.pb.AgentMessageChunk
        return chunk(
            type=chunk.ChunkType.Value(kind),
            content=content,
            metadata_json=json.dumps(metadata) if metadata else "",
            is_final=is_final,
        )


def handlers(peer: Peer) -> list[Any]:
    pb = peer.pb

    def unary(function: Any, kind: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            function,
            request_deserializer=kind.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    def stream(function: Any, kind: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(
            function,
            request_deserializer=kind.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    broker = grpc.stream_stream_rpc_method_handler(
        peer.start_stream,
        request_deserializer=pb.ConnInfo.FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )
    health = grpc.unary_unary_rpc_method_handler(_serving)
    services = {
        "grpc.health.v1.Health": {"Check": health},
        "plugin.GRPCBroker": {"StartStream": broker},
        "plugin.GRPCStdio": {"StreamStdio": stream(peer.stream_stdio, pb.Empty)},
        "plugin.GRPCController": {"Shutdown": unary(peer.controller_shutdown, pb.Empty)},
        "plugin.PluginService": {
            "Initialize": unary(peer.initialize, pb.InitRequest),
            "OpenSession": unary(peer.open_session, pb.OpenSessionRequest),
            "CloseSession": unary(peer.close_session, pb.CloseSessionRequest),
            "Shutdown": unary(peer.shutdown, pb.ShutdownRequest),
            "HandleAgentMessage": stream(peer.handle_agent_message, pb.AgentMessageRequest),
        },
    }
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


async def _serving(request: bytes, _context: Any) -> bytes:
    assert request == b"\x0a\x06plugin", request  # HealthCheckRequest{service: "plugin"}
    return b"\x08\x01"  # HealthCheckResponse{status: SERVING}


async def serve(modules: str) -> None:
    sys.path.insert(0, modules)
    import management_pb2
    import plugin_pb2

    peer = Peer(plugin_pb2, management_pb2)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(handlers(peer)))
    path = tempfile.mktemp(prefix="plugin")
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print(f"1|1|unix|{path}|grpc|", flush=True)
    print("and one more line, which somebody has to read", flush=True)
    print("a line of the log", file=sys.stderr, flush=True)
    await peer.stopped.wait()
    await server.stop(0.2)


def main(modules: str) -> None:
    if os.environ.get(COOKIE[0]) != COOKIE[1]:
        print("This binary is a plugin. These are not meant to be executed directly.", file=sys.stderr)
        sys.exit(1)
    asyncio.run(serve(modules))
