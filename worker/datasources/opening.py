"""The data sources of a process that is no worker: a command's, or a gateway's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from providers.pricing import PriceBook
from providers.transport import Transport
from queue_backends import StateStore
from worker.call_estimates import CallEstimates
from worker.datasources.datasources import Datasources
from worker.datasources.embeddings import Embeddings
from worker.definitions import Definitions
from worker.gates import open_gates
from worker.live_settings import LiveSettings
from worker.metrics import Metrics
from worker.remote_providers import RemoteDirectory, RemoteProviders
from worker.settings import Settings
from worker.swarm_plugin.everywhere import providers_of
from worker.usage import UsageLedger


@asynccontextmanager
async def open_datasources(
    settings: Settings, state: StateStore, live: LiveSettings, definitions: Definitions
) -> AsyncIterator[Datasources]:
    """Data sources with providers of their own, until the body ends. Raises `BackendUnavailable`."""
    async with AsyncExitStack() as stack:
        directory = await stack.enter_async_context(RemoteDirectory(state))
        remote = RemoteProviders(directory, settings.plugins.channel_options(), settings.plugins.shadow)
        stack.push_async_callback(remote.aclose)
        providers = providers_of(settings, live, remote.create)
        stack.push_async_callback(providers.close)
        http = Transport()
        stack.push_async_callback(http.aclose)
        prices = PriceBook(settings.prices)
        gates = await stack.enter_async_context(
            open_gates(
                settings,
                state,
                live,
                http,
                prices=prices,
                estimates=CallEstimates(),
                metrics=Metrics(prefix=settings.metrics_prefix, namespace=settings.namespace),
                definitions=definitions,
            )
        )
        ledger = UsageLedger(keep_s=settings.usage_retention_days * 86_400.0)
        embeddings = Embeddings(providers, state, ledger, prices, gates)
        datasources = Datasources(definitions, state, embeddings)
        stack.push_async_callback(datasources.aclose)
        yield datasources
