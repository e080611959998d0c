"""`postgresql://` and `postgres://`: queue, chunks and state in one PostgreSQL database."""

from __future__ import annotations

from queue_backends.errors import BackendMisconfigured
from queue_backends.interfaces import Backend, BackendOptions

__all__ = ["open_backend"]


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """Connect to the database of `url`. Raises `BackendUnavailable` or `BackendMisconfigured`."""
    try:
        from queue_backends.postgresql.backend import open_database
    except ImportError as error:
        raise BackendMisconfigured(
            f"postgresql:// cannot be used: {error}: install its extra, shoal[postgresql]"
        ) from error
    return await open_database(url, options)
