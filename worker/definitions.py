"""Everything that people have declared, mirrored in this process: `async with Definitions(state) as declared`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from queue_backends import StateStore
from worker.agents.model import Agent, App, Group, Llm
from worker.datasources.model import Datasource
from worker.objects import ObjectStore


class Definitions:
    """Agents, apps, models, data sources and access groups of the fleet, live."""

    def __init__(self, state: StateStore) -> None:
        self.llms = ObjectStore(state, "llm", Llm)
        self.apps = ObjectStore(state, "app", App)
        self.agents = ObjectStore(state, "agent", Agent)
        self.datasources = ObjectStore(state, "datasource", Datasource)
        self.groups = ObjectStore(state, "group", Group)
        self._entered: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        """Read all and follow them. Raises `BackendUnavailable`."""
        async with AsyncExitStack() as stack:
            for store in (self.llms, self.apps, self.agents, self.datasources, self.groups):
                await stack.enter_async_context(store)
            self._entered = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.aclose()
