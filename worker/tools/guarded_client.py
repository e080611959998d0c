"""The HTTP client that the MCP SDK is given where a guard has to look at each connection, at the very address that it
goes to. Import it only where the SDK is installed: it is made of the SDK's own HTTP library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2

from worker.errors import ToolSetupFailed
from worker.net_guard import AddressRefused, NetGuard


class GuardedClient(httpx2.AsyncClient):
    """Differs from its base by the guard alone."""

    def __init__(self, guard: NetGuard, settings: dict[str, Any]) -> None:
        """`settings` are those of the base. Raises `ToolSetupFailed` if the library cannot be guarded."""
        self._guard = guard
        super().__init__(**settings, trust_env=guard.uses_proxies)
        if not isinstance(self._transport, _GuardedTransport):
            raise ToolSetupFailed("this version of httpx2 makes connections that cannot be looked at")

    def _init_transport(self, *_: Any, **settings: Any) -> httpx2.AsyncBaseTransport:
        return _GuardedTransport(self._guard, settings["verify"], settings["limits"])


class _GuardedTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, guard: NetGuard, verify: Any, limits: httpx2.Limits) -> None:
        super().__init__(verify=verify)
        if not isinstance(self._pool, httpcore2.AsyncConnectionPool):
            raise ToolSetupFailed("this version of httpx2 makes connections that cannot be looked at")
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(verify=verify),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_GuardedNetwork(guard),
        )


class _GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Resolves names itself, and connects to addresses that the guard lets it."""

    def __init__(self, guard: NetGuard) -> None:
        self._guard = guard
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await self._guard.addresses(host, port)
        except (AddressRefused, OSError) as error:
            raise httpcore2.ConnectError(str(error)) from error
        failed: Exception = httpcore2.ConnectError(f"{host!r} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)
