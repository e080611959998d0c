"""Script calls, and the fencing token."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from queue_backends.arq.names import ArqKeys, packed_names
from queue_backends.errors import QueueError
from queue_backends.interfaces import BackendOptions, Delivery
from queue_backends.redis.client import RedisClient
from queue_backends.redis.wire import CallTable


class Fence(NamedTuple):
    """A delivery as the scripts check it. `lane` counts from 1, as Lua does."""

    lane: int
    task_id: str
    token: str


def fence_of(delivery: Delivery) -> Fence:
    """The fence of a delivery. Raises `QueueError` for a token of another backend."""
    lane = delivery.token.partition("/")[0]
    if lane not in {"1", "2", "3"}:
        raise QueueError(f"delivery token {delivery.token!r} is not one of this backend: pass deliveries it returned")
    return Fence(int(lane), delivery.task.id, delivery.token)


def consumer_of(token: str) -> str:
    """Who holds a token of ours; empty for the mark of a worker of arq's own."""
    lane, _, rest = token.partition("/")
    return rest.partition("/")[2] if lane in {"1", "2", "3"} else ""


class Scripts:
    """The scripts of one queue."""

    def __init__(self, client: RedisClient, keys: ArqKeys, options: BackendOptions) -> None:
        self._client = client
        self._names: msgspec.Raw = packed_names(keys, options)

    async def call(
        self, name: str, *payload: Any, table: CallTable | None = None, timeout_s: float | None = None
    ) -> Any:
        """A script's reply; `table` has the keys and values that the payload names by their positions."""
        return await self._client.script(*self.script(name, *payload, table=table or CallTable()), timeout_s=timeout_s)

    def script(self, name: str, *payload: Any, table: CallTable) -> tuple[str, list[str], list[bytes]]:
        """A script's name, KEYS and ARGV."""
        return f"queue_backends.arq.scripts:{name}", table.names, table.arguments((self._names, *payload))

    def on(self, client: RedisClient) -> Scripts:
        """The same scripts over another client."""
        other = Scripts.__new__(Scripts)
        other._client, other._names = client, self._names  # noqa: SLF001 - our own kind
        return other
