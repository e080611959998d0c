"""What a worker needs to route its runs' model calls: the routes, and what it knows of their targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from providers import AgentConfig
from providers.pricing import PriceBook
from queue_backends import StateStore, Task
from worker.live_settings import LiveSettings
from worker.providers_in_use import ProvidersInUse
from worker.routing.errors import RouteNotFound
from worker.routing.route import Route
from worker.routing.route_table import RouteTable
from worker.routing.routing_metrics import RoutingMetrics
from worker.routing.run_providers import RunProviders
from worker.routing.run_router import RunRouter
from worker.routing.sessions import Sessions
from worker.routing.target_state import TargetStates

_PLUGIN = "plugin."

log = structlog.get_logger(__name__)


class Routing:
    """One per worker. Circuits, latencies and calls in flight are the worker's own; sessions are the fleet's."""

    def __init__(
        self,
        declared: Mapping[str, Route],
        *,
        live: LiveSettings | None,
        state: StateStore,
        providers: ProvidersInUse,
        prices: PriceBook,
        metrics: RoutingMetrics,
        is_healthy: Callable[[str], bool] = lambda _provider: True,
    ) -> None:
        """`is_healthy` says of a provider, by its registry name, whether calls may go there at all."""
        self.table = RouteTable(declared, live)
        self.states = TargetStates()
        self._providers = providers
        self._prices = prices
        self._metrics = metrics
        self._is_healthy = is_healthy
        self._sessions = Sessions(state)
        metrics.circuits = self._circuits
        self._forget = live.on_change(self._changed) if live is not None else lambda: None

    def begin(self, agent: AgentConfig, task: Task, *, answered_before: str = "") -> tuple[RunRouter, RunProviders]:
        """What chooses for one run, and the instances that it takes, which are to be given back at the run's end.

        Raises `RouteNotFound`.
        """
        providers = RunProviders(self._providers)
        router = RunRouter(
            self.table.get(agent.route),
            agent,
            task,
            take=providers.take,
            states=self.states,
            sessions=self._sessions,
            prices=self._prices,
            metrics=self._metrics,
            is_healthy=self._is_healthy,
            answered_before=answered_before,
        )
        return router, providers

    def say_unknown(self, agents: Sequence[AgentConfig]) -> None:
        """Name in the log the agents whose route is not there: their tasks will fail until somebody sets it."""
        for agent in agents:
            try:
                if agent.route:
                    self.table.get(agent.route)
            except RouteNotFound as error:
                log.warning("an agent's route is missing", agent=agent.name or "(default)", error=str(error))

    def close(self) -> None:
        """Follow the settings no more."""
        self._forget()

    def _changed(self, key: str, value: str | None) -> None:
        """A new key or address may be what a provider's targets have waited for."""
        if key.startswith(_PLUGIN):
            self.states.forget(key.removeprefix(_PLUGIN).partition(".")[0])

    def _circuits(self) -> list[tuple[str, str, str]]:
        return [
            (provider, model, state.breaker.circuit.value) for (provider, model, _, _), state in self.states.known()
        ]
