"""Whom a worker asks: providers, those in other processes too, the routes to them, and what each call has to pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from providers.transport import Transport
from queue_backends import StateStore
from worker.assembly.declared import Declared
from worker.assembly.records import Records
from worker.call_gates import CallGate
from worker.datasources.embeddings import Embeddings
from worker.gates import open_gates
from worker.providers_in_use import ProvidersInUse
from worker.remote_providers import PresenceGate, RemoteDirectory, RemoteProviders
from worker.routing.routing import Routing
from worker.settings import Settings
from worker.swarm_plugin.everywhere import providers_of


class Models(Struct, frozen=True, kw_only=True):
    """Whom a worker asks."""

    remote: RemoteProviders
    providers: ProvidersInUse
    routing: Routing
    gates: tuple[CallGate, ...]
    embeddings: Embeddings


@asynccontextmanager
async def open_models(
    settings: Settings, state: StateStore, declared: Declared, records: Records, http: Transport
) -> AsyncIterator[Models]:
    """Providers are made when the first task needs them, and closed at the end. `http` stays the caller's to close."""
    async with AsyncExitStack() as stack:
        directory = await stack.enter_async_context(RemoteDirectory(state))
        remote = RemoteProviders(directory, settings.plugins.channel_options(), settings.plugins.shadow)
        stack.push_async_callback(remote.aclose)
        providers = providers_of(settings, declared.live, remote.create)
        stack.push_async_callback(providers.close)
        routing = _routing(settings, state, declared, records, remote, providers)
        stack.callback(routing.close)
        gates = await stack.enter_async_context(
            open_gates(
                settings,
                state,
                declared.live,
                http,
                prices=records.prices,
                estimates=records.estimates,
                metrics=records.metrics,
                definitions=declared.definitions,
            )
        )
        embeddings = Embeddings(providers, state, records.ledger, records.prices, gates)
        yield Models(
            remote=remote,
            providers=providers,
            routing=routing,
            gates=(PresenceGate(remote), *gates),  # first: who waits for a provider takes up no room in the others
            embeddings=embeddings,
        )


def _routing(
    settings: Settings,
    state: StateStore,
    declared: Declared,
    records: Records,
    remote: RemoteProviders,
    providers: ProvidersInUse,
) -> Routing:
    routing = Routing(
        settings.routes,
        live=declared.live,
        state=state,
        providers=providers,
        prices=records.prices,
        metrics=records.metrics.routing,
        is_healthy=remote.is_healthy,
    )
    routing.say_unknown([settings.agent, *settings.agents.values()])
    return routing
