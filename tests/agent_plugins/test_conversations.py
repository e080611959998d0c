"""Plugins in conversations: what was said before, and what is kept of what a plugin says."""

from __future__ import annotations

from pathlib import Path

from tests.agent_plugins.asking import answered
from tests.agent_plugins.conftest import PluginFleet
from tests.agent_plugins.plugin_folders import write_plugin
from worker.agents.model import Memory

TOOLS = """
from worker import tool

@tool
async def look() -> str:
    '''Look.'''
    return "seen"
"""


async def test_a_plugin_hears_what_was_said_before(
    plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path
) -> None:
    """Given two messages of one conversation, then the second comes with the first and its answer, as people saw them:
    not with the model calls and tools that the plugin used on the way."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await self.services.call_llm("think about it", tools="auto")
            await self.services.execute_tool("look")
            before = [f"{message.role.value}: {message.text}" for message in request.history]
            await stream.content(f"{request.message.upper()} {before}")
        """,
    )
    (tools := tmp_path / "tools.py").write_text(TOOLS)
    async with plugin_fleet(settings={"python_tools": (str(tools),)}) as fleet:
        first, _ = await answered(fleet, "one", conversation_id="c", session_id="s")
        second, _ = await answered(fleet, "two", conversation_id="c", session_id="s")
    assert first.output == "ONE []"
    assert second.output == "TWO ['user: one', 'assistant: ONE []']"


async def test_a_long_conversation_is_summed_up_by_the_agents_model(
    plugins_dir: Path, plugin_fleet: PluginFleet
) -> None:
    """Given a memory that is soon full, then the summary is the model's, not the plugin's, and the plugin gets it."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await stream.content(f"{len(request.history)}: " + request.history[0].text if request.history else "first")
        """,
    )
    agent = {"memory": Memory(max_tokens=60)}
    script = {"responses": {"": "THE SUMMARY"}}
    async with plugin_fleet(script=script, agent=agent) as fleet:
        said = ""
        for _ in range(20):
            result, _ = await answered(fleet, "word " * 20, conversation_id="c", session_id="s")
            said = result.output
            if "THE SUMMARY" in said:
                break
    assert "THE SUMMARY" in said
