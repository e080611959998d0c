"""A served provider answers engines of both dialects in kind, and keeps itself registered with them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from providers import (
    AgentConfig,
    CallTool,
    ChatProvider,
    ChunkFn,
    ConfigParam,
    Message,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.live_config import Configurable
from providers.remote import engine_link, tenant_id
from providers.remote.wire import ENGINE_SERVICE
from providers.scripted import ScriptedProvider
from queue_backends import ChunkType, Task, TokenUsage
from tests.remote.conftest import LIMIT_S, Served
from tests.remote.go_peer import GoClient, GoServer, Refusal, b64, unb64
from tests.remote.python_peer import PLUGIN_SERVICE, PythonClient

ROOT = Path(__file__).parents[2]


class Echo(Configurable, ChatProvider):
    """Answers with what it was asked, as it understood that."""

    name = "echo"
    params = (
        ConfigParam(key="model", default="echo-1", description="Which"),
        ConfigParam(key="api_key", required=True, secret=True, description="Key"),
    )

    def __init__(self) -> None:
        self.requests: list[TurnRequest] = []
        self.closed = False

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        self.requests.append(request)
        text = request.messages[-1].text
        if text == "crash":
            raise RuntimeError("boom")
        yield ThinkingDelta("hm")
        for word in text.split(" "):
            yield TextDelta(word)
        if text == "pause" and len(request.messages) == 1:
            yield TurnEnd(message=Message.assistant("pause"), stop_reason=StopReason.PAUSE, usage=TokenUsage())
            return
        usage = TokenUsage(input_tokens=2, output_tokens=1)
        yield TurnEnd(message=Message.assistant(text), stop_reason=StopReason.END_TURN, usage=usage)

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """Lengths."""
        return [[float(len(text))] for text in texts]

    async def aclose(self) -> None:
        """Notes it."""
        self.closed = True


class Whole:
    """Runs whole tasks."""

    name = "whole"

    async def run_task(
        self, config: AgentConfig, task: Task, tools: Sequence[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
    ) -> tuple[str, TokenUsage]:
        """Streams what it has heard before, answers the prompt."""
        await chunk_fn(ChunkType.CONTENT, f"{len(task.history)} before; ")
        await chunk_fn(ChunkType.CONTENT, task.prompt)
        return f"{len(task.history)} before; {task.prompt}", TokenUsage(output_tokens=2)


async def test_go_engine_executes(served: Served) -> None:
    """Base64 in, base64 out, for a prompt and for messages; all outputs are texts."""
    echo = Echo()
    async with served(echo, config=AgentConfig(model="")) as address:
        engine = GoClient(address, PLUGIN_SERVICE)
        request = {"params_json": b64({"prompt": "Say hi", "max_tokens": "9"}), "execution_mode": 3, "context": None}
        answer = await engine.call("Execute", request)
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        await engine.call("Execute", {"params_json": b64({"messages": json.dumps([*messages, messages[0]])})})
    assert list(answer) == ["success", "result_json", "error", "duration_ms"]
    assert answer["success"] is True
    assert unb64(answer["result_json"]) == {
        "content": "Say hi",
        "model": "echo-1",
        "finish_reason": "stop",
        "input_tokens": "2",
        "output_tokens": "1",
    }
    assert echo.requests[0].config.max_tokens == 9
    assert len(echo.requests[1].messages) == 3
    assert echo.closed


async def test_python_engine_executes(served: Served) -> None:
    """Raw text in, raw text out."""
    async with served(Echo()) as address:
        engine = PythonClient(address, PLUGIN_SERVICE)
        answer = await engine.call("Execute", {"params_json": json.dumps({"prompt": "Say hi"}), "mode": 2})
        schema = await engine.call("GetSchema", {})
    assert json.loads(answer["result_json"])["content"] == "Say hi"
    assert [each["name"] for each in json.loads(schema["result_json_schema"])][:3] == [
        "content",
        "model",
        "finish_reason",
    ]


async def test_info_describes_a_provider(served: Served) -> None:
    """Type 2, no actions, and every setting with its secret flag."""
    async with served(Echo()) as address:
        info = await GoClient(address, PLUGIN_SERVICE).call("Info", {})
        schema = await GoClient(address, PLUGIN_SERVICE).call("GetSchema", {})
    assert (info["name"], info["type"]) == ("echo", 2)
    assert "actions" not in info
    assert info["config_schema"][1] == {
        "key": "api_key",
        "type": "string",
        "required": True,
        "default": "",
        "description": "Key",
        "is_secret": True,
    }
    assert unb64(schema["params_json_schema"])[0]["name"] == "prompt"


async def test_stream_is_tokens_then_one_final_piece(served: Served) -> None:
    """Nothing but the documented fields goes to other makers' engines: no reasoning, no result."""
    async with served(Echo()) as address:
        for engine, params in (
            (GoClient(address, PLUGIN_SERVICE), b64({"prompt": "a b"})),
            (GoClient(address, PLUGIN_SERVICE), json.dumps({"prompt": "a b"})),
        ):
            pieces = await engine.stream("ChatStream", {"params_json": params})
            assert pieces == [{"token": "a"}, {"token": "b"}, {"is_final": True}]


async def test_errors_are_answers(served: Served) -> None:
    """`success` false with the text, status OK; in a stream, the last piece has it."""
    async with served(Echo()) as address:
        engine = GoClient(address, PLUGIN_SERVICE)
        crashed = await engine.call("Execute", {"params_json": b64({"prompt": "crash"})})
        assert (crashed["success"], crashed["error"]) == (False, "RuntimeError: boom")
        assert (await engine.stream("ChatStream", {"params_json": b64({"prompt": "crash"})}))[-1] == {
            "is_final": True,
            "error": "RuntimeError: boom",
        }
        garbage = await engine.call("Execute", {"params_json": "{nonsense"})
        assert garbage["error"].startswith("invalid params JSON: ")
        with pytest.raises(Refusal, match="cannot be read"):
            await engine.call("Execute", {"params_json": 7})
        with pytest.raises(Refusal) as unknown:
            await engine.call("Levitate", {})
        assert unknown.value.status == 12


async def test_paused_turns_are_gone_on_with(served: Served) -> None:
    """Other engines do not know that a vendor may pause: they get the whole answer."""
    echo = Echo()
    async with served(echo) as address:
        answer = await GoClient(address, PLUGIN_SERVICE).call("Execute", {"params_json": b64({"prompt": "pause"})})
    assert answer["success"]
    assert [len(request.messages) for request in echo.requests] == [1, 2]


async def test_embed_health_and_settings(served: Served) -> None:
    """Embeddings of a provider that has them; settings apply from the next call on, unknown ones are left alone."""
    async with served(Echo(), config=AgentConfig(model="")) as address:
        engine = GoClient(address, PLUGIN_SERVICE)
        embedded = await engine.call("Embed", {"model": "e", "inputs": ["ab", "c"], "tenant_id": ""})
        assert (embedded["vectors"], embedded["dimensions"], embedded["model"]) == ([[2.0], [1.0]], 1, "e")
        assert (await engine.call("HealthCheck", {}))["healthy"] is True
        update = {"config": {"model": "echo-2", "unknown": "x"}, "version": 1}
        assert await engine.call("ConfigUpdated", update) == {"acknowledged": True, "error": ""}
        answer = await engine.call("Execute", {"params_json": b64({"prompt": "x"})})
        assert unb64(answer["result_json"])["model"] == "echo-2"
        named = await engine.call("Execute", {"params_json": b64({"prompt": "x", "model": "mine"})})
        assert unb64(named["result_json"])["model"] == "mine"


async def test_provider_that_runs_whole_tasks(served: Served) -> None:
    """The last thing said is its prompt, the rest its history; its chunks are the tokens."""
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    params = b64({"messages": json.dumps(messages)})
    async with served(Whole()) as address:
        engine = GoClient(address, PLUGIN_SERVICE)
        answer = await engine.call("Execute", {"params_json": params})
        pieces = await engine.stream("ChatStream", {"params_json": params})
        with pytest.raises(Refusal):
            await engine.call("Embed", {"model": "e", "inputs": ["x"]})
    output = unb64(answer["result_json"])
    assert (output["content"], output["output_tokens"]) == ("2 before; c", "2")
    assert pieces == [{"token": "2 before; "}, {"token": "c"}, {"is_final": True}]


async def test_shared_token_is_asked_for(served: Served) -> None:
    """Without it nothing is answered; with it, everything."""
    async with served(Echo(), environ={"SHOAL_PLUGIN_TOKEN": "s3cret"}) as address:
        with pytest.raises(Refusal) as refused:
            await GoClient(address, PLUGIN_SERVICE).call("Info", {})
        assert refused.value.status == 16
        channel: Any
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(f"/{PLUGIN_SERVICE}/Info")
            assert json.loads(await call(b"{}", metadata=[("authorization", "Bearer s3cret")]))["name"] == "echo"


class Engine:
    """What a Go engine answers; `replies` may be changed while it runs."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {
            "RegisterPlugin": {"success": True, "plugin_id": "p-1", "error": "", "license": None},
            "Heartbeat": {"acknowledged": True, "re_register_required": False},
            "DeregisterPlugin": {"acknowledged": True},
            "GetConfig": {"config": {"model": "from-engine"}, "version": 3},
        }
        handlers = {name: self._answer(name) for name in self.replies}
        self.peer = GoServer(ENGINE_SERVICE, handlers)

    def _answer(self, name: str) -> Any:
        def answer(_: Mapping[str, Any]) -> Any:
            reply = self.replies[name]
            if isinstance(reply, list):
                reply = reply.pop(0) if len(reply) > 1 else reply[0]
            if isinstance(reply, Refusal):
                raise reply
            return reply

        return answer


@pytest.fixture
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_link, "FIRST_DELAY_S", 0.01)


@pytest.mark.usefixtures("_quick_retries")
async def test_registers_with_a_go_engine_beats_and_says_goodbye(served: Served) -> None:
    """Its first attempt is in Python's way, which that engine cannot read; then it speaks Go."""
    engine = Engine()
    around = {"MIRASTACK_PLUGIN_TENANT_SLUG": "acme", "MIRASTACK_PLUGIN_HEARTBEAT_INTERVAL": "1"}
    async with engine.peer:
        async with served(Echo(), engine=engine.peer.address, environ=around, config=AgentConfig(model="")) as address:
            await engine.peer.wait_for(lambda: bool(engine.peer.calls("Heartbeat")))
            answer = await GoClient(address, PLUGIN_SERVICE).call("Execute", {"params_json": b64({"prompt": "x"})})
        await engine.peer.wait_for(lambda: bool(engine.peer.calls("DeregisterPlugin")))
    [register] = engine.peer.calls("RegisterPlugin")
    assert list(register.json) == ["name", "version", "grpc_addr", "plugin_type", "instance_id", "tenant_id"]
    assert register.json["grpc_addr"] == address
    assert register.json["plugin_type"] == 2
    assert register.json["tenant_id"] == tenant_id("acme")
    assert register.headers["x-plugin-name"] == "echo"
    instance = {"name": "echo", "instance_id": register.json["instance_id"]}
    assert engine.peer.calls("Heartbeat")[0].json == instance
    assert engine.peer.calls("DeregisterPlugin")[0].json == instance
    assert unb64(answer["result_json"])["model"] == "from-engine"


@pytest.mark.usefixtures("_quick_retries")
async def test_goodbye_to_an_engine_that_was_about_to_take_us_in(served: Served) -> None:
    """Told to stop before the answer came: the engine may have us on its list already."""
    engine = Engine()

    async def hang(_: Mapping[str, Any]) -> Any:
        await asyncio.Event().wait()

    engine.peer.handlers["RegisterPlugin"] = hang
    async with engine.peer:
        async with served(Echo(), engine=engine.peer.address):
            await engine.peer.wait_for(lambda: bool(engine.peer.calls("RegisterPlugin")))
        await engine.peer.wait_for(lambda: bool(engine.peer.calls("DeregisterPlugin")))


@pytest.mark.usefixtures("_quick_retries")
async def test_registers_anew_with_the_same_id_when_asked(served: Served) -> None:
    """An engine that has forgotten it says so in a heartbeat's answer."""
    engine = Engine()
    engine.replies["Heartbeat"] = [
        {"acknowledged": True, "re_register_required": True},
        {"acknowledged": True},
    ]
    engine.replies["GetConfig"] = Refusal(12, "unknown method GetConfig")
    async with (
        engine.peer,
        served(Echo(), engine=engine.peer.address, environ={"MIRASTACK_PLUGIN_HEARTBEAT_INTERVAL": "1"}),
    ):
        await engine.peer.wait_for(lambda: len(engine.peer.calls("RegisterPlugin")) == 2)
    first, second = engine.peer.calls("RegisterPlugin")
    assert first.json == second.json


@pytest.mark.usefixtures("_quick_retries")
async def test_refused_registrations_are_tried_again(served: Served) -> None:
    """`success` false and gRPC errors alike."""
    engine = Engine()
    engine.replies["RegisterPlugin"] = [
        Refusal(14, "starting"),
        {"success": False, "error": "not yet"},
        Refusal(7, "no licence"),
        {"success": True, "plugin_id": ""},
    ]
    async with engine.peer, served(Echo(), engine=engine.peer.address):
        await engine.peer.wait_for(lambda: bool(engine.peer.calls("GetConfig")))
    assert len(engine.peer.calls("RegisterPlugin")) == 4


async def test_process_says_its_port_and_leaves_on_sigterm() -> None:
    """The example, as a process: the line on stdout, an answer, and exit code 0 on SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "remote_provider.py"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("MIRASTACK_PLUGIN_PORT=")
        engine = GoClient(f"127.0.0.1:{int(line.partition('=')[2])}", PLUGIN_SERVICE)
        answer = await engine.call("Execute", {"params_json": b64({"prompt": "Say hi"})})
        assert unb64(answer["result_json"])["content"] == "You said: Say hi "
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_scripted_provider_streams_unchanged_for_a_python_engine(served: Served) -> None:
    """A built-in provider without any setting can be served as it is."""
    async with served(ScriptedProvider(), name="mocked") as address:
        answer = await PythonClient(address, PLUGIN_SERVICE).call(
            "Execute", {"params_json": json.dumps({"prompt": "Say hi"})}
        )
    assert json.loads(answer["result_json"])["content"] == "mock response"
