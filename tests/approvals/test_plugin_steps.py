"""Tool steps of agent plugins that have to be approved: the plugin's code waits without a worker, and sees nothing of
it."""

from __future__ import annotations

from pathlib import Path

from queue_backends import Backend, ChunkType
from tests.agent_plugins.plugin_folders import write_plugin
from tests.approvals.conftest import WITHIN_S, Office
from tests.diary_tools import TOOLS
from worker.agents.model import Agent
from worker.assembly import open_worker
from worker.definitions import Definitions
from worker.journal import ModelCall, read_journal
from worker.settings import load_settings

HANDLER = """
async def handle_message(self, request, stream):
    plan = await self.services.call_llm("plan")
    looked, noted, thought = await asyncio.gather(
        self.services.execute_tool("peek", {"text": "A"}),
        self.services.execute_tool("note", {"text": "B"}, stream_to=stream),
        self.services.call_llm("think"),
    )
    await stream.content(f"{plan.text}; {looked.content}; {noted.content}; {thought.text}")
"""


async def test_a_step_is_asked_for_and_made_once(office: Office, backend: Backend, tmp_path: Path) -> None:
    """What goes on beside it, a paid model call too, comes to its end before the run is put down, and is not repeated
    when the plugin's code is gone through again."""
    (plugins := tmp_path / "plugins").mkdir()
    write_plugin(plugins, HANDLER)
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS.format(diary=str(tmp_path / "diary")))
    slow = {"match": "think", "turns": [{"text": "thought about it well", "chunk_delay_s": 0.1}]}
    script = {"scenarios": [slow, {"turns": [{"text": "planned"}]}]}
    overrides = {
        "agent.model": "scripted",
        "agent.provider": "scripted",
        "agent.options": {"script": script},
        "agent.approve_tools": ("note",),
        "agent_plugins_dir": str(plugins),
        "python_tools": (str(tools),),
    }
    async with Definitions(backend.state) as declared:
        await declared.agents.create(Agent(slug="bot", plugin="test-agent"))
    async with open_worker(load_settings({}, file=None, overrides=overrides), backend):
        handle = await office.fleet.submit("hi", agent="bot")
        [asked] = await office.asked()
        await office.parked(handle)
        assert (asked.tool, asked.agent, asked.arguments) == ("note", "bot", {"text": "B"})
        assert office.done == ["peek A"]
        await office.approvals.decide(asked.id, approved=True)
        result = await handle.result(WITHIN_S)
    assert result.output == "planned; saw A; noted B; thought about it well"
    assert sorted(office.done) == ["note B", "peek A"]
    kept = [moment.entry for moment in await read_journal(backend.state, handle.id)]
    assert len([entry for entry in kept if isinstance(entry, ModelCall)]) == 2
    shown = [chunk async for chunk in backend.chunks.subscribe(handle.id)]
    assert len([chunk for chunk in shown if chunk.type is ChunkType.TOOL_CALL]) == 1
