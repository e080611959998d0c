"""From a URL to a backend."""

from __future__ import annotations

import pytest

from queue_backends import (
    Backend,
    BackendOptions,
    UnknownBackend,
    available_backends,
    open_backend,
    register_backend,
    registry,
)
from queue_backends.memory import open_backend as open_memory
from tests.servers import Server


async def test_unknown_scheme_lists_what_there_is() -> None:
    """The error names the scheme and every scheme that can be opened."""
    with pytest.raises(UnknownBackend, match="unknown task queue backend 'carrier-pigeon'") as caught:
        await open_backend("carrier-pigeon://coop")
    for scheme in ("embedded", "memory", "redis", "rediss", "unix"):
        assert scheme in str(caught.value)


async def test_registered_scheme_wins_over_installed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last registration of a scheme is the one that is opened, with the whole URL and the options."""
    monkeypatch.setattr(registry, "_registered", {})
    seen: list[tuple[str, BackendOptions]] = []

    async def factory(url: str, options: BackendOptions) -> Backend:
        seen.append((url, options))
        return await open_memory(url, options)

    register_backend("redis", factory)
    options = BackendOptions(max_depth=7)
    async with await open_backend("redis://nowhere/1?stream=x", options):
        assert seen == [("redis://nowhere/1?stream=x", options)]
    assert available_backends().count("redis") == 1


async def test_bare_address_means_redis(valkey_server: Server) -> None:
    """ark: `host:port` without a scheme."""
    async with await open_backend(f"127.0.0.1:{valkey_server.port}") as backend:
        await backend.queue.ping()
