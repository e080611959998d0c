"""Which providers there are, and which settings each understands."""

from __future__ import annotations

import inspect
from typing import Any

import providers
from providers import ConfigParam, LiveConfig, LLMProvider
from providers.remote.wire import PROVIDER
from queue_backends import StateStore
from worker.remote_providers.registry import Registry


async def known_providers(state: StateStore) -> list[str]:
    """Names of all providers that a worker could use, sorted."""
    return sorted({*providers.available(), *await _remote_names(state)})


async def params_of(state: StateStore, name: str) -> tuple[ConfigParam, ...] | None:
    """The settings that a provider understands; None if there is no provider of that name."""
    remote = await Registry(state).known_plugin(name)
    if remote is not None:
        return remote.params
    if name not in providers.available():
        return None
    provider = providers.create(name)
    try:
        return tuple(provider.describe()) if isinstance(provider, LiveConfig) else ()
    finally:
        await closed(provider)


async def _remote_names(state: StateStore) -> list[str]:
    known = await Registry(state).known()
    return [name for name, plugin in known.items() if plugin.plugin_type == PROVIDER]


async def closed(provider: LLMProvider) -> None:
    """Close a provider that has something to close."""
    close: Any = getattr(provider, "aclose", None)
    if close is not None and inspect.isawaitable(closing := close()):
        await closing
