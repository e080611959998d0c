"""What is declared: in the settings, and in the store, which a worker follows as it changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from providers import AgentConfig
from queue_backends import StateStore, Task
from worker.agent_plugins.instances import AgentPluginHost
from worker.agent_plugins.registry import AgentPlugins
from worker.agents import AgentDirectory, Roster
from worker.definitions import Definitions
from worker.live_settings import LiveSettings
from worker.settings import Settings
from worker.teams.plans_in_use import PlansInUse
from worker.teams.runs import Runs


class Declared(Struct, frozen=True, kw_only=True):
    """What is declared, as it is now."""

    live: LiveSettings
    definitions: Definitions
    runs: Runs
    agents: AgentDirectory
    agent_plugins: AgentPluginHost

    def config_of(self, task: Task) -> AgentConfig:
        """What a task's agent is configured as. Raises what `AgentDirectory.resolve` does."""
        return self.agents.resolve(task).config


@asynccontextmanager
async def open_declared(settings: Settings, state: StateStore) -> AsyncIterator[Declared]:
    """While entered, changes are followed. Raises `BackendUnavailable`."""
    async with AsyncExitStack() as stack:
        live = await stack.enter_async_context(LiveSettings(state))
        definitions = await stack.enter_async_context(Definitions(state))
        runs = Runs.of(settings, state)
        agents = AgentDirectory(Roster(settings, definitions), PlansInUse(runs))
        stack.callback(agents.close)
        agent_plugins = AgentPluginHost(AgentPlugins.of(settings, definitions.plugins), state, definitions.agents)
        stack.push_async_callback(agent_plugins.close)
        yield Declared(live=live, definitions=definitions, runs=runs, agents=agents, agent_plugins=agent_plugins)
