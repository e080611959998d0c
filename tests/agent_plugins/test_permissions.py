"""What a plugin may do: what its manifest asks for, as far as its agent's app grants it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from queue_backends import Backend
from tests.agent_plugins.asking import answered
from tests.agent_plugins.conftest import PluginFleet
from tests.agent_plugins.plugin_folders import write_plugin
from tests.agent_plugins.test_messages import with_tools
from worker.agents.model import PermissionScope
from worker.datasources.model import Datasource
from worker.definitions import Definitions

EVERYTHING = """
async def handle_message(self, request, stream):
    async def tried(name, work):
        try:
            await work()
        except Exception as error:
            await stream.content(f"{name}: {error}\\n")
        else:
            await stream.content(f"{name}: done\\n")

    services = self.services
    await tried("llm", lambda: self.call(request))
    await tried("tool", lambda: services.execute_tool("weather", {"city": "Rome"}))
    await tried("query", lambda: services.query_datasource("books", "what"))
    await tried("kv", lambda: services.kv.set("a", "b"))

async def call(self, request):
    return await self.services.call_llm("hello")
"""
SCOPES = {
    "llm": ("llms.proxy", "llms.proxy"),
    "tool": ("tools.call", "tools.execute"),
    "query": ("datasources.query", "datasources.query"),
    "kv": ("kv.readwrite", "kv.readwrite"),
}
"""What each service needs: as AI Studio writes it, and as we do."""
ALLOWED = {
    "llm": "done",
    "tool": "done",
    "query": "datasource not allowed for this agent: 'books'",
    "kv": "done",
}


async def lines(
    plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path, *, asked: list[str], granted: list[str] | None
) -> dict[str, str]:
    """What became of each service."""
    write_plugin(plugins_dir, EVERYTHING, permissions={"services": asked})
    app = None if granted is None else {"tools": ("*",), "scopes": tuple(PermissionScope(each) for each in granted)}
    async with plugin_fleet(app=app, settings=with_tools(tmp_path)) as fleet:
        result, _ = await answered(fleet)
    return dict(line.split(": ", 1) for line in result.output.strip().split("\n"))


@pytest.mark.parametrize(
    ("service", "is_asked", "is_granted"), [*itertools.product(SCOPES, (True, False), (True, False))]
)
async def test_each_service_needs_its_scope_in_manifest_and_app(
    plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path, service: str, is_asked: bool, is_granted: bool
) -> None:
    """Given a manifest and an app that have all scopes but, perhaps, one: that service alone is refused, in AI Studio's
    words, unless both have it."""
    asked = [studio for name, (studio, _) in SCOPES.items() if name != service or is_asked]
    granted = [ours for name, (_, ours) in SCOPES.items() if name != service or is_granted]
    said = await lines(plugins_dir, plugin_fleet, tmp_path, asked=asked, granted=granted)
    refused = f"insufficient scope: {SCOPES[service][0]} (plugin: Test Agent)"
    expected = ALLOWED if is_asked and is_granted else {**ALLOWED, service: refused}
    assert said == expected


async def test_an_app_that_grants_nothing(plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path) -> None:
    """Given an app without any scope, then the refusal says that the plugin is not authorised at all."""
    asked = [studio for studio, _ in SCOPES.values()]
    said = await lines(plugins_dir, plugin_fleet, tmp_path, asked=asked, granted=[])
    assert set(said.values()) == {"service access not authorized for plugin Test Agent"}


async def test_an_agent_without_an_app_gets_what_its_manifest_asks_for(
    plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path
) -> None:
    """Given an operator's own agent, then the manifest alone decides; `tools.execute` is the same as `tools.call`."""
    said = await lines(plugins_dir, plugin_fleet, tmp_path, asked=["tools.execute"], granted=None)
    assert said["tool"] == "done"
    assert said["llm"] == "insufficient scope: llms.proxy (plugin: Test Agent)"


async def test_models_and_tools_of_others_are_refused(
    plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path
) -> None:
    """Given an app with one model and no tools, then another model, another model's name and any tool are refused; also
    a tool that is named for the plugin's own loop."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            for work in (
                lambda: self.services.call_llm("x", llm="other"),
                lambda: self.services.call_llm("x", model="gpt-9"),
                lambda: self.services.call_llm("x", tools=["weather"]),
                lambda: self.services.execute_tool("weather", {}),
            ):
                try:
                    await work()
                except Exception as error:
                    await stream.content(f"{type(error).__name__}: {error}\\n")
        """,
    )
    async with plugin_fleet(app={}, settings=with_tools(tmp_path)) as fleet:
        result, _ = await answered(fleet)
    said = result.output.strip().split("\n")
    assert [line.partition(":")[0] for line in said] == ["PluginDenied"] * 4
    assert [line.split(": ")[1] for line in said] == [
        "LLM not allowed for this agent",
        "LLM not allowed for this agent",
        "tool not allowed for this agent",
        "tool not allowed for this agent",
    ]


async def test_a_permission_that_is_missing_fails_for_good(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that does not catch the refusal, then the task fails at once: no retry would help."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await self.services.call_llm("x")
        """,
        permissions={"services": []},
    )
    async with plugin_fleet() as fleet:
        result, _ = await answered(fleet)
    assert result.error == "insufficient scope: llms.proxy (plugin: Test Agent)"


@pytest.mark.parametrize(("asked", "said"), [("tools.call", "insufficient scope"), ("datasources.query", "done")])
async def test_searching_by_a_tool_needs_the_scope_of_searching(
    plugins_dir: Path, plugin_fleet: PluginFleet, backend: Backend, asked: str, said: str
) -> None:
    """Given a data source, then the tool that searches it is no way around the scope that searching needs."""
    await Definitions(backend.state).datasources.create(Datasource(slug="books", embed_model="lexical"))
    body = EVERYTHING.replace('"weather", {"city": "Rome"}', '"search_books", {"question": "what"}')
    write_plugin(plugins_dir, body, permissions={"services": ["tools.call", asked]})
    async with plugin_fleet(app={"datasources": ("books",)}) as fleet:
        result, _ = await answered(fleet)
    lines = dict(line.split(": ", 1) for line in result.output.strip().split("\n"))
    assert lines["tool"].startswith(said)
    assert lines["query"].startswith(said)


@pytest.mark.parametrize("asked", [["llms.proxy"], ["llms.proxy", "tools.call"]])
async def test_a_model_that_is_talked_into_a_tool_does_not_get_it(
    plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path, backend: Backend, asked: list[str]
) -> None:
    """Given a model that calls tools it was not given, then none is called: a plugin without the scope for tools, or
    for searching, does not have them called by a model either."""
    await Definitions(backend.state).datasources.create(Datasource(slug="books", embed_model="lexical"))
    calls = [
        {"name": "weather", "arguments": {"city": "Rome"}},
        {"name": "search_books", "arguments": {"question": "what"}},
    ]
    script = {"scenarios": [{"turns": [*({"tool_calls": [call]} for call in calls), {"text": "end"}]}]}
    body = """
    async def handle_message(self, request, stream):
        tools = "auto" if HAS_TOOLS else ()
        answer = await self.services.call_llm("hello", tools=tools)
        for message in answer.messages:
            for part in message.parts:
                if type(part).__name__ == "ToolOutcome":
                    await stream.content(f"{part.name}: {part.content}\\n")
    """
    has_tools = "tools.call" in asked
    write_plugin(plugins_dir, body.replace("HAS_TOOLS", str(has_tools)), permissions={"services": asked})
    app = {"tools": ("*",), "datasources": ("books",)}
    async with plugin_fleet(app=app, script=script, settings=with_tools(tmp_path)) as fleet:
        result, _ = await answered(fleet)
    said = dict(line.split(": ", 1) for line in result.output.strip().split("\n"))
    assert ("was not given" in said["weather"]) is not has_tools
    assert "was not given" in said["search_books"]


async def test_a_search_that_people_approve_is_made_by_its_tool(
    backend: Backend, plugins_dir: Path, plugin_fleet: PluginFleet, tmp_path: Path
) -> None:
    """Given a data source whose tool needs an approval: the plugin cannot search it without one."""
    write_plugin(plugins_dir, EVERYTHING, permissions={"services": ["datasources.query"]})
    settings = {**with_tools(tmp_path), "agent.approve_tools": ("search_*",)}
    await Definitions(backend.state).datasources.create(Datasource(slug="books", embed_model="lexical"))
    async with plugin_fleet(settings=settings, agent={"datasources": ("books",)}) as fleet:
        result, _ = await answered(fleet)
    assert (
        "query: a person has to approve searches of datasource 'books': call its tool 'search_books'" in result.output
    )
