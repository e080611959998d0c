"""Agents that are compiled AI Studio plugins, answered for by a process that speaks their protocol."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from queue_backends import Backend, ChunkType
from tests.agent_plugins.asking import LIMIT_S, answered, text_of
from tests.agent_plugins.conftest import PluginFleet
from tests.agent_plugins.go_plugin.conftest import MakePlugin
from worker.agent_plugins.declared import DeclaredPlugin
from worker.agent_plugins.errors import PluginStartFailed
from worker.agent_plugins.go_plugin import process
from worker.agent_plugins.go_plugin.handshake import read_handshake
from worker.agents import Agent
from worker.client import Fleet
from worker.definitions import Definitions
from worker.usage import UsageReport
from worker.warded_process import next_line, start_warded

APP: dict[str, Any] = {"scopes": ("llms.proxy", "tools.execute", "datasources.query", "kv.readwrite"), "tools": ("*",)}
TOOLS = """
from worker import tool

@tool
async def weather(city: str, days: int = 1) -> dict:
    "The weather of a city."
    return {"city": city, "days": days}
"""


async def output_of(fleet: Fleet, prompt: str, **fields: Any) -> str:
    """Ask `bot`; the result has to be good."""
    result, _ = await answered(fleet, prompt, **fields)
    assert result.ok, result.error
    return result.output


async def test_the_echo_agent_answers_as_in_its_own_studio(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given an agent without a model, then it echoes; given an app with one, then it wraps the model's answer, and the
    call is in the books."""
    schema = {
        "type": "object",
        "properties": {"prefix": {"type": "string", "default": "<<"}, "suffix": {"default": ">>"}},
    }
    go_plugin(schema=schema)
    async with plugin_fleet() as fleet:
        assert await output_of(fleet, "hello") == "<< hello >>"


async def test_a_model_call_goes_through_the_fleet(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given an agent with an app, when its plugin calls the model, then the answer comes back and is accounted."""
    go_plugin()
    script = {"responses": {"hello": "hi there"}}
    async with plugin_fleet(script=script, app=APP, agent={"config": {"prefix": "[", "suffix": "]"}}) as fleet:
        result, chunks = await answered(fleet)
        (record,) = await UsageReport(fleet.backend.state).recent()
    assert result.output == text_of(chunks) == "[ hi there ]"
    assert record.task_id == result.task_id
    assert result.usage == record.usage


async def test_what_a_plugin_is_told(
    go_plugin: MakePlugin, plugin_fleet: PluginFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given an agent with configuration, history and app, then its plugin sees them, is told where its host is in both
    spellings, and finds none of the worker's secrets in its environment."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("WEATHER_TOKEN", "for the plugin")
    monkeypatch.setenv("GATEWAY_MODE", "edge")
    (tools := tmp_path / "tools.py").write_text(TOOLS)
    go_plugin(env=["WEATHER_TOKEN"])
    config = {"level": 3, "deep": {"a": [1]}, "name": "Ann"}
    settings = {"python_tools": [str(tools)]}
    async with plugin_fleet(app=APP, agent={"config": config}, settings=settings) as fleet:
        history = (json.loads(json.dumps({"role": "user", "content": "before"})),)
        seen = json.loads(await output_of(fleet, "describe", session_id="s1", history=history, meta={"user": "ann"}))
    assert seen["config"] == config
    told = seen["initialized"]
    assert (told["level"], told["deep"], told["name"]) == ("3", '{"a":[1]}', "Ann")
    assert told["has_service_api"] == "true"
    assert told["service_broker_id"] == told["_service_broker_id"] == seen["metadata"]["_service_broker_id"]
    assert told["plugin_id"] == told["_plugin_id"] == seen["metadata"]["plugin_id"]
    assert (seen["session_id"], seen["metadata"]["session_id"], seen["metadata"]["user"]) == ("s1", "s1", "ann")
    assert (seen["llms"], seen["history"]) == (["scripted"], [["user", "before"]])
    assert "weather" in seen["tools"]
    assert {"WEATHER_TOKEN", "PLUGIN_RUNTIME", "PLUGIN_PROTOCOL_VERSIONS"} <= set(seen["environment"])
    assert not {"PLUGIN_CLIENT_CERT", "PLUGIN_MULTIPLEX_GRPC", "GATEWAY_MODE"} & set(seen["environment"])
    assert "ANTHROPIC_API_KEY" not in seen["environment"]


async def test_a_stream_comes_in_pieces(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that wants a stream, then it gets the answer as it is produced, which its own host never did."""
    go_plugin()
    async with plugin_fleet(script={"responses": {"go": "one two three"}}, app=APP) as fleet:
        output = await output_of(fleet, "stream go")
    assert output.count("[") > 2
    assert output.replace("[", "").replace("]", "") == "one two three"


async def test_tools_are_called_by_number(go_plugin: MakePlugin, plugin_fleet: PluginFleet, tmp_path: Path) -> None:
    """Given parameters as arrays of texts, then the tool gets what its schema wants; a tool that is not the agent's is
    refused in the words of the original."""
    (tools := tmp_path / "tools.py").write_text(TOOLS)
    go_plugin()
    async with plugin_fleet(app=APP, settings={"python_tools": [str(tools)]}) as fleet:
        result, chunks = await answered(fleet, 'tool weather {"city": ["Rome"], "days": ["3"]}')
        assert json.loads(result.output) == {"city": "Rome", "days": 3}
        call, answer = (
            next(each for each in chunks if each.type is kind) for kind in (ChunkType.TOOL_CALL, ChunkType.TOOL_RESULT)
        )
        assert call.metadata["id"] == answer.metadata["id"]
        refused, _ = await answered(fleet, "tool nothing {}")
        assert refused.error.endswith("PERMISSION_DENIED: tool not allowed for this agent")


async def test_a_tool_loop_of_its_own(go_plugin: MakePlugin, plugin_fleet: PluginFleet, tmp_path: Path) -> None:
    """Given a plugin that runs the tools that the model asks for, then the model sees its own calls again, which the
    protocol leaves out."""
    (tools := tmp_path / "tools.py").write_text(TOOLS)
    go_plugin()
    turns = [{"tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}, {"text": "It says {last_result}"}]
    async with plugin_fleet(
        script={"scenarios": [{"turns": turns}]},
        app={**APP, "tools": ("weather",)},
        settings={"python_tools": [str(tools)]},
    ) as fleet:
        assert await output_of(fleet, "loop how is Oslo?") == 'It says {"city":"Oslo","days":1}'
        records = await UsageReport(fleet.backend.state).recent()
        result, chunks = await answered(fleet, "loop and how is it now?")
    assert result.ok
    assert len(records) == 2
    assert ChunkType.TOOL_CALL not in {chunk.type for chunk in chunks}, "the host has run a tool by itself"


@pytest.mark.parametrize(
    ("asked", "scope"),
    [("hello", "llms.proxy"), ("tool weather {}", "tools.call"), ("count x", "kv.readwrite")],
)
async def test_scopes(go_plugin: MakePlugin, plugin_fleet: PluginFleet, tmp_path: Path, asked: str, scope: str) -> None:
    """Given a manifest that does not ask for a scope, then what needs it is refused with the original's text."""
    (tools := tmp_path / "tools.py").write_text(TOOLS)
    go_plugin(permissions={"services": ["datasources.query"]})
    async with plugin_fleet(app=APP, settings={"python_tools": [str(tools)]}) as fleet:
        result, _ = await answered(fleet, asked)
    assert result.error.endswith(f"PERMISSION_DENIED: insufficient scope: {scope} (plugin: Test Agent)")


async def test_values_are_kept_over_processes(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a value that was kept, when the process has died and another one is asked, then it is there."""
    go_plugin()
    async with plugin_fleet(app=APP, settings={"max_retries": 0}) as fleet:
        assert await output_of(fleet, "count visits") == "1"
        assert await output_of(fleet, "count visits") == "2"
        await answered(fleet, "die")
        assert await output_of(fleet, "count visits") == "3"


async def test_a_process_that_dies_fails_the_attempt_only(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a process that ends in the middle of a message, then the attempt fails with a reason, and the next message
    has a new process."""
    go_plugin()
    async with plugin_fleet(settings={"max_retries": 0}) as fleet:
        first = json.loads(await output_of(fleet, "describe"))["pid"]
        result, _ = await answered(fleet, "die")
        assert "HandleAgentMessage failed: the plugin's process has ended with exit code 7" in result.error
        second = json.loads(await output_of(fleet, "describe"))["pid"]
    assert first != second
    assert not psutil.pid_exists(second)


async def test_its_last_words_are_in_the_log(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a process that says why before it dies, then the worker's log has it."""
    go_plugin()
    with structlog.testing.capture_logs() as lines:
        async with plugin_fleet(settings={"max_retries": 0}) as fleet:
            await answered(fleet, "die")
    assert [line["stream"] for line in lines if line["event"] == "its last words"] == ["stderr"]


async def test_a_flood_of_output_does_not_drown_the_log(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that writes without end, then the log has some of it, says how much there was besides, and the
    message is answered."""
    go_plugin()
    with structlog.testing.capture_logs() as lines:
        async with plugin_fleet() as fleet:
            assert await output_of(fleet, "flood blah") == "written"
    written = sum(line["event"].endswith(" blah") for line in lines)
    left_out = sum(line["lines"] for line in lines if line["event"] == "a plugin writes more than its log takes")
    assert 0 < written < 20_000
    assert written + left_out >= 100_000


async def test_a_plugin_that_dials_late(
    go_plugin: MakePlugin, plugin_fleet: PluginFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a plugin that connects to its host when the first announcement is long forgotten, then it hears another."""
    monkeypatch.setattr(process, "ANNOUNCE_EVERY_S", 0.02)
    go_plugin()
    config = {"dials_late": "yes"}
    async with plugin_fleet(app=APP, agent={"config": config}, settings={"max_retries": 0}) as fleet:
        assert await output_of(fleet, "count visits") == "1"


async def test_a_call_that_outlives_its_message_ends_the_process(
    go_plugin: MakePlugin, plugin_fleet: PluginFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a plugin that answers while it still waits for a model, then the answer stands, and the next message has
    another process: the call's answer must not act in its name."""
    monkeypatch.setattr(process, "IDLE_WITHIN_S", 0.05)
    go_plugin()
    script = {"scenarios": [{"match": "story", "turns": [{"text": "once upon a time", "chunk_delay_s": 60}]}]}
    async with plugin_fleet(script=script, app=APP, settings={"max_retries": 0}) as fleet:
        first = int(await output_of(fleet, "leave a story"))
        second = json.loads(await output_of(fleet, "describe"))["pid"]
    assert first != second


async def test_any_final_chunk_ends_the_answer(
    go_plugin: MakePlugin, plugin_fleet: PluginFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a plugin whose last chunk is final, and no DONE, and which goes on, then its answer stands."""
    monkeypatch.setattr(process, "AFTER_FINAL_S", 0.05)
    go_plugin()
    async with plugin_fleet(settings={"max_retries": 0}) as fleet:
        assert await output_of(fleet, "end of the story") == "of the story"


async def test_a_process_has_a_folder_of_its_own_for_what_is_temporary(
    go_plugin: MakePlugin, plugin_fleet: PluginFleet
) -> None:
    """Given a process, then it has its sockets in a folder that goes with it."""
    go_plugin()
    async with plugin_fleet() as fleet:
        folder = Path(json.loads(await output_of(fleet, "describe"))["temporary"])
        assert sorted(path.name[:4] for path in folder.iterdir()) == ["host", "plug"]
    assert not folder.exists()


async def test_a_program_goes_with_its_folder_when_nobody_is_left(tmp_path: Path) -> None:
    """Given a program under a warden, when whoever started it is gone, then it ends, and its folder is deleted."""
    (owned := tmp_path / "owned").mkdir()
    (program := tmp_path / "program").write_text("#!/bin/sh\necho up\nexec sleep 1000\n")
    program.chmod(0o755)
    started = await start_warded(program, env={"PATH": os.environ["PATH"]}, grace_s=0.1, owned_folder=str(owned))
    assert await next_line(started.stdout) == b"up\n"
    assert started.stdin is not None
    started.stdin.close()  # as the end of a process does
    async with asyncio.timeout(LIMIT_S):
        await started.wait()
    assert not owned.exists()


async def test_a_cancelled_message_ends_its_process(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a message that hangs, when it is cancelled, then its process is ended: what goes on in it must not act in
    the name of the next message."""
    go_plugin()
    async with plugin_fleet() as fleet:
        first = json.loads(await output_of(fleet, "describe"))["pid"]
        handle = await fleet.submit("hang", agent="bot")
        async with asyncio.timeout(LIMIT_S):
            async for chunk in handle:
                if chunk.content == "hanging":
                    await handle.cancel()
        assert (await handle.result(LIMIT_S)).error == "run cancelled"
        second = json.loads(await output_of(fleet, "describe"))["pid"]
    assert first != second


async def test_messages_at_once_have_processes_of_their_own(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given one message that hangs, when others come, then they are answered beside it."""
    go_plugin()
    async with plugin_fleet() as fleet:
        hanging = await fleet.submit("hang", agent="bot")
        outputs = await asyncio.gather(*(output_of(fleet, "think about it") for _ in range(4)))
        await hanging.cancel()
        await hanging.result(LIMIT_S)
    assert outputs == ["thought"] * 4


async def test_thinking_is_thinking(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a chunk of reasoning, then it is one for the consumers, and no part of the output."""
    go_plugin()
    async with plugin_fleet() as fleet:
        _, chunks = await answered(fleet, "think about it")
    assert text_of(chunks, ChunkType.THINKING) == "about it"


async def test_events_reach_the_plugin(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that has subscribed to a topic, when it publishes there, then it hears it."""
    go_plugin()
    async with plugin_fleet() as fleet:
        assert await output_of(fleet, "event hear hear") == "hear hear"


async def test_nobody_asks_in_anothers_name(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a call with another plugin's number, then it is not authenticated."""
    go_plugin()
    async with plugin_fleet() as fleet:
        result, _ = await answered(fleet, "stranger")
        assert result.error == "UNAUTHENTICATED: plugin not found"


async def test_a_plugin_is_told_goodbye(go_plugin: MakePlugin, plugin_fleet: PluginFleet, tmp_path: Path) -> None:
    """Given a running process, when the worker leaves, then its session is closed with the original's reason, and
    nothing of it is left."""
    go_plugin()
    note = tmp_path / "goodbye"
    async with plugin_fleet(agent={"config": {"goodbye_file": str(note)}}) as fleet:
        pid = json.loads(await output_of(fleet, "describe"))["pid"]
        assert psutil.pid_exists(pid)
    assert note.read_text() == "plugin_unload"
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"1|1|unix|/tmp/x|netrpc|", "only grpc is understood"),
        (b"1|1|unix|/tmp/x", "only grpc is understood"),
        (b"2|1|unix|/tmp/x|grpc|", "core protocol '2'"),
        (b"1|7|unix|/tmp/x|grpc|", "protocol version '7'"),
        (b"1|1|tcp|10.0.0.7:80|grpc|", "only this machine's own addresses"),
        (b"1|1|unix|x|grpc|", "no path of a socket"),
        (b"1|1|pipe|x|grpc|", "use unix or tcp"),
        (b"1|1|unix|/tmp/x|grpc|MIIC", "wants TLS"),
        (b"1|1|unix", "first line is '1|1|unix'"),
    ],
)
def test_a_handshake_that_does_not_fit(line: bytes, error: str) -> None:
    """Given a first line that this host cannot speak to, then it says what of it."""
    with pytest.raises(PluginStartFailed, match=re.escape(error)):
        read_handshake(line)


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"1|1|unix|/tmp/plugin1234567|grpc|\n", "unix:/tmp/plugin1234567"),
        (b"1|1|unix|/tmp/plugin1234567|grpc\n", "unix:/tmp/plugin1234567"),
        (b"1|1|tcp|127.0.0.1:10003|grpc||false\n", "127.0.0.1:10003"),
    ],
)
def test_a_handshake(line: bytes, target: str) -> None:
    """Given the line of a plugin, then it is called where it listens."""
    assert read_handshake(line).target == target


async def test_a_program_that_is_no_plugin(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a program that ends without a word, then the task says so."""
    go_plugin(script="exit 3")
    async with plugin_fleet(settings={"max_retries": 0}) as fleet:
        result, _ = await answered(fleet)
        assert "ended with exit code 3" in result.error


async def test_a_plugin_that_will_not_start(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a plugin whose Initialize fails, then its reason is the task's."""
    go_plugin()
    async with plugin_fleet(agent={"config": {"fail": "no licence"}}, settings={"max_retries": 0}) as fleet:
        result, _ = await answered(fleet)
        assert "plugin initialization failed: " in result.error
        assert "no licence" in result.error


async def test_a_command_outside_its_folder_is_refused(go_plugin: MakePlugin, plugin_fleet: PluginFleet) -> None:
    """Given a manifest whose command is another program of the machine, then it is not run."""
    folder = go_plugin()
    given = json.loads((folder / "plugin.manifest.json").read_text())
    (folder / "plugin.manifest.json").write_text(
        json.dumps({**given, "command": f"file://{os.path.realpath('/bin/sh')}"})
    )
    async with plugin_fleet(settings={"max_retries": 0}) as fleet:
        result, _ = await answered(fleet)
        assert "is no file in" in result.error


async def test_a_program_is_declared_over_the_api(
    go_plugin: MakePlugin, plugin_fleet: PluginFleet, backend: Backend
) -> None:
    """Given a program without a manifest in the plugin folder, when it is declared with its checksum, then agents run
    on it with the declared configuration; a program that has changed since is not started."""
    folder = go_plugin()
    (folder / "plugin.manifest.json").unlink()
    program = folder / "agent"
    declared = DeclaredPlugin(
        slug="studio-echo",
        command="test-agent/agent",
        checksum=hashlib.sha256(program.read_bytes()).hexdigest(),
        config={"prefix": "{"},
    )
    async with Definitions(backend.state) as definitions:
        await definitions.plugins.create(declared)
    async with plugin_fleet(agent={"plugin": "studio-echo"}, settings={"max_retries": 0}) as fleet:
        assert json.loads(await output_of(fleet, "describe"))["initialized"]["prefix"] == "{"
        program.write_text(program.read_text() + "# other\n")
        await fleet.agents.create(Agent(slug="other", plugin="studio-echo"))
        result = await (await fleet.submit("hello", agent="other")).result(LIMIT_S)
    assert "it is not started" in result.error
