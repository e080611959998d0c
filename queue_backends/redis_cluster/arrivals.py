"""Hearing of what comes into a partition, without taking it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from queue_backends.errors import QueueError
from queue_backends.redis_cluster.partition import Partition

BLOCK_S = 5.0
REPLY_WITHIN_S = 5.0
"""After the end of the block itself."""


class Arrivals:
    """Waits for a partition's next entry by a read that claims nothing.

    So it may go on while nobody pulls, and be given up at any moment: a blocked XREADGROUP per partition would take
    tasks that this worker has no hands for.
    """

    def __init__(self, partition: Partition, on_arrival: Callable[[], object]) -> None:
        self._partition = partition
        self._on_arrival = on_arrival
        self._waiting: asyncio.Task[None] | None = None

    @property
    def is_armed(self) -> bool:
        """Whether the next arrival will be heard of."""
        return self._waiting is not None and not self._waiting.done()

    async def arm(self) -> None:
        """Hear of whatever comes from now on. Raises `QueueError`; then nothing is heard."""
        if self.is_armed:
            return
        heads = await self._partition.client.script("heads", self._partition.keys.lanes, [])
        if not self.is_armed:
            self._waiting = asyncio.create_task(self._wait(heads), name="arrivals")

    async def _wait(self, heads: list[bytes]) -> None:
        lanes = self._partition.keys.lanes
        read = ("XREAD", "COUNT", 1, "BLOCK", round(BLOCK_S * 1000), "STREAMS", *lanes, *heads)
        try:
            arrived = await self._partition.client.command(*read, timeout_s=BLOCK_S + REPLY_WITHIN_S)
        except QueueError:
            return  # whoever pulls meets the same
        if arrived:
            self._on_arrival()

    async def close(self) -> None:
        """Hear of nothing any more."""
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait([self._waiting])
