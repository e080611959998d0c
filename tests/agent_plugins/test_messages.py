"""Plugins that answer messages as tasks of a worker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from queue_backends import ChunkType, Task
from tests.agent_plugins.asking import LIMIT_S, answered, ending, text_of
from tests.agent_plugins.conftest import PluginFleet
from tests.agent_plugins.plugin_folders import write_plugin
from worker.agent_plugins.closed_sessions import announce_closed
from worker.definitions import Definitions
from worker.usage import UsageReport

TOOLS = """
from worker import tool

@tool
async def weather(city: str) -> str:
    '''The weather in a city.'''
    return f"sunny in {city}"
"""
TWO_TURNS = {
    "scenarios": [
        {
            "turns": [
                {"text": "looking ", "tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]},
                {"text": "it is {last_result}"},
            ]
        }
    ]
}


def with_tools(tmp_path: Path) -> dict[str, object]:
    """Settings of a worker that has the tool `weather`."""
    (path := tmp_path / "tools.py").write_text(TOOLS)
    return {"python_tools": (str(path),)}


async def test_what_a_plugin_says_is_the_result(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that calls nothing, when it is asked, then its chunks are the stream, its content the output."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await stream.thinking("hm")
            await stream.content(f"{self.config['prefix']} {request.message}")
            call = await stream.tool_call("look", {"at": 1})
            await stream.tool_result(call, "look", "seen")
            await stream.content(" >>")
        """,
        schema={"type": "object", "properties": {"prefix": {"type": "string", "default": "<<"}}},
    )
    async with plugin_fleet() as fleet:
        result, chunks = await answered(fleet)
    assert result.output == "<< hello >>"
    assert [chunk.type for chunk in chunks] == ["THINKING", "CONTENT", "TOOL_CALL", "TOOL_RESULT", "CONTENT", "DONE"]
    assert chunks[2].metadata == {"id": "own-1", "name": "look", "arguments": {"at": 1}}


async def test_a_plugin_sees_the_message_and_what_its_app_has(
    plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path
) -> None:
    """Given an app with one model and one tool, then the request names these, the history, and whose message it is;
    and nothing that says where the model is or which variable holds its key."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            import msgspec
            await stream.content(msgspec.json.encode(request).decode())
        """,
    )
    async with plugin_fleet(app={"tools": ("weather",)}, settings=with_tools(tmp_path)) as fleet:
        result, _ = await answered(
            fleet,
            history=({"role": "user", "content": "before"},),
            session_id="s1",
            tenant="acme",
            meta={"user": "ann"},
        )
    request = json.loads(result.output)
    assert request["message"] == "hello"
    assert request["history"][0]["parts"] == [{"type": "text", "text": "before"}]
    assert [tool["name"] for tool in request["tools"] if tool["kind"] != "builtin"] == ["weather"]
    assert [llm["slug"] for llm in request["llms"]] == ["main"]
    assert "api_key" not in result.output
    assert "base_url" not in result.output
    context = request["context"]
    assert (context["tenant"], context["user"], context["app"]) == ("acme", "ann", "desk")
    assert request["session_id"] == "s1"


async def test_a_model_call_is_answered_shown_and_accounted(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that asks a model and shows its answer, then there is one usage record for the call."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            answer = await self.services.call_llm(request.message, system="be brief", stream_to=stream)
            await stream.content(f" ({answer.usage.total_tokens > 0}, {answer.stop_reason.value})")
        """,
    )
    async with plugin_fleet(script={"responses": {"hello": "hi there"}}) as fleet:
        result, chunks = await answered(fleet)
        records = await UsageReport(fleet.backend.state).recent()
    assert result.output == text_of(chunks) == "hi there (True, end_turn)"
    assert [(record.id, record.agent) for record in records] == [(f"{result.task_id}:1000:0", "bot")]
    assert result.usage == records[0].usage


async def test_the_hosts_tool_loop_shows_and_tells_each_event(
    plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path
) -> None:
    """Given a call with tools="auto" that goes to the consumer, when the plugin iterates over it, then it hears deltas,
    tool calls and results, the consumer sees the same, and the answer is the last turn's."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            call = self.services.call_llm(request.message, tools="auto", stream_to=stream)
            heard = [type(event).__name__ async for event in call]
            answer = await call
            names = list(dict.fromkeys(heard))
            await stream.done(f"{answer.text}|{answer.turns}|{len(answer.messages)}|{','.join(names)}")
        """,
    )
    async with plugin_fleet(script=TWO_TURNS, settings=with_tools(tmp_path)) as fleet:
        result, chunks = await answered(fleet)
    assert result.output == "it is sunny in Rome|2|3|TextDelta,ToolCallSeen,ToolResultSeen"
    assert text_of(chunks) == "looking it is sunny in Rome"
    assert text_of(chunks, ChunkType.TOOL_RESULT) == "sunny in Rome"


async def test_a_plugin_runs_the_tool_loop_itself(plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path) -> None:
    """Given tools by name, when the model asks for one, then the plugin gets the call, runs it, and asks again with the
    messages of the answer; each of the two calls has a usage record."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            messages = [{"role": "user", "content": request.message}]
            first = await self.services.call_llm(messages, tools=["weather"])
            call = first.tool_calls[0]
            outcome = await self.services.execute_tool(call.name, {"city": "Oslo"}, stream_to=stream)
            told = {"role": "user", "parts": [
                {"type": "tool_outcome", "call_id": call.id, "name": call.name, "content": outcome.content}]}
            second = await self.services.call_llm([*messages, *first.messages, told])
            await stream.content(f"{first.stop_reason.value}: {second.text}")
        """,
    )
    async with plugin_fleet(script=TWO_TURNS, settings=with_tools(tmp_path)) as fleet:
        result, chunks = await answered(fleet)
        records = await UsageReport(fleet.backend.state).recent()
    assert result.output == "tool_use: it is sunny in Oslo"
    assert text_of(chunks, ChunkType.TOOL_RESULT) == "sunny in Oslo"
    assert len(records) == 2


async def test_calls_at_the_same_time_keep_apart(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given three calls at once that all go to the consumer, and words of the plugin's own in between, then each text
    is whole, none is inside another, and all are accounted."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            async def one(name):
                return await self.services.call_llm(f"tell {name}", stream_to=stream)
            calls = [asyncio.create_task(one(name)) for name in ("aa", "bb", "cc")]
            await stream.content("[own]")
            answers = await asyncio.gather(*calls)
            await stream.content("/".join(answer.text for answer in answers))
        """,
    )
    turns = [{"text": "{prompt} is told now", "chunk_delay_s": 0.001}]
    async with plugin_fleet(script={"scenarios": [{"turns": turns}]}) as fleet:
        result, chunks = await answered(fleet)
        records = await UsageReport(fleet.backend.state).recent()
    told = [f"tell {name} is told now" for name in ("aa", "bb", "cc")]
    shown = text_of(chunks)
    assert shown.endswith("/".join(told))
    assert sorted(shown.replace("/".join(told), "").replace("[own]", "").split("tell ")) == sorted(
        ["", *(each.removeprefix("tell ") for each in told)]
    )
    assert result.output == shown
    assert len({record.id for record in records}) == 3


async def test_a_broken_stream_starts_over_and_its_text_is_superseded(
    plugins_dir: Path, plugin_fleet: PluginFleet
) -> None:
    """Given a stream that breaks once in the middle, then the turn starts over under a higher attempt, the plugin is
    told that what it heard is void, and the output has the text once."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await stream.content("so: ")
            heard = []
            async for event in self.services.call_llm(request.message, stream_to=stream):
                heard.append(getattr(event, "text", "<again>"))
            await stream.thinking("".join(heard))
        """,
    )
    fault = {"kind": "stream_broken", "after_chunks": 2, "attempts": 1}
    script = {"scenarios": [{"turns": [{"text": "one two three", "fault": fault}]}]}
    async with plugin_fleet(script=script) as fleet:
        result, chunks = await answered(fleet)
    assert result.output == "so: one two three"
    assert text_of(chunks, ChunkType.THINKING).endswith("<again>one two three")
    last = {chunk.turn: chunk.attempt for chunk in chunks}
    kept = [chunk for chunk in chunks if chunk.attempt == last[chunk.turn]]
    assert text_of(kept) == "so: one two three"


async def test_an_exception_is_a_failed_attempt_and_finished_steps_are_kept(
    plugins_dir: Path, plugin_fleet: PluginFleet
) -> None:
    """Given a plugin that raises after its model call the first time, then the task is tried again, the model is not,
    and consumers see each thing once."""
    write_plugin(
        plugins_dir,
        """
        tries = 0

        async def handle_message(self, request, stream):
            await self.services.call_llm("say", stream_to=stream)
            self.tries += 1
            if self.tries == 1:
                raise ValueError("no luck")
            await stream.content(f" {self.tries} {request.context.attempt} {request.context.redelivered}")
        """,
    )
    async with plugin_fleet(script={"responses": {"say": "said"}}) as fleet:
        result, chunks = await answered(fleet)
        records = await UsageReport(fleet.backend.state).recent()
    assert result.output == "said 2 1 True"
    assert text_of(chunks) == "said 2 1 True"
    assert len(records) == 1


async def test_an_error_of_the_stream_is_final(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that says that it cannot answer, then the task fails with that text, at once, and whatever the
    plugin says afterwards is ignored."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await stream.content("let me see")
            await stream.error("I do not know")
            await stream.content("or do I")
        """,
    )
    async with plugin_fleet() as fleet:
        result, chunks = await answered(fleet)
    assert (result.error, text_of(chunks)) == ("I do not know", "let me see")
    assert [chunk.type for chunk in chunks] == ["CONTENT", "ERROR"]


async def test_what_follows_done_is_ignored(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that goes on after `done`, and then raises, then the answer stands as it was."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await stream.content("working")
            await stream.done("the answer", structured={"n": 1})
            await stream.content("more")
            raise ValueError("late")
        """,
    )
    async with plugin_fleet() as fleet:
        result, chunks = await answered(fleet)
    assert (result.output, result.structured, result.error) == ("the answer", {"n": 1}, "")
    assert text_of(chunks) == "working"


async def test_sessions_are_made_ready_once_and_closed(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given two messages of one session and one of another, then each session is made ready once; one that ends is
    closed, the rest when the worker leaves; initialize and shutdown come once."""
    log = plugins_dir / "log"
    write_plugin(
        plugins_dir,
        f"""
        closed = None

        def note(self, text):
            with open({str(log)!r}, "a") as file:
                file.write(text + "\\n")

        async def initialize(self, config, services):
            await super().initialize(config, services)
            self.note("initialize")

        async def on_session_ready(self, session):
            self.note(f"ready {{session.id}}")

        async def handle_message(self, request, stream):
            await stream.content(request.message)

        async def on_session_closing(self, session):
            self.note(f"closing {{session.id}}")

        async def shutdown(self):
            self.note("shutdown")
        """,
    )
    async with plugin_fleet() as fleet:
        for session in ("a", "a", "b"):
            await answered(fleet, session_id=session)
        async with asyncio.timeout(LIMIT_S):
            while "closing a" not in log.read_text():  # the worker hears of it by the state store's watch
                await announce_closed(fleet.backend.state, "a")
                await asyncio.sleep(0.01)
    assert log.read_text().split("\n") == [
        "initialize",
        "ready a",
        "ready b",
        "closing a",
        "closing b",
        "shutdown",
        "",
    ]


async def test_a_plugin_that_cannot_start_is_tried_again(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given an `initialize` that fails the first time, then the message is tried again with a new instance."""
    mark = plugins_dir / "mark"
    write_plugin(
        plugins_dir,
        f"""
        async def initialize(self, config, services):
            await super().initialize(config, services)
            mark = Path({str(mark)!r})
            if not mark.exists():
                mark.write_text("x")
                raise RuntimeError("not yet")

        async def handle_message(self, request, stream):
            await stream.content("here")
        """,
    )
    async with plugin_fleet() as fleet:
        result, _ = await answered(fleet)
    assert result.output == "here"


async def test_a_config_that_does_not_fit_fails_for_good(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given an agent whose config the schema refuses, then its messages fail at once, and the error says why."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await stream.content("never")
        """,
        schema={"type": "object", "properties": {"depth": {"type": "integer", "maximum": 3}}},
    )
    async with plugin_fleet(agent={"config": {"depth": 7}}) as fleet:
        result, _ = await answered(fleet)
    assert result.error == "config does not fit plugin 'test-agent': depth: 7 is greater than the maximum of 3"


async def test_an_unknown_plugin_fails_for_good(plugin_fleet: PluginFleet) -> None:
    """Given an agent whose plugin is not installed, then the error names it."""
    async with plugin_fleet(agent={"plugin": "nobody"}) as fleet:
        result, _ = await answered(fleet)
    assert result.error == "no agent plugin 'nobody' is installed here; installed: none"


async def test_a_new_config_has_a_new_instance(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given an agent that is changed, then messages from then on have its new configuration."""

    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await stream.content(self.config["word"])
        """,
    )
    async with plugin_fleet(agent={"config": {"word": "one"}}) as fleet:
        first, _ = await answered(fleet)

        async with Definitions(fleet.backend.state) as declared:
            await declared.agents.change("bot", lambda agent: replace(agent, config={"word": "two"}))
        async with asyncio.timeout(LIMIT_S):
            while (second := (await ending(await fleet.submit(Task(prompt="x", agent="bot"))))[0]).output == "one":
                pass
    assert (first.output, second.output) == ("one", "two")


@pytest.mark.parametrize("how", ["deleted", "switched off"])
async def test_an_agent_that_is_gone_leaves_no_instance_behind(
    plugins_dir: Path, plugin_fleet: PluginFleet, how: str
) -> None:
    """Given an agent with an instance, when it is deleted or switched off, then its plugin is shut down while the
    worker goes on."""
    mark = plugins_dir / "mark"
    write_plugin(
        plugins_dir,
        f"""
        async def handle_message(self, request, stream):
            await stream.content("hi")

        async def shutdown(self):
            Path({str(mark)!r}).touch()
        """,
    )
    async with plugin_fleet() as fleet:
        await answered(fleet)
        assert not mark.exists()
        async with Definitions(fleet.backend.state) as declared:
            if how == "deleted":
                await declared.agents.delete("bot")
            else:
                await declared.agents.change("bot", lambda agent: replace(agent, is_active=False))
        async with asyncio.timeout(LIMIT_S):
            while not mark.exists():
                await asyncio.sleep(0.01)
