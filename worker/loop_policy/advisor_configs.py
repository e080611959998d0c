"""Whom an advisor's tool asks: what its model is called with."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from providers import AgentConfig
from queue_backends import Task
from worker.agents import AgentDirectory, ResolvedAgent
from worker.agents.fence import chosen_llm
from worker.errors import AgentUnusable
from worker.loop_policy.model import Advisor

USUAL_PROMPT = (
    "You advise another agent, which does the work itself. Look at what it has done, and answer its question: clearly, "
    "shortly, and with something that it can do next."
)


NameOf = Callable[[AgentConfig], str]
"""The registry name of a configuration's provider."""


def config_of(
    advisor: Advisor, agent: ResolvedAgent, directory: AgentDirectory, task: Task, name_of: NameOf
) -> AgentConfig:
    """A role's advisor is the agent of its file; else it is a declared agent, or a model.

    Raises `AgentNotFound`, `AgentUnusable`, or `AccessDenied` for what the agent's app does not have.
    """
    if (known := agent.advisors.get(advisor.name)) is not None:
        return known
    if advisor.agent:
        asked = directory.resolve(Task(prompt="", agent=advisor.agent, tenant=task.tenant))
        if asked.agent is not None and asked.agent.plugin:
            raise AgentUnusable(f"agent {advisor.agent!r} is a plugin, which gives no advice")
        if agent.app is not None and (asked.app is None or asked.app.slug != agent.app.slug):
            raise AgentUnusable(f"agent {advisor.agent!r} is not of app {agent.app.slug!r}, as its advisor has to be")
        if not advisor.system_prompt:
            return asked.config
        return replace(asked.config, system_prompt=advisor.system_prompt)
    config = replace(agent.config, system_prompt=advisor.system_prompt or USUAL_PROMPT)
    return other_model(config, agent, advisor.model, name_of) if advisor.model else config


def other_model(config: AgentConfig, agent: ResolvedAgent, model: str, name_of: NameOf) -> AgentConfig:
    """The configuration with another model, which an agent with an app has to be allowed. Its provider stays if it is
    named; if not, the model's name tells it, and what belongs to the one before is left behind.

    Raises `AccessDenied`.
    """
    if agent.app is not None:
        place = chosen_llm(agent.llms, app=agent.app.slug, model=model)
        return replace(config, **place)
    changed = replace(config, model=model, route="")
    if not config.route and name_of(changed) != name_of(config):
        changed = replace(changed, base_url="", api_key_env="", options={})
    return changed
