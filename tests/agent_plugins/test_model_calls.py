"""Model calls of plugins where they meet the fleet: routes, postponement, whole-task providers, structured answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import providers
from providers import AgentConfig, CallTool, ChunkFn, ToolSpec, TurnRequest
from queue_backends import Task, TokenUsage
from tests.agent_plugins.asking import answered
from tests.agent_plugins.conftest import PluginFleet
from tests.agent_plugins.plugin_folders import write_plugin
from worker.cli.timeline import timeline
from worker.errors import Postponed
from worker.journal import AttemptEnded, PluginStep, read_journal
from worker.turn_book import TurnBook
from worker.usage import UsageReport

ASKING = """
async def handle_message(self, request, stream):
    await stream.content("so: ")
    await self.services.call_llm("one", stream_to=stream)
    await stream.content(", ")
    await self.services.call_llm("two", stream_to=stream)
"""


async def test_a_call_takes_the_agents_route(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a route whose first target fails, then the call goes on to the second, and both are in the books."""
    write_plugin(plugins_dir, ASKING)
    fault = {"kind": "overloaded", "message": "busy"}
    first = {"scenarios": [{"turns": [{"fault": fault}]}]}
    second = {"responses": {"one": "1", "two": "2"}}
    targets = [
        {"name": "a", "provider": "scripted", "model": "a", "options": {"script": first}},
        {"name": "b", "provider": "scripted", "model": "b", "options": {"script": second}},
    ]
    settings = {"routes": {"main": targets}, "agent.route": "main"}
    async with plugin_fleet(settings=settings) as fleet:
        result, _ = await answered(fleet)
        records = await UsageReport(fleet.backend.state).recent()
    assert result.output == "so: 1, 2"
    assert [(record.model, record.outcome) for record in reversed(records)][:2] == [("a", "failed"), ("b", "completed")]
    assert len({record.id for record in records}) == len(records)


async def test_a_postponed_call_gives_the_slot_back(
    plugins_dir: Path, plugin_fleet: PluginFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no room for the second call, and a plugin that would catch anything, then the task is postponed and comes
    again as if nothing had failed, and goes on behind the first call."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await self.services.call_llm("one", stream_to=stream)
            try:
                await self.services.call_llm("two", stream_to=stream)
            except BaseException:
                await stream.content("caught")
        """,
    )
    before, refusals = TurnBook.before_turn, iter([True])

    async def refused_once(self: TurnBook, request: TurnRequest, used: TokenUsage) -> None:
        if request.turn == 2000 and next(refusals, False):
            raise Postponed("no room", retry_in_s=0.0)
        await before(self, request, used)

    monkeypatch.setattr(TurnBook, "before_turn", refused_once)
    async with plugin_fleet(script={"responses": {"one": "1", "two": "2"}}) as fleet:
        result, _ = await answered(fleet)
        entries = [moment.entry for moment in await read_journal(fleet.backend.state, result.task_id)]
        records = await UsageReport(fleet.backend.state).recent()
    assert (result.output, result.error) == ("12", "")
    assert [entry.how for entry in entries if isinstance(entry, AttemptEnded)] == ["postponed"]
    assert [entry.name for entry in entries if isinstance(entry, PluginStep)] == ["#0", "#1"]
    assert len(records) == 2


async def test_a_provider_of_whole_tasks_is_refused(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a provider that answers no single calls, then the error says so and what to do."""

    class Whole:
        name = "whole"

        async def run_task(
            self,
            config: AgentConfig,
            task: Task,
            tools: Sequence[ToolSpec],
            call_tool: CallTool,
            chunk_fn: ChunkFn,
        ) -> tuple[str, TokenUsage]:
            raise AssertionError("nobody asks it")

    providers.register("whole", Whole)
    write_plugin(plugins_dir, ASKING)
    async with plugin_fleet(settings={"agent.provider": "whole"}) as fleet:
        result, _ = await answered(fleet)
    assert "provider 'whole' runs whole tasks" in result.error


async def test_a_structured_answer_that_does_not_fit_is_asked_for_again(
    plugins_dir: Path, plugin_fleet: PluginFleet
) -> None:
    """Given an output schema, then an answer that does not fit is repaired in a further turn, and both count."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
            answer = await self.services.call_llm("count", output_schema=schema)
            await stream.done(f"{answer.structured} {answer.turns}", structured=answer.structured)
        """,
    )
    script = {"scenarios": [{"turns": [{"text": "three"}, {"text": '{"n": 3}'}]}]}
    async with plugin_fleet(script=script) as fleet:
        result, _ = await answered(fleet)
        records = await UsageReport(fleet.backend.state).recent()
        rows = timeline(await read_journal(fleet.backend.state, result.task_id), result)
    assert [row[1] for row in rows] == ["1.0", "1.1", ""]  # as people read it: the two turns of step 1
    assert (result.output, result.structured) == ("{'n': 3} 2", {"n": 3})
    assert sorted(record.id.split(":")[1] for record in records) == ["1000", "1001"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("''", "the prompt is empty"),
        ("[]", "the prompt is empty"),
        ("7", "the prompt is int: give text, a message, or a list of messages"),
        ("[{'role': 'robot', 'content': 'x'}]", "the prompt does not fit: history[0] is no message"),
        ("'x', tools='all'", "tools is 'all': use 'auto', a list of tools, or None"),
        ("'x', tools=[{'title': 'y'}]", "a tool does not fit: "),
        ("'x', max_tokens='many'", "the options of a model call do not fit: "),
        ("'x', stream_to=object()", "stream_to is not the stream of this message"),
        ("{'role': 'user', 'content': {1, 2}}", "the prompt does not fit: "),
    ],
)
async def test_a_call_that_does_not_fit_fails_for_good(
    plugins_dir: Path, plugin_fleet: PluginFleet, arguments: Any, said: str
) -> None:
    """What a plugin's code calls wrongly is said in one line, and not tried again."""
    write_plugin(
        plugins_dir,
        f"async def handle_message(self, request, stream):\n    await self.services.call_llm({arguments})\n",
    )
    async with plugin_fleet() as fleet:
        result, _ = await answered(fleet)
        assert await fleet.backend.queue.dead_letters()
    assert said in result.error
