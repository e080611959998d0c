"""`nats://` and `nats+tls://`: queue, chunks and state on NATS JetStream."""

from __future__ import annotations

import importlib.util

from queue_backends.errors import BackendMisconfigured
from queue_backends.interfaces import Backend, BackendOptions

__all__ = ["open_backend"]


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """Connect to the servers of `url`. Raises `BackendUnavailable` or `BackendMisconfigured`."""
    if importlib.util.find_spec("nats") is None:
        raise BackendMisconfigured("queue backend 'nats' needs the package nats-py: pip install \"shoal[nats]\"")
    from queue_backends.nats.backend import open_backend as open_nats  # the driver is loaded by who uses it

    return await open_nats(url, options)
