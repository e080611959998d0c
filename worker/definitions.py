"""Everything that people have declared, mirrored in this process: `async with Definitions(state) as declared`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from queue_backends import StateStore
from worker.agent_plugins.declared import DeclaredPlugin, check_declared_plugin
from worker.agents.checks import check_agent, check_app, check_group, check_llm
from worker.agents.model import Agent, App, Group, Llm
from worker.datasources.model import Datasource, check_datasource
from worker.objects import ObjectStore


class Definitions:
    """Agents, apps, models, data sources and access groups of the fleet, live."""

    def __init__(self, state: StateStore) -> None:
        self.llms = ObjectStore(state, "llm", Llm, check=check_llm)
        self.apps = ObjectStore(state, "app", App, check=check_app)
        self.agents = ObjectStore(state, "agent", Agent, check=check_agent)
        self.datasources = ObjectStore(state, "datasource", Datasource, check=check_datasource)
        self.groups = ObjectStore(state, "group", Group, check=check_group)
        self.plugins = ObjectStore(state, "plugin", DeclaredPlugin, check=check_declared_plugin)
        self._entered: AsyncExitStack | None = None

    async def load(self) -> None:
        """Read all anew, without following them. Raises `BackendUnavailable`."""
        for store in self._stores:
            await store.load()

    @property
    def _stores(self) -> tuple[ObjectStore[Any], ...]:
        return self.llms, self.apps, self.agents, self.datasources, self.groups, self.plugins

    async def __aenter__(self) -> Self:
        """Read all and follow them. Raises `BackendUnavailable`."""
        async with AsyncExitStack() as stack:
            for store in self._stores:
                await stack.enter_async_context(store)
            self._entered = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.aclose()
