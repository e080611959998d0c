"""Routes as operators write them, and what they are told when one cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers import AgentConfig, Thinking
from queue_backends import open_backend
from worker.errors import BadSetting
from worker.live_settings import LiveSettings
from worker.routing import RouteNotFound, Strategy, read_route
from worker.routing.route_table import RouteTable
from worker.settings import load_settings

AGENT = AgentConfig(
    model="agent-model",
    provider="agent-provider",
    base_url="http://agent",
    api_key_env="AGENT_KEY",
    options={"a": 1},
    system_prompt="be kind",
    max_tokens=100,
)


def test_a_list_of_models_is_a_route() -> None:
    """The short form: tried in this order, each at the provider that its name tells."""
    route = read_route("main", ["claude-sonnet-4-5", {"model": "gpt-4o"}])
    assert [(target.provider, target.name) for target in route.targets] == [
        ("anthropic", "anthropic/claude-sonnet-4-5"),
        ("openai", "openai/gpt-4o"),
    ]
    assert (route.name, route.strategy) == ("main", Strategy.ORDERED)


def test_a_target_has_its_own_address_and_the_agents_manner() -> None:
    """What belongs to the agent's own model does not go to another one; all else does, unless the target says so."""
    plain, own = read_route(
        "main",
        [
            {"model": "gpt-4o"},
            {"model": "gpt-4o", "name": "b", "base_url": "http://b", "max_tokens": 7, "thinking": {"effort": "low"}},
        ],
    ).targets
    config = plain.config_for(AGENT)
    assert (config.provider, config.model, config.base_url, config.api_key_env) == ("openai", "gpt-4o", "", "")
    assert (config.options, config.system_prompt, config.max_tokens) == ({}, "be kind", 100)
    config = own.config_for(AGENT)
    assert (config.base_url, config.max_tokens, config.thinking) == ("http://b", 7, Thinking(effort="low"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("gpt-4o", "routes.main: expected a list of targets, or keys"),
        ([], "routes.main.targets: 0 targets: a route has 1 to 32"),
        (["openai/gpt-4o"], "routes.main.targets[0]: 'openai/gpt-4o' may mean two things: write {provider: openai, mo"),
        ([{"provider": "openai"}], "required field `model` - at `$.targets[0]`"),
        ([{"model": " "}], "routes.main.targets[0]: the model is empty"),
        ([{"model": "a", "modle": "b"}], "unknown field `modle` - at `$.targets[0]`"),
        (["m", "m"], "routes.main.targets[1]: 'openai/m' is there twice: give one of them another name"),
        ([{"model": "m", "weight": -1}], "routes.main.targets[0].weight is -1: use 0 or more"),
        ([{"model": "m", "max_context": 0}], "routes.main.targets[0].max_context is 0: use 1 or more"),
        ([{"model": "m", "idle_timeout_s": 0}], "routes.main.targets[0].idle_timeout_s is 0: use more than 0"),
        ({"targets": ["m"], "strategy": "best"}, "`$.strategy`"),
        ({"targets": ["m"], "hedge_after_s": 0}, "routes.main.hedge_after_s is 0: use more than 0"),
        ({"targets": ["m"], "breaker": {"error_rate": 2}}, "routes.main.breaker.error_rate: 2 is no share"),
        ({"targets": ["m"], "breaker": {"open_s": 60, "most_open_s": 5}}, "most_open_s is 5: use 60 or more"),
        ({"targets": [{"model": "m", "weight": 0}], "strategy": "weighted"}, "routes.main: all weights are 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(value: Any, said: str) -> None:
    """With the place, the value, and what is allowed."""
    with pytest.raises(BadSetting) as caught:
        read_route("main", value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_has_to_be_one() -> None:
    """It becomes part of keys and labels."""
    with pytest.raises(BadSetting, match="' main' is no route's name"):
        read_route(" main", ["m"])


def test_settings_have_routes_and_agents_that_take_them(tmp_path: Path) -> None:
    """An agent with a route needs no model; one that names its model does not inherit the route; a flag or variable
    that names a model means that model; and what cannot be is refused when the file is read."""
    file = tmp_path / "shoal.yaml"
    file.write_text(
        "routes: {main: [gpt-4o, {model: claude-sonnet-4-5, weight: 2}]}\n"
        "agent: {route: main}\n"
        "agents: {poet: {system_prompt: rhyme}, clerk: {model: gpt-4o-mini}}\n"
    )
    settings = load_settings({}, file=file)
    assert settings.routes["main"].targets[1].weight == 2
    assert (settings.agent.route, settings.agents["poet"].route, settings.agents["clerk"].route) == ("main", "main", "")
    assert load_settings({"AGENT_MODEL": "o3"}, file=file).agent.route == ""
    assert load_settings({"AGENT_MODEL": "o3"}, file=file, overrides={"agent.route": "main"}).agent.route == "main"
    file.write_text("routes: {main: []}\n")
    with pytest.raises(BadSetting, match=r"routes.main.targets: 0 targets"):
        load_settings({}, file=file)


async def test_a_live_route_is_checked_before_it_is_stored() -> None:
    """Nobody can set one that no worker could use."""
    async with await open_backend("memory://") as backend:
        live = LiveSettings(backend.state)
        with pytest.raises(BadSetting, match=r"routes.main.targets.1.: .*twice"):
            await live.set("routes.main", '["m", "m"]')
        with pytest.raises(BadSetting, match=r"routes.main is no JSON"):
            await live.set("routes.main", "gpt-4o")
        await live.set("routes.main", '["m"]')
        assert RouteTable({}, live).get("main").targets[0].model == "m"


async def test_a_live_route_that_says_nothing_changes_nothing() -> None:
    """One that was written past the check, by another version perhaps: the last one that could be read stays, or the
    file's."""
    async with await open_backend("memory://") as backend:
        live = LiveSettings(backend.state)
        table = RouteTable({"main": read_route("main", ["from-file"])}, live)
        await backend.state.set("settings:routes.main", b"{}")
        await live.load()
        assert table.get("main").targets[0].model == "from-file"
        await live.set("routes.main", '["live"]')
        assert table.get("main").targets[0].model == "live"
        await backend.state.set("settings:routes.main", b"[]")
        await live.load()
        assert table.get("main").targets[0].model == "live"
        await live.unset("routes.main")
        assert table.get("main").targets[0].model == "from-file"
        with pytest.raises(RouteNotFound, match="there is no route 'other'; there are: main"):
            table.get("other")
