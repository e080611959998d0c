"""The remote providers of a worker, and its connections to them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import providers
from providers import LLMProvider
from providers.remote.channel import ChannelOptions
from providers.remote.clients import InstanceClients
from providers.remote.provider import RemoteProvider
from providers.remote.tenants import tenant_id
from worker.remote_providers.directory import RemoteDirectory


class RemoteProviders:
    """Makes providers by name: a process may come and go, the provider stays and finds the ones that are there."""

    def __init__(
        self, directory: RemoteDirectory, options: ChannelOptions | None = None, shadow: Sequence[str] = ()
    ) -> None:
        """`shadow`: names of this process' providers that are remote all the same."""
        self.directory = directory
        self._shadow = frozenset(shadow)
        self._options = options
        self._clients: dict[str, InstanceClients] = {}

    def create(self, name: str) -> LLMProvider:
        """A new provider: the one of this process, else the registered one of that name, also while it has no process:
        they may be back in a moment.

        Raises `UnknownProvider`.
        """
        if self._is_remote(name):
            instances = functools.partial(self.directory.instances, name)
            return RemoteProvider(name, instances, self._options, pushes_config=False)
        return providers.create(name)

    def is_healthy(self, name: str) -> bool:
        """Whether calls to a provider lead anywhere; those of this process always may."""
        return not self._is_remote(name) or any(each.healthy for each in self.directory.instances(name))

    def why_away(self, name: str, tenant: str) -> str:
        """Why nobody takes a tenant's calls of a remote provider that is or was registered, though somebody may in a
        while; empty where waiting is no use, or needless."""
        if not (self._is_remote(name) and self.directory.is_provider(name)):
            return ""
        return self.clients(name).why_away(tenant_id(tenant))

    def _is_remote(self, name: str) -> bool:
        if name in self._shadow:
            return True
        return self.directory.is_provider(name) and name not in providers.available()

    def names(self) -> list[str]:
        """All providers that are or were registered, sorted."""
        return sorted(name for name in self.directory.known() if self.directory.is_provider(name))

    def clients(self, name: str) -> InstanceClients:
        """Connections to the processes of a plugin."""
        if name not in self._clients:
            instances = functools.partial(self.directory.instances, name)
            self._clients[name] = InstanceClients(name, instances, self._options)
        return self._clients[name]

    async def aclose(self) -> None:
        """Close these connections; providers belong to whoever made them."""
        clients, self._clients = self._clients, {}
        for each in clients.values():
            await each.aclose()
