"""The providers of a worker, one of which may be a kubeswarm LLM plugin that serves all agents."""

from __future__ import annotations

from collections.abc import Callable

from providers import LLMProvider
from worker.live_settings import LiveSettings
from worker.providers_in_use import ProvidersInUse
from worker.settings import Settings

NAME = "grpc"


def providers_of(settings: Settings, live: LiveSettings | None, create: Callable[[str], LLMProvider]) -> ProvidersInUse:
    """Each agent's own provider, made by `create`; with `SWARM_PLUGIN_LLM_ADDR`, that plugin for all of them."""
    address = settings.llm_plugin_addr
    if not address:
        return ProvidersInUse(live, create=create)

    def create_plugin(_name: str) -> LLMProvider:
        from providers.swarm_plugin import SwarmPluginProvider

        return SwarmPluginProvider(address)

    return ProvidersInUse(live, everywhere=NAME, create=create_plugin)
