"""Providers: which there are, whether they work, where calls may go and where they may not at the moment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta, Struct

from providers import AgentConfig
from worker.fleet.presence import Presence
from worker.gateway.context import Gateway
from worker.gateway.operation import Call, Operation
from worker.gateway.ops.declaring import reading
from worker.gateway.ops.provider_checks import Checked
from worker.provider_directory import ProviderEntry
from worker.providers_in_use import own_provider
from worker.routing.errors import RouteNotFound
from worker.routing.route_table import RouteTable
from worker.setting_keys import DEFAULT_PROVIDER


class ProvidersQuery(Struct, frozen=True, kw_only=True):
    """Whether to ask the providers themselves."""

    check: Annotated[
        Literal["none", "used", "all"],
        Meta(description="Which to ask, with a real but light call each; not again within 15 s"),
    ] = "none"


class ProviderView(Struct, frozen=True, kw_only=True):
    """One provider."""

    name: str
    kind: str
    version: str
    is_default: bool
    is_used: bool
    """Whether an agent, a model or a route names it."""
    details: dict[str, str]
    last_check: Checked | None
    """Null: it was not asked since this gateway began."""


class TargetView(Struct, frozen=True, kw_only=True):
    """One place where a route's calls may go."""

    name: str
    provider: str
    model: str
    weight: float
    circuits: dict[str, int]
    """How many workers see its circuit `closed`, `open` or `probing`; of those that have called it."""


class RouteView(Struct, frozen=True, kw_only=True):
    """One route."""

    name: str
    strategy: str
    targets: list[TargetView]


class Providers(Struct, frozen=True, kw_only=True):
    """Providers by name, those in use first, and all routes."""

    providers: list[ProviderView]
    routes: list[RouteView]


async def _list(call: Call) -> Providers:
    gateway = call.gateway
    checks, entries, routes = gateway.ops.checks, await gateway.ops.checks.entries(), _routes(gateway)
    used = _used(gateway, entries, routes)
    match call.query.check:
        case "used":
            await checks.check([entry.name for entry in entries if entry.name in used])
        case "all":
            await checks.check([entry.name for entry in entries])
    views = [_view(entry, checks.last(entry.name), is_used=entry.name in used) for entry in entries]
    return Providers(providers=sorted(views, key=lambda view: (not view.is_used, view.name)), routes=routes)


def _view(entry: ProviderEntry, last: Checked | None, *, is_used: bool) -> ProviderView:
    return ProviderView(
        name=entry.name,
        kind=entry.kind,
        version=entry.version,
        is_default=entry.is_default,
        is_used=is_used,
        details=entry.details,
        last_check=last,
    )


def _used(gateway: Gateway, entries: Iterable[ProviderEntry], routes: Iterable[RouteView]) -> set[str]:
    used = {entry.name for entry in entries if entry.is_default or "agents" in entry.details}
    used |= {target.provider for route in routes for target in route.targets}
    agents = [(stored.value.provider, stored.value.model) for stored in gateway.definitions.agents.all()]
    llms = [(stored.value.provider, stored.value.model) for stored in gateway.definitions.llms.all()]
    return used | {_provider_of(gateway, provider, model) for provider, model in (*agents, *llms) if provider or model}


def _routes(gateway: Gateway) -> list[RouteView]:
    table, seen = RouteTable(gateway.settings.routes, gateway.live), _circuits(gateway.ops.snapshot.workers)
    views = []
    for name in table.names():
        try:
            route = table.get(name)
        except RouteNotFound:  # a live one that says nothing, which the log tells of
            continue
        targets = []
        for target in route.targets:
            provider = _provider_of(gateway, target.provider, target.model)
            circuits = seen.get((target.provider, target.model)) or seen.get((provider, target.model)) or {}
            targets.append(
                TargetView(
                    name=target.name or f"{provider}/{target.model}",
                    provider=provider,
                    model=target.model,
                    weight=target.weight,
                    circuits=circuits,
                )
            )
        views.append(RouteView(name=name, strategy=route.strategy.value, targets=targets))
    return views


def _provider_of(gateway: Gateway, provider: str, model: str) -> str:
    return own_provider(AgentConfig(model=model, provider=provider), gateway.live.get(DEFAULT_PROVIDER) or "")


def _circuits(workers: Iterable[Presence]) -> dict[tuple[str, str], dict[str, int]]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    for worker in workers:
        for target in worker.circuits:
            counts = found.setdefault((target.provider, target.model), {})
            counts[target.circuit] = counts.get(target.circuit, 0) + 1
    return found


OPERATIONS: tuple[Operation, ...] = (
    reading("/v1/ops/providers", _list, "Providers, their health, and routes", query=ProvidersQuery, result=Providers),
)
