"""From an `embedded://` URL to a backend: the folder's server, spoken to as the Redis that it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, unquote, urlsplit

from queue_backends.capabilities import Capability
from queue_backends.embedded.folder import default_data_dir
from queue_backends.embedded.server import EmbeddedServer
from queue_backends.interfaces import Backend, BackendOptions, LeaseRenewer, P
from queue_backends.temporary import Temporary


class EmbeddedBackend(Backend):
    """A Redis backend together with the hold on the server that it speaks to."""

    gaps = MappingProxyType({Capability.SHARED: "only processes of this user on this machine share the queue"})

    def __init__(self, inner: Backend, server: EmbeddedServer, *, url: str) -> None:
        super().__init__(inner.queue, inner.chunks, inner.state, url=url)
        self.gaps = MappingProxyType({**self.gaps, **inner.gaps})
        self.server = server
        self._inner = inner

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """As the Redis backend does it: in one step."""
        return await self._inner.commit(outcomes)

    def lease_renewer(self) -> LeaseRenewer | None:
        """The Redis backend's."""
        return self._inner.lease_renewer()

    async def keep_for(self, lifetime_s: float) -> None:
        """See `queue_backends.temporary`."""
        if isinstance(self._inner, Temporary):
            await self._inner.keep_for(lifetime_s)

    async def close(self) -> None:
        """Give up the connections, then the hold on the server."""
        try:
            await self._inner.close()
        finally:
            await self.server.close()


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """Open `embedded://[folder][?stream=...]`; without a folder, the user's own data folder.

    `embedded:///srv/queue` is an absolute path, `embedded://queue` is relative to the working directory, and
    `embedded://~/queue` to the home directory. The query is the Redis backend's. Raises what `EmbeddedServer.open` and
    the Redis backend raise.
    """
    from queue_backends.redis import open_backend as open_redis  # late: redis-py takes long to import

    parts = urlsplit(url)
    server = await EmbeddedServer.open(data_dir_of(url))
    try:
        query = f"?{parts.query}" if parts.query else ""
        inner = await open_redis(f"unix://{quote(os.fspath(server.socket))}{query}", options)
    except BaseException:
        await server.close()
        raise
    return EmbeddedBackend(inner, server, url=url)


def data_dir_of(url: str) -> Path:
    """The folder that an `embedded://` URL names."""
    parts = urlsplit(url)
    named = unquote(parts.netloc + parts.path)
    return Path(named).expanduser() if named else default_data_dir(os.environ)
