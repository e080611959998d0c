"""Agents, apps, models and groups, as people manage them: `fleet.agents`, `shoal agent`, `/v1/agents`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.agents.model import Agent, App, Group, Llm
from worker.agents.references import PluginsKnown, References
from worker.agents.registrar import Registrar
from worker.datasources.model import Datasource
from worker.teams.notify.model import Notify
from worker.teams.team_objects import StoredTeam
from worker.teams.team_references import TeamReferences
from worker.teams.triggers.model import Trigger

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.live_settings import LiveSettings
    from worker.settings import Settings


class Declarations:
    """One `Registrar` for each kind of object."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        settings: Settings | None = None,
        live: LiveSettings | None = None,
        plugins: PluginsKnown | None = None,
        has_all_plugins: bool = True,
        is_followed: bool = True,
    ) -> None:
        """`has_all_plugins`: no worker has a plugin that `plugins` does not know. `is_followed`: the definitions are
        entered; if not, they are read anew before each operation."""
        references = References(
            definitions, settings=settings, live=live, plugins=plugins, has_all_plugins=has_all_plugins
        )
        refresh = None if is_followed else definitions.load
        self.definitions = definitions
        self.llms = Registrar(definitions.llms, Llm, references, refresh)
        self.apps = Registrar(definitions.apps, App, references, refresh)
        self.agents = Registrar(definitions.agents, Agent, references, refresh)
        self.datasources = Registrar(definitions.datasources, Datasource, references, refresh)
        self.groups = Registrar(definitions.groups, Group, references, refresh)
        of_teams = TeamReferences(definitions)
        self.teams = Registrar(definitions.teams, StoredTeam, of_teams, refresh)
        self.triggers = Registrar(definitions.triggers, Trigger, of_teams, refresh)
        self.notifies = Registrar(definitions.notifies, Notify, of_teams, refresh)

    def in_order(self) -> tuple[Registrar[Any], ...]:
        """All of them; none refers to a later one."""
        return self.llms, self.datasources, self.groups, self.apps, self.agents
