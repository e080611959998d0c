"""From a declared agent to what its runs go by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from providers import AgentConfig
from worker.agents.errors import AgentInactive, OutsideApp
from worker.agents.fence import chosen_llm
from worker.agents.model import Agent, App, Llm
from worker.agents.resolved import ResolvedAgent
from worker.datasources.model import Datasource
from worker.errors import AgentUnusable
from worker.loop_policy.model import LoopPolicy, in_force
from worker.settings.file import inherit

if TYPE_CHECKING:
    from worker.definitions import Definitions

OWN_FIELDS = frozenset({"model", "name", "provider", "route", "system_prompt", "tools"})
"""Fields of `AgentConfig` that an agent has itself; they are no settings."""
PLACE_FIELDS = frozenset({"api_key_env", "base_url", "options"})
"""Fields that say where, and as whom, a model is called: an app's agent has those of its app's models."""


def resolution_of(
    agent: Agent, definitions: Definitions, default: AgentConfig, loop_policy: LoopPolicy | None = None
) -> ResolvedAgent:
    """What runs of an agent go by at present. `default` is the worker's own agent, whose limits and timeouts count
    where the agent has none; so does the worker's `loop_policy`.

    Raises `AgentInactive`, `OutsideApp`, `AgentUnusable`.
    """
    if not agent.is_active:
        raise AgentInactive(f"agent {agent.slug!r} is not active: activate it, or name another agent")
    if not agent.app:
        config = _config(agent, default, _own_place(agent))
        return ResolvedAgent(
            config=config,
            agent=agent,
            datasources=_own_datasources(agent, definitions),
            tools_within=() if agent.tools is None else (agent.tools,),
            loop_policy=in_force(agent.loop_policy, loop_policy),
        )
    app = _app_of(agent, definitions)
    llms = llms_of(app, definitions)
    place = chosen_llm(llms, app=app.slug, llm=agent.llm, model=agent.model, provider=agent.provider, route=agent.route)
    return ResolvedAgent(
        config=_config(agent, default, place),
        agent=agent,
        app=app,
        llms=llms,
        datasources=_apps_datasources(agent, app, definitions),
        tools_within=(app.tools,) if agent.tools is None else (app.tools, agent.tools),
        loop_policy=in_force(agent.loop_policy, loop_policy),
    )


def llms_of(app: App, definitions: Definitions) -> tuple[Llm, ...]:
    """The active models of an app, in its order."""
    found = (definitions.llms.visible(slug, app.namespace) for slug in app.llms)
    return tuple(llm.value for llm in found if llm is not None and llm.value.is_active)


def _app_of(agent: Agent, definitions: Definitions) -> App:
    stored = definitions.apps.visible(agent.app, agent.namespace)
    if stored is None:
        raise AgentUnusable(f"agent {agent.slug!r} belongs to app {agent.app!r}, which is not declared")
    if not stored.value.is_active:
        raise AgentInactive(f"agent {agent.slug!r} cannot be used: its app {agent.app!r} is not active")
    return stored.value


def _own_place(agent: Agent) -> dict[str, Any]:
    place = {"model": agent.model, "provider": agent.provider, "route": agent.route}
    return {name: value for name, value in place.items() if value}


def _config(agent: Agent, default: AgentConfig, place: dict[str, Any]) -> AgentConfig:
    own = {**agent.settings, "name": agent.slug, "system_prompt": agent.system_prompt}
    if place:
        own |= {"model": "", **place}
    if agent.tools is not None:
        own["tools"] = agent.tools
    elif agent.app:
        own["tools"] = ("*",)
    try:
        config = msgspec.convert(inherit(msgspec.to_builtins(default), own), AgentConfig)
    except msgspec.ValidationError as error:
        raise AgentUnusable(f"the settings of agent {agent.slug!r} do not fit: {error}") from error
    if not (config.model or config.route or config.provider or agent.plugin):
        raise AgentUnusable(f"agent {agent.slug!r} has no model, and neither have the settings of this worker")
    return config


def _own_datasources(agent: Agent, definitions: Definitions) -> tuple[Datasource, ...]:
    found = (definitions.datasources.visible(slug, agent.namespace) for slug in agent.datasources or ())
    return tuple(each.value for each in found if each is not None and each.value.is_active)


def _apps_datasources(agent: Agent, app: App, definitions: Definitions) -> tuple[Datasource, ...]:
    if outside := sorted(set(agent.datasources or ()) - set(app.datasources)):
        raise OutsideApp(f"app {app.slug!r} has no data source {', '.join(outside)}, which agent {agent.slug!r} names")
    wanted = app.datasources if agent.datasources is None else agent.datasources
    found = (definitions.datasources.visible(slug, app.namespace) for slug in wanted)
    return tuple(each.value for each in found if each is not None and each.value.is_active)
