"""Everything that people have declared, mirrored in this process: `async with Definitions(state) as declared`."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from queue_backends import StateChange, StateStore
from worker.agent_plugins.declared import DeclaredPlugin, check_declared_plugin
from worker.agents.checks import check_agent, check_app, check_group, check_llm
from worker.agents.model import Agent, App, Group, Llm
from worker.datasources.model import Datasource, check_datasource
from worker.following import Following
from worker.objects import ObjectStore
from worker.objects.store import LOAD_LIMIT_S, PREFIX, RECONCILE_S
from worker.teams.notify.checks import check_notify
from worker.teams.notify.model import Notify
from worker.teams.team_objects import StoredTeam, check_team
from worker.teams.triggers.checks import check_trigger
from worker.teams.triggers.model import Trigger


class Definitions:
    """Agents, apps, models, data sources, access groups, teams and triggers of the fleet, live."""

    def __init__(self, state: StateStore) -> None:
        self.llms = ObjectStore(state, "llm", Llm, check=check_llm)
        self.apps = ObjectStore(state, "app", App, check=check_app)
        self.agents = ObjectStore(state, "agent", Agent, check=check_agent)
        self.datasources = ObjectStore(state, "datasource", Datasource, check=check_datasource)
        self.groups = ObjectStore(state, "group", Group, check=check_group)
        self.plugins = ObjectStore(state, "plugin", DeclaredPlugin, check=check_declared_plugin)
        self.teams = ObjectStore(state, "team", StoredTeam, check=check_team)
        self.team_agents = ObjectStore(state, "team-agent", StoredTeam, check=check_team)
        """Agents of team files, which triggers and people run by themselves."""
        self.triggers = ObjectStore(state, "trigger", Trigger, check=check_trigger)
        self.notifies = ObjectStore(state, "notify", Notify, check=check_notify)
        self._state = state
        self._stores: dict[str, ObjectStore[Any]] = {
            store.kind: store
            for store in (
                self.llms,
                self.apps,
                self.agents,
                self.datasources,
                self.groups,
                self.plugins,
                self.teams,
                self.team_agents,
                self.triggers,
                self.notifies,
            )
        }
        self._following = Following(
            state, PREFIX, f"{PREFIX}~hello", what="declared objects", changed=self._heard, keep=self._keep_whole
        )
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Read all anew, without following them, in one look through the store. Raises `BackendUnavailable`."""
        async with self._loading:
            for store in self._stores.values():
                store.begin_reading()
            found: dict[str, dict[str, bytes]] = {kind: {} for kind in self._stores}
            async for key, value in self._state.scan(PREFIX):
                if (of_kind := found.get(_kind_of(key))) is not None:
                    of_kind[key] = value
            for kind, store in self._stores.items():
                await store.end_reading(found[kind])

    async def __aenter__(self) -> Self:
        """Read all and follow them. Raises `BackendUnavailable` if that takes more than a minute."""
        await self._following.begin(LOAD_LIMIT_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._following.stop()

    def _heard(self, change: StateChange) -> None:
        if (store := self._stores.get(_kind_of(change.key))) is not None:
            store.heard(change)

    async def _keep_whole(self) -> None:
        await self._following.read_again_and_again(self.load, RECONCILE_S)


def _kind_of(key: str) -> str:
    return key.removeprefix(PREFIX).partition("/")[0]
