"""`arq+redis://`, `arq+rediss://` and `arq+unix://`: tasks as jobs of arq, the queue library, on one Redis server.

An engine enqueues with arq's own client and gives its pool our `serializer` and `deserializer`, which this module has
without arq being installed. The backend itself needs arq.
"""

from __future__ import annotations

from queue_backends.arq.serializing import Answer, TaskFailed, UnreadableJob, deserializer, serializer
from queue_backends.errors import BackendMisconfigured
from queue_backends.interfaces import Backend, BackendOptions

__all__ = ["Answer", "TaskFailed", "UnreadableJob", "deserializer", "open_backend", "serializer"]


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """Connect to the server of `url`. Raises `BackendUnavailable`, or `BackendMisconfigured`, also where arq is
    missing."""
    try:
        from queue_backends.arq.backend import connected  # needs arq, which few have
    except ModuleNotFoundError as error:
        if error.name != "arq":
            raise
        raise BackendMisconfigured(
            "arq is not installed, which arq+redis:// needs: pip install 'shoal[arq]' (it brings redis-py 5.3)"
        ) from error
    return await connected(url, options)
