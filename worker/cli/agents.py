"""`shoal agent`, `shoal app`, `shoal llm`, `shoal group`: what people declare, live in the whole fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli.declared import declared_group
from worker.cli.declared_fields import AGENT_FLAGS, APP_FLAGS, GROUP_FLAGS, LLM_FLAGS
from worker.cli.declared_kind import Kind
from worker.cli.screen import Column

if TYPE_CHECKING:
    from worker.agents.model import Agent, App, Group, Llm


def _agent_cells(agent: Agent) -> tuple[str, ...]:
    runs = agent.plugin or agent.route or agent.model or agent.llm
    return agent.app, runs, ", ".join(agent.groups)


def _app_cells(app: App) -> tuple[str, ...]:
    return ", ".join(app.llms), ", ".join(app.tools), ", ".join(app.datasources)


def _llm_cells(llm: Llm) -> tuple[str, ...]:
    return llm.provider, llm.route or ", ".join(filter(None, (llm.model, *llm.allowed_models))), llm.api_key_env


def _group_cells(group: Group) -> tuple[str, ...]:
    return (group.description,)


agent = declared_group(
    Kind(
        "agent",
        "an agent",
        "agents",
        "support --model gpt-4o --system-prompt 'You help customers.'",
        AGENT_FLAGS,
        (Column("app"), Column("runs"), Column("groups")),
        _agent_cells,
    ),
    "Agents: a model with a prompt and tools, or a plugin's code. Tasks name them by slug. See docs/agents.md.",
)
app = declared_group(
    Kind(
        "app",
        "an app",
        "apps",
        "helpdesk --llm main --tool 'search__*' --datasource manuals",
        APP_FLAGS,
        (Column("llms"), Column("tools"), Column("data sources")),
        _app_cells,
    ),
    "Apps: the models, tools and data sources that their agents may use, and no others.",
)
llm = declared_group(
    Kind(
        "llm",
        "a model",
        "llms",
        "main --provider openai --model gpt-4o --api-key-env HELPDESK_KEY",
        LLM_FLAGS,
        (Column("provider"), Column("model"), Column("key")),
        _llm_cells,
    ),
    "Models that apps may use: where they are called, and as whom.",
)
group = declared_group(
    Kind(
        "group",
        "an access group",
        "groups",
        "staff --description 'Everybody who works here'",
        GROUP_FLAGS,
        (Column("description"),),
        _group_cells,
        switches=False,
    ),
    "Access groups: who is in one sees the agents that name it.",
)
