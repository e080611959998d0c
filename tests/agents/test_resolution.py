"""What a run of an agent goes by, and the fence that its app is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from providers import AgentConfig, ToolSpec
from queue_backends import Backend, BackendUnavailable, InvalidTask, Task, open_backend
from worker.agents import Agent, AgentDirectory, App, Llm, Roster
from worker.agents.errors import AgentInactive, OutsideApp
from worker.datasources.model import Datasource
from worker.definitions import Definitions
from worker.errors import AgentNotFound, AgentUnusable
from worker.settings import Settings
from worker.tools.catalogue import ToolCatalogue
from worker.tools.interfaces import ToolContext, ToolResult

DEFAULT = AgentConfig(
    model="house-model",
    provider="openai",
    base_url="https://house.example",
    api_key_env="HOUSE_KEY",
    max_tokens=1234,
    options={"extra_body": {"x": 1}},
)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A memory backend of the test's own."""
    async with await open_backend("memory://") as opened:
        yield opened


@pytest.fixture
async def there(backend: Backend) -> AsyncIterator[Definitions]:
    """What is declared: an app with two models, a route, two tools and a data source."""
    async with Definitions(backend.state) as declared:
        await declared.llms.create(
            Llm(
                slug="small",
                provider="anthropic",
                model="claude-haiku",
                allowed_models=("claude-*",),
                base_url="https://small.example",
                api_key_env="SMALL_KEY",
            )
        )
        await declared.llms.create(Llm(slug="big", provider="openai", model="gpt-4o", api_key_env="BIG_KEY"))
        await declared.llms.create(Llm(slug="routed", route="main"))
        await declared.llms.create(Llm(slug="foreign", provider="openai", model="o3", api_key_env="FOREIGN_KEY"))
        await declared.datasources.create(Datasource(slug="manuals"))
        await declared.datasources.create(Datasource(slug="payroll"))
        app = App(slug="desk", llms=("small", "big", "routed"), tools=("search__*", "clock"), datasources=("manuals",))
        await declared.apps.create(app)
        yield declared


def directory(there: Definitions | None, **settings: Any) -> AgentDirectory:
    """A worker's agents over these definitions."""
    return AgentDirectory(Roster(Settings(agent=DEFAULT, **settings), there))


def task(agent: str = "a", tenant: str = "", **overrides: Any) -> Task:
    """A task for an agent."""
    return Task(prompt="hello", agent=agent, tenant=tenant, overrides=overrides)


async def test_an_apps_agent_is_called_where_the_apps_model_is(there: Definitions) -> None:
    """Provider, address and key are its model's; limits are the worker's where it has none; nothing else is the
    worker's own."""
    await there.agents.create(Agent(slug="a", app="desk", system_prompt="Hi", settings={"max_turns": 3}))
    found = directory(there).resolve(task())
    config = found.config
    assert (config.provider, config.model, config.base_url) == ("anthropic", "claude-haiku", "https://small.example")
    assert (config.api_key_env, config.options, config.name) == ("SMALL_KEY", {}, "a")
    assert (config.max_tokens, config.max_turns, config.system_prompt) == (1234, 3, "Hi")
    assert [llm.slug for llm in found.llms] == ["small", "big", "routed"]
    assert [source.slug for source in found.datasources] == ["manuals"]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"llm": "big"}, ("openai", "gpt-4o", "BIG_KEY", "")),
        ({"model": "gpt-4o"}, ("openai", "gpt-4o", "BIG_KEY", "")),
        ({"model": "claude-opus"}, ("anthropic", "claude-opus", "SMALL_KEY", "")),
        ({"llm": "routed"}, ("", "", "", "main")),
        ({"route": "main"}, ("", "", "", "main")),
    ],
)
async def test_an_agent_chooses_among_its_apps_models(
    there: Definitions, fields: dict[str, Any], place: tuple[str, ...]
) -> None:
    """By the model's slug, by its name, by a name that a pattern allows, or by its route."""
    await there.agents.create(Agent(slug="a", app="desk", **fields))
    config = directory(there).config_for(task())
    assert (config.provider, config.model, config.api_key_env, config.route) == place


async def test_an_override_of_the_model_takes_that_models_address_and_key(there: Definitions) -> None:
    """A model of the app that is asked for by name or slug is called with its own key, never with another one's."""
    await there.agents.create(Agent(slug="a", app="desk"))
    agents = directory(there)
    for overrides, place in (
        ({"model": "gpt-4o"}, ("openai", "gpt-4o", "BIG_KEY", "")),
        ({"model": "big"}, ("openai", "gpt-4o", "BIG_KEY", "")),
        ({"provider": "openai"}, ("openai", "gpt-4o", "BIG_KEY", "")),
        ({"model": "claude-opus", "provider": "anthropic"}, ("anthropic", "claude-opus", "SMALL_KEY", "")),
        ({"route": "main"}, ("", "", "", "main")),
        ({"temperature": 0.5}, ("anthropic", "claude-haiku", "SMALL_KEY", "")),
    ):
        config = agents.config_for(task(**overrides))
        assert (config.provider, config.model, config.api_key_env, config.route) == place, overrides


@pytest.mark.parametrize(
    "overrides",
    [
        {"model": "o3"},
        {"model": "foreign"},
        {"model": "house-model"},
        {"model": "gpt-4o", "provider": "anthropic"},
        {"model": "claude-haiku", "provider": "openai"},
        {"provider": "gemini"},
        {"route": "other"},
        {"route": "main", "model": "o3"},
        {"route": "main", "provider": "openai"},
        {"model": "gpt-4o\u0000"},
        {"model": "GPT-4O"},
        {"model": "claude-haiku", "route": "other"},
    ],
)
async def test_no_override_leads_out_of_the_app(there: Definitions, overrides: dict[str, str]) -> None:
    """Models, providers and routes that the app does not have are refused, alone and mixed with those that it has."""
    await there.agents.create(Agent(slug="a", app="desk"))
    with pytest.raises(OutsideApp, match="desk"):
        directory(there).resolve(task(**overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        {"base_url": "https://evil.example"},
        {"api_key_env": "FOREIGN_KEY"},
        {"options": {"extra_body": {"model": "o3"}}},
        {"name": "somebody-else"},
        {"model": ["gpt-4o"]},
        {"model": None},
        {"route": 7},
        {"provider": {"a": "b"}},
        {"tools": "*"},
    ],
)
async def test_overrides_that_are_none_are_refused(there: Definitions, overrides: dict[str, Any]) -> None:
    """Addresses, keys, options and names are nobody's to override, and values of a wrong kind get nowhere."""
    await there.agents.create(Agent(slug="a", app="desk"))
    with pytest.raises(InvalidTask):
        directory(there).resolve(task(**overrides))


async def test_naming_no_route_does_not_fall_back_to_anything_outside(there: Definitions) -> None:
    """Empty names ask for nothing: the app's first model stays."""
    await there.agents.create(Agent(slug="a", app="desk", llm="routed"))
    config = directory(there).config_for(task(route="", model="", provider=""))
    assert (config.model, config.api_key_env) == ("claude-haiku", "SMALL_KEY")


class Tool:
    """A tool that answers its name."""

    after_timeout = "nothing was done"

    def __init__(self, name: str) -> None:
        self.spec = ToolSpec(name=name)

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Its name."""
        return ToolResult(text=self.spec.name)


TOOLS = ("search__web", "search__files", "clock", "payroll")


@pytest.mark.parametrize(
    ("own", "override", "given"),
    [
        (None, None, {"search__web", "search__files", "clock"}),
        (("search__*",), None, {"search__web", "search__files"}),
        (("*",), None, {"search__web", "search__files", "clock"}),
        (("s*",), ["*web"], {"search__web"}),
        (("clock",), ["*"], {"clock"}),
        (None, ["payroll"], set()),
        (None, ["*", "payroll"], {"search__web", "search__files", "clock"}),
        ((), ["*"], set()),
    ],
)
async def test_tools_are_those_of_agent_app_and_task_alike(
    there: Definitions, own: tuple[str, ...] | None, override: list[str] | None, given: set[str]
) -> None:
    """Patterns are intersected, and what may be called is what is listed."""
    await there.agents.create(Agent(slug="a", app="desk", tools=own))
    overrides: dict[str, Any] = {} if override is None else {"tools": override}
    found = directory(there).resolve(task(**overrides))
    async with ToolCatalogue(tools=[Tool(name) for name in TOOLS]) as catalogue:
        listed = {spec.name for spec in found.tool_specs(catalogue)} - {"read_output"}
    assert listed == given
    assert {name for name in TOOLS if found.may_call(name)} == given


async def test_without_tools_there_is_nothing_to_read_on(there: Definitions) -> None:
    """`read_output` is not listed alone."""
    await there.agents.create(Agent(slug="a", app="desk", tools=("nothing",)))
    async with ToolCatalogue(tools=[Tool(name) for name in TOOLS]) as catalogue:
        assert directory(there).resolve(task()).tool_specs(catalogue) == ()


async def test_data_sources_are_the_apps_active_ones(there: Definitions) -> None:
    """An agent that names one outside its app is refused; one that is switched off is not there."""
    await there.agents.create(Agent(slug="a", app="desk", datasources=("manuals", "payroll")))
    agents = directory(there)
    with pytest.raises(OutsideApp, match="payroll"):
        agents.resolve(task())
    await there.agents.update(Agent(slug="a", app="desk", datasources=("manuals",)))
    await there.datasources.update(Datasource(slug="manuals", is_active=False))
    assert agents.resolve(task()).datasources == ()


async def test_what_is_switched_off_or_gone_ends_the_agent(there: Definitions) -> None:
    """The agent itself, its app, its app's models, or its app as a whole: each with a reason of its own."""
    await there.agents.create(Agent(slug="a", app="desk", llm="big"))
    agents = directory(there)
    await there.llms.change("big", lambda llm: Llm(slug="big", model=llm.model, is_active=False))
    with pytest.raises(OutsideApp, match="big"):
        agents.resolve(task())
    app = there.apps.get("desk")
    assert app is not None
    await there.apps.update(App(slug="desk", llms=("small",), is_active=False))
    with pytest.raises(AgentInactive, match="desk"):
        agents.resolve(task())
    await there.apps.delete("desk")
    with pytest.raises(AgentUnusable, match="desk"):
        agents.resolve(task())
    await there.agents.change("a", lambda agent: Agent(slug="a", is_active=False))
    with pytest.raises(AgentInactive, match="not active"):
        agents.resolve(task())


async def test_an_operators_agent_has_what_the_worker_has(there: Definitions) -> None:
    """Without an app: its own model without the house's address, or the house's model with it, and all tools."""
    await there.agents.create(Agent(slug="own", model="gpt-4o"))
    await there.agents.create(Agent(slug="house", system_prompt="Hi"))
    agents = directory(there)
    own, house = agents.resolve(task("own")), agents.resolve(task("house"))
    assert (own.config.model, own.config.provider, own.config.base_url) == ("gpt-4o", "", "")
    assert (house.config.model, house.config.api_key_env, house.config.system_prompt) == (
        "house-model",
        "HOUSE_KEY",
        "Hi",
    )
    assert own.may_call("payroll")
    assert own.app is None


async def test_a_namespaces_agent_is_there_for_its_tenant_alone(there: Definitions) -> None:
    """A tenant's own agent hides everybody's of the same slug; others do not find it, and no worker's default takes its
    place."""
    await there.agents.create(Agent(slug="a", model="everybodys"))
    await there.agents.create(Agent(slug="a", namespace="acme", model="acmes"))
    await there.agents.create(Agent(slug="b", namespace="acme", model="acmes"))
    agents = directory(there)
    assert agents.config_for(task(tenant="acme")).model == "acmes"
    assert agents.config_for(task(tenant="beta")).model == "everybodys"
    assert agents.config_for(task("b", tenant="acme")).model == "acmes"
    for tenant in ("", "beta", "acm*"):
        with pytest.raises(AgentNotFound):
            agents.resolve(task("b", tenant=tenant))


async def test_a_namespaces_app_hides_everybodys_for_its_own_agents_alone(there: Definitions) -> None:
    """An app of a namespace with the slug of everybody's counts for that namespace's agents, and for no others."""
    await there.llms.create(Llm(slug="acmes", namespace="acme", model="acme-model"))
    await there.apps.create(App(slug="desk", namespace="acme", llms=("acmes",)))
    await there.agents.create(Agent(slug="a", app="desk"))
    await there.agents.create(Agent(slug="b", app="desk", namespace="acme"))
    agents = directory(there)
    assert agents.config_for(task("b", tenant="acme")).model == "acme-model"
    assert agents.config_for(task("a", tenant="acme")).model == "claude-haiku"


async def test_agents_of_the_settings_go_on(there: Definitions) -> None:
    """By their name, with an object of the same name before them; the default one by its own name, or by none."""
    poet = AgentConfig(name="poet", model="from-file")
    agents = directory(there, agents={"poet": poet}, agent_name="house")
    assert agents.config_for(task("poet")) is poet
    assert agents.config_for(task("house")) is DEFAULT
    assert agents.config_for(task("")) is DEFAULT
    await there.agents.create(Agent(slug="poet", model="from-object"))
    assert agents.config_for(task("poet")).model == "from-object"
    await there.agents.delete("poet")
    assert agents.config_for(task("poet")) is poet


async def test_where_nothing_is_declared_any_name_means_the_workers_own(backend: Backend) -> None:
    """As ark's workers do; but a deleted agent's name does not become the worker's own, which has no fence."""
    async with Definitions(backend.state) as nothing:
        agents = directory(nothing)
        assert agents.config_for(task("whoever")) is DEFAULT
        await nothing.agents.create(Agent(slug="fenced", model="m"))
        with pytest.raises(AgentNotFound, match="fenced"):
            agents.resolve(task("whoever"))
        await nothing.agents.delete("fenced")
        assert agents.config_for(task("whoever")) is DEFAULT
        with pytest.raises(AgentNotFound):
            agents.resolve(task("fenced"))
    async with Definitions(backend.state) as later:
        with pytest.raises(AgentNotFound):
            directory(later).resolve(task("fenced"))


async def test_what_a_task_has_taken_stays_as_it_was(there: Definitions) -> None:
    """A change makes a new answer for later tasks, and leaves what earlier ones hold alone."""
    await there.agents.create(Agent(slug="a", model="first"))
    agents = directory(there)
    held = agents.resolve(task())
    assert agents.resolve(task()) is held
    await there.agents.update(Agent(slug="a", model="second"))
    assert (held.config.model, agents.config_for(task()).model) == ("first", "second")
    agents.close()


async def test_before_an_agent_is_taken_to_be_missing_the_store_is_looked_into(backend: Backend) -> None:
    """A directory that has heard of nothing yet: what was declared, switched on or deleted elsewhere is found when a
    task asks for it, and what is found already is not read again."""
    deaf, elsewhere = Definitions(backend.state), Definitions(backend.state)
    agents = directory(deaf)
    await elsewhere.llms.create(Llm(slug="model", model="m"))
    await elsewhere.apps.create(App(slug="desk", llms=("model",)))
    await elsewhere.agents.create(Agent(slug="a", app="desk"))
    assert not agents.knows(task())
    await agents.make_sure(task())
    assert agents.config_for(task()).model == "m"
    assert agents.knows(task())
    await elsewhere.llms.update(Llm(slug="model", model="n"))
    await agents.make_sure(task())
    assert agents.config_for(task()).model == "m"  # that is for the watch to tell

    await elsewhere.agents.create(Agent(slug="b", app="desk", is_active=False))
    await agents.make_sure(task("b"))
    with pytest.raises(AgentInactive):
        agents.resolve(task("b"))
    await elsewhere.agents.update(Agent(slug="b", app="desk"))
    await agents.make_sure(task("b"))
    assert agents.config_for(task("b")).model == "n"

    await elsewhere.agents.create(Agent(slug="c", app="desk"))
    await elsewhere.agents.delete("c")
    await asyncio.gather(*(agents.make_sure(task("c")) for _ in range(50)))
    with pytest.raises(AgentNotFound):
        agents.resolve(task("c"))


@pytest.mark.parametrize("model", ["gemini-../../v1/files", "m?key=x", "m#x", "a%2fb", "m\nx", "/m", "..", "x" * 600])
async def test_a_model_is_asked_for_by_a_name(there: Definitions, model: str) -> None:
    """Some vendors have the model's name in their addresses: what would lead elsewhere is refused, with and without an
    app whose pattern it fits."""
    await there.llms.create(Llm(slug="any", model="gemini-pro", allowed_models=("*",)))
    await there.apps.create(App(slug="open", llms=("any",)))
    await there.agents.create(Agent(slug="fenced", app="open"))
    await there.agents.create(Agent(slug="free", model="gemini-pro"))
    agents = directory(there)
    for name in ("fenced", "free"):
        with pytest.raises((InvalidTask, OutsideApp)):
            agents.resolve(task(name, model=model))
        assert agents.config_for(task(name, model="publishers/google/models/gemini-2.5-pro@001")).model


async def test_tasks_for_unknown_agents_read_no_more_than_those(
    there: Definitions, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names agents that are not there must not make every worker look through the whole store."""
    agents = directory(there)

    def scans(prefix: str) -> None:
        raise AssertionError(f"{prefix} was read whole")

    monkeypatch.setattr(backend.state, "scan", scans)
    for number in range(20):
        await agents.make_sure(task(f"nobody-{number}"))
    assert not agents.knows(task("nobody-0"))


async def test_a_worker_that_cannot_read_the_store_goes_on_with_what_it_knows(there: Definitions) -> None:
    """A task for an unknown agent fails as it would have; nothing else does."""

    async def fails(slug: str, namespace: str) -> None:
        raise BackendUnavailable("the store is away")

    await there.agents.create(Agent(slug="a", app="desk"))
    agents = directory(there)
    there.agents.look_again = fails  # type: ignore[method-assign]  # an outage
    with capture_logs() as logs:
        await agents.make_sure(task("b"))
    assert [entry["log_level"] for entry in logs] == ["warning"]
    with pytest.raises(AgentNotFound):
        agents.resolve(task("b"))
    assert agents.config_for(task()).model == "claude-haiku"


async def test_a_model_that_is_asked_for_by_name_leaves_the_route(there: Definitions) -> None:
    """An app's route is not free to choose another one for it."""
    await there.llms.create(Llm(slug="either", provider="openai", model="o1", route="main", allowed_models=("o4-*",)))
    await there.apps.create(App(slug="wide", llms=("either",)))
    await there.agents.create(Agent(slug="a", app="wide"))
    agents = directory(there)
    assert agents.config_for(task()).route == "main"
    asked = agents.config_for(task(model="o4-mini"))
    assert (asked.route, asked.model, asked.provider) == ("", "o4-mini", "openai")


async def test_an_agents_patterns_do_not_reach_beyond_its_apps(there: Definitions) -> None:
    """However wide they are: a tool has to fit the app's patterns, too."""
    await there.agents.create(Agent(slug="a", app="desk", tools=("*",)))
    found = directory(there).resolve(task())
    assert found.may_call("clock")
    assert not found.may_call("payroll")
