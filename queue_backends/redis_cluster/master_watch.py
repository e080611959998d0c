"""Noticing that a slot has another master, while commands still wait for the old one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import redis.exceptions

from queue_backends.redis_cluster.partition import Partition
from queue_backends.redis_cluster.slot_map import SlotMap

LOOK_EVERY_S = 2.0


class MasterWatch:
    """Asks the cluster now and then. A server that hangs, or is cut off, does not say that it was replaced: without
    this its clients would wait for every command's own time limit."""

    def __init__(self, slots: SlotMap, partitions: Sequence[Partition]) -> None:
        self._slots = slots
        self._partitions = partitions
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look until `close`."""
        self._looking = asyncio.create_task(self._run(), name="watch of the masters")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._slots.doubt()
            try:
                for partition in self._partitions:
                    used = partition.client.connected_to
                    if used is not None and used != await self._slots.master_of(partition.slot):
                        partition.client.moved()
            except (redis.exceptions.RedisError, OSError):
                continue  # nobody answers, or a slot has no master yet

    async def close(self) -> None:
        """Look no more."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait([looking])
