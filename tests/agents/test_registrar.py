"""Agents and what belongs to them, declared from Python: checks, lists, versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from queue_backends.messages import JsonObject
from worker import Agent, App, Fleet, Group, Llm, connect
from worker.agent_plugins.errors import BadPluginConfig, PluginNotFound
from worker.agent_plugins.registry import AgentPlugins
from worker.agents.declarations import Declarations
from worker.agents.listing import Wanted
from worker.agents.merge_patch import merge_patch
from worker.datasources.model import Datasource
from worker.definitions import Definitions
from worker.objects import BadObject, ObjectConflict, ObjectExists, ObjectNotFound
from worker.objects.errors import ObjectInUse
from worker.routing.route import read_routes
from worker.settings import Settings


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """A fleet with two models, an app, a group and a data source."""
    async with connect("memory://") as connected:
        await connected.llms.create("small", provider="openai", model="gpt-4o-mini", allowed_models=["gpt-4o*"])
        await connected.llms.create("big", provider="openai", model="o3")
        await connected.groups.create(Group(slug="staff"))
        await Definitions(connected.backend.state).datasources.create(Datasource(slug="manuals"))
        await connected.apps.create("desk", llms=["small"], tools=["search__*", "clock"], datasources=["manuals"])
        yield connected


async def test_an_agent_is_made_of_keywords_or_of_an_object(fleet: Fleet) -> None:
    """Both give the same; without a slug it is made of the name; a slug is there once."""
    one = await fleet.agents.create("one", app="desk", tools=["clock"], memory={"max_tokens": 5})
    two = await fleet.agents.create(Agent(slug="two", app="desk", tools=("clock",), memory=one.value.memory))
    named = await fleet.agents.create(name="Müller's Agent", model="gpt-4o")
    assert (one.value.tools, one.value.memory) == (two.value.tools, two.value.memory)
    assert named.value.slug == "muller-s-agent"
    with pytest.raises(ObjectExists):
        await fleet.agents.create("one", model="m")


async def test_fields_are_changed_and_others_stay(fleet: Fleet) -> None:
    """With the version that was seen; a merge patch goes into objects and takes away what is null."""
    await fleet.agents.create("a", model="gpt-4o", settings={"max_tokens": 5, "max_turns": 2}, description="x")
    changed = await fleet.agents.change("a", description="y", expected_version=1)
    assert (changed.value.description, changed.value.model) == ("y", "gpt-4o")
    with pytest.raises(ObjectConflict):
        await fleet.agents.change("a", description="z", expected_version=1)
    merged = await fleet.agents.merge("a", {"settings": {"max_turns": None, "max_run_tokens": 9}, "description": None})
    assert merged.value.settings == {"max_tokens": 5, "max_run_tokens": 9}
    assert merged.value.description == ""
    with pytest.raises(BadObject, match="surprise"):
        await fleet.agents.merge("a", {"surprise": 1})
    assert (await fleet.agents.get(merged.id)).version == 3


async def test_an_agent_is_switched_deleted_and_brought_back(fleet: Fleet) -> None:
    """Rolling back makes a new version of an old one, also after it was deleted."""
    await fleet.agents.create("a", model="one")
    await fleet.agents.change("a", model="two")
    assert not (await fleet.agents.deactivate("a")).value.is_active
    assert (await fleet.agents.activate("a")).value.is_active
    assert (await fleet.agents.rollback("a", 1)).value.model == "one"
    await fleet.agents.delete("a")
    with pytest.raises(ObjectNotFound):
        await fleet.agents.get("a")
    back = await fleet.agents.rollback("a", 2)
    assert (back.value.model, back.version) == ("two", 6)
    assert [each.version for each in await fleet.agents.versions("a")] == [6, 5, 4, 3, 2, 1]
    with pytest.raises(ObjectNotFound, match="no version 99"):
        await fleet.agents.rollback("a", 99)
    with pytest.raises(ObjectNotFound):
        await fleet.agents.versions("nobody")


async def test_a_group_is_not_switched_off(fleet: Fleet) -> None:
    """It has nothing to switch."""
    for attempt in (fleet.groups.deactivate("staff"), fleet.groups.activate("staff")):
        with pytest.raises(BadObject):
            await attempt


async def test_lists_are_filtered_and_in_pages(fleet: Fleet) -> None:
    """By namespace, activity, app, plugin and text."""
    for number in range(5):
        await fleet.agents.create(f"a{number}", app="desk", description=f"Number {number}", is_active=number != 3)
    await fleet.agents.create(Agent(slug="theirs", namespace="acme", model="m"))
    await fleet.agents.create("plugged", plugin="echo", app="desk")
    page = await fleet.agents.list(page=2, limit=3)
    assert (page.total, [stored.value.slug for stored in page.items]) == (7, ["a3", "a2", "a1"])

    async def found(**wanted: Any) -> set[str]:
        return {stored.value.slug for stored in (await fleet.agents.list(Wanted(**wanted))).items}

    assert await found(namespace="") == {"a0", "a1", "a2", "a3", "a4", "plugged"}
    assert "theirs" in await found(namespace="acme")
    assert "theirs" not in await found(namespace="beta")
    assert await found(is_active=False) == {"a3"}
    assert await found(plugin="echo") == {"plugged"}
    assert await found(app="desk", text="NUMBER 4") == {"a4"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"app": "nowhere"}, "there is no app 'nowhere'; there are: desk"),
        ({"app": "desk", "llm": "big"}, "has no llm 'big'"),
        ({"app": "desk", "model": "o3"}, "has no model 'o3'"),
        ({"app": "desk", "route": "main"}, "has no route 'main'"),
        ({"app": "desk", "tools": ["payroll"]}, "has no tool 'payroll'; it has: search__*, clock"),
        ({"app": "desk", "datasources": ["secrets"]}, "has no data source secrets"),
        ({"app": "desk", "settings": {"base_url": "http://x"}}, "settings.base_url"),
        ({"app": "desk", "settings": {"api_key_env": "OTHER"}}, "settings.api_key_env"),
        ({"app": "desk", "settings": {"options": {"extra_body": {"model": "o3"}}}}, "settings.options"),
        ({"model": "m", "datasources": ["nowhere"]}, "there is no data source 'nowhere'"),
        ({"model": "m", "groups": ["nobody"]}, "there is no group 'nobody'; there are: staff"),
        ({"model": "m", "settings": {"maxtokens": 5}}, "did you mean 'max_tokens'?"),
        ({"model": "m", "settings": {"max_tokens": 0}}, "must be between 1 and 200000, got 0"),
        ({"model": "m", "settings": {"max_turns": "many"}}, "expected a whole number"),
        ({"model": "m", "settings": {"model": "n"}}, "a field of the agent itself"),
        ({"model": "m", "settings": {"system_prompt": "n"}}, "a field of the agent itself"),
        ({"model": "m", "settings": {"base_url": "https://user:pw@host"}}, "password"),
        ({"model": "m", "route": "r"}, "not both"),
        ({"provider": "openai"}, "without a model"),
        ({"llm": "small"}, "give the app"),
        ({"model": "m", "budget": {"usd": -1}}, "more than 0"),
        ({"model": "m", "budget": {"period": "month"}}, "no limit is given"),
        ({"model": "m", "budget": {"usd": 1, "scope": "fleet"}}, "leave it out"),
        ({"model": "m", "budget": {"usd": 1, "match": "*"}}, "leave it out"),
        ({"model": "m", "budget": {"usd": 1, "where": {"tenant": "x"}}}, "leave out agent and tenant"),
        ({"model": "m", "budget": {"dollars": 1}}, "unknown field"),
        ({"model": "m", "config": {"a": 1}}, "no plugin is given"),
        ({"model": "m", "memory": {"max_tokens": 0}}, "memory"),
        ({"model": "m", "groups": ["staff", "staff"]}, "twice"),
        ({"model": " m"}, "printable"),
        ({"model": "m", "name": "x" * 201}, "at most 200"),
        ({"modle": "m"}, "fields are slug, name"),
        ({"model": 7}, "Expected `str`"),
    ],
)
async def test_what_cannot_work_is_refused(fleet: Fleet, fields: dict[str, Any], said: str) -> None:
    """Each with what is wrong, and what there is; nothing is stored."""
    with pytest.raises(BadObject) as refused:
        await fleet.agents.create("a", **fields)
    assert said in str(refused.value)
    assert (await fleet.agents.list()).total == 0


async def test_an_active_agent_needs_an_app_that_works(fleet: Fleet) -> None:
    """The app is active and has an active model; an agent that is off may wait for that."""
    await fleet.apps.create("off", llms=["small"], is_active=False)
    await fleet.apps.create("empty")
    for app, said in (("off", "is not active"), ("empty", "at least one active llm")):
        with pytest.raises(BadObject, match=said):
            await fleet.agents.create("a", app=app)
        await fleet.agents.create(f"waits-for-{app}", app=app, is_active=False)
        with pytest.raises(BadObject, match=said):
            await fleet.agents.activate(f"waits-for-{app}")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give the model's name"),
        ({"model": "m", "api_key_env": "sk-1234567890"}, "never the value"),
        ({"model": "m", "base_url": "host:80"}, "is no address"),
        ({"model": "m", "base_url": "https://user:pw@host"}, "holds a password"),
        ({"model": "m", "allowed_models": [""]}, "names or patterns"),
        ({"model": "m", "privacy_score": -1}, "0 or more"),
    ],
)
async def test_a_model_that_cannot_be_called_is_refused(fleet: Fleet, fields: dict[str, Any], said: str) -> None:
    """And what would be a key is not repeated."""
    with pytest.raises(BadObject, match=said) as refused:
        await fleet.llms.create("x", **fields)
    assert "sk-1234567890" not in str(refused.value)
    assert "pw" not in str(refused.value)


async def test_what_others_refer_to_is_kept(fleet: Fleet) -> None:
    """Models and data sources of apps, apps and groups of agents; free again when nobody refers to them."""
    await fleet.agents.create("a", app="desk", groups=["staff"])
    for attempt, user in (
        (fleet.llms.delete("small"), "app desk"),
        (fleet.apps.delete("desk"), "agent a"),
        (fleet.groups.delete("staff"), "agent a"),
    ):
        with pytest.raises(ObjectInUse, match=user):
            await attempt
    await fleet.agents.delete("a")
    await fleet.apps.delete("desk")
    await fleet.llms.delete("small")


async def test_a_namespaces_object_of_the_same_slug_is_another_one(fleet: Fleet) -> None:
    """An app of a tenant means the tenant's model where there is one: everybody's may go."""
    await fleet.apps.create(App(slug="theirs", namespace="acme", llms=("big",)))
    with pytest.raises(ObjectInUse):
        await fleet.llms.delete("big")
    await fleet.llms.create(Llm(slug="big", namespace="acme", model="m"))
    await fleet.llms.delete("big")
    with pytest.raises(ObjectInUse):
        await fleet.llms.delete("big", "acme")
    with pytest.raises(BadObject, match="there is no llm 'big'"):
        await fleet.apps.create("everybodys", llms=["big"])  # a tenant's model is not everybody's


async def test_what_only_the_workers_may_know_is_a_warning(fleet: Fleet) -> None:
    """Routes and providers that are not known here, and an app whose agents could not run any more."""
    settings = Settings(routes=read_routes({"main": ["gpt-4o"]}))
    there = Declarations(Definitions(fleet.backend.state), settings=settings, is_followed=False)
    assert await there.agents.warnings(Agent(slug="a", route="main")) == []
    assert "route 'other'" in (await there.agents.warnings(Agent(slug="a", route="other")))[0]
    assert "provider 'mine'" in (await there.llms.warnings(Llm(slug="x", provider="mine", model="m")))[0]
    await fleet.agents.create("a", app="desk", llm="small")
    said = " ".join(await there.apps.warnings(App(slug="desk", llms=("big",))))
    assert "agent 'a' uses llm 'small'" in said
    assert "no active llm" in " ".join(await there.apps.warnings(App(slug="desk")))
    assert "no app" in (await there.agents.warnings(Agent(slug="a", namespace="acme", model="m")))[0]


class Plugins:
    """One plugin, which wants a prefix."""

    def check_config(self, plugin_id: str, config: JsonObject) -> None:
        """As `AgentPlugins` does."""
        if plugin_id != "echo":
            raise PluginNotFound(f"no agent plugin {plugin_id!r} is installed here")
        if "prefix" not in config:
            raise BadPluginConfig("'prefix' is a required property")


async def test_a_plugins_configuration_is_checked_by_its_schema(fleet: Fleet) -> None:
    """An unknown plugin is an error where all are known, and a warning where the workers may have it."""
    definitions = Definitions(fleet.backend.state)
    there = Declarations(definitions, plugins=Plugins(), is_followed=False)
    await there.agents.create("good", app="desk", plugin="echo", config={"prefix": ">"})
    with pytest.raises(BadObject, match="prefix"):
        await there.agents.create("bad", app="desk", plugin="echo", config={})
    with pytest.raises(BadObject, match="no agent plugin"):
        await there.agents.create("bad", app="desk", plugin="nothing")
    elsewhere = Declarations(definitions, plugins=Plugins(), has_all_plugins=False, is_followed=False)
    assert "the workers need it" in (await elsewhere.agents.warnings(Agent(slug="b", app="desk", plugin="nothing")))[0]


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ],
)
def test_a_merge_patch_is_rfc_7396s(target: Any, patch: Any, merged: Any) -> None:
    """Examples of its appendix."""
    assert merge_patch(target, patch) == merged


async def test_two_that_apply_the_same_at_once_both_succeed(fleet: Fleet) -> None:
    """One of them creates it, the others find it as it should be: pipelines do not know of each other."""
    fleets = [Fleet(fleet.backend) for _ in range(8)]
    wanted = Agent(slug="shared", model="gpt-4o")
    done = await asyncio.gather(*(each.agents.apply(wanted) for each in fleets))
    assert sorted(outcome for _, outcome in done) == ["created"] + ["unchanged"] * 7
    assert {stored.version for stored, _ in done} == {1}


async def test_a_plugins_configuration_is_checked_in_python_too(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the schema of a plugin that is installed here; of one that only the workers have nobody knows here."""
    asked: list[str] = []

    def check(_plugins: AgentPlugins, plugin_id: str, _config: JsonObject) -> None:
        asked.append(plugin_id)
        raise BadPluginConfig("does not fit the schema") if plugin_id == "here" else PluginNotFound("not here")

    monkeypatch.setattr(AgentPlugins, "check_config", check)
    with pytest.raises(BadObject, match="does not fit the schema"):
        await fleet.agents.create("a", plugin="here", config={"x": 1})
    await fleet.agents.create("b", plugin="elsewhere", config={"x": 1})
    assert asked == ["here", "elsewhere"]


async def test_what_is_odd_about_a_data_source_is_said(fleet: Fleet) -> None:
    """A kind of store that only workers may have; and its fields are checked as those of all objects."""
    declared = Declarations(Definitions(fleet.backend.state), is_followed=False).datasources
    [warning] = await declared.warnings(Datasource(slug="a", store="elsewhere"))
    assert "embedded" in warning
    assert (await declared.create(name="Our Manuals")).value.slug == "our-manuals"
    for fields in (
        {"name": "a\nb"},
        {"embed_base_url": "http://u:p@h/"},
        {"privacy_score": -1},
        {"description": "x" * 4001},
    ):
        with pytest.raises(BadObject):
            await declared.create("b", **fields)
