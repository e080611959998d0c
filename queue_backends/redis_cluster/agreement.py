"""What all processes of a queue must agree upon: how many partitions it has, and how it announces."""

from __future__ import annotations

from msgspec import Struct

from queue_backends.errors import BackendMisconfigured
from queue_backends.redis_cluster.client import ClusterClient
from queue_backends.redis_cluster.url import ClusterUrl

SHARDED_SINCE = (7, 0)


class Agreement(Struct, frozen=True):
    """Stands in the hash `{q}:cluster`, written by the first process that opens the queue."""

    partitions: int
    sharded: bool
    """Channels belong to slots. A queue that began on older servers stays with ordinary ones."""


async def agree(home: ClusterClient, url: ClusterUrl) -> Agreement:
    """Take what the queue has, or decide it. Raises `BackendMisconfigured` if the URL wants another number."""
    name = f"{url.home}:cluster"
    wanted = url.partitions or 1
    channels = "sharded" if home.version >= SHARDED_SINCE else "ordinary"
    _, _, partitions, kept_channels = await home.pipeline(
        [
            ("HSETNX", name, "partitions", wanted),
            ("HSETNX", name, "channels", channels),
            ("HGET", name, "partitions"),
            ("HGET", name, "channels"),
        ]
    )
    found = int(partitions)
    if url.partitions is not None and found != url.partitions:
        raise BackendMisconfigured(
            f"queue {url.queue!r} has {found} partitions, and the URL says partitions={url.partitions}: leave that "
            f"out, write {found}, or name another queue; an empty queue forgets its number with DEL {name}"
        )
    return Agreement(found, kept_channels == b"sharded")
