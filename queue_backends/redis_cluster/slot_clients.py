"""Clients for keys that belong to no partition: names that come from elsewhere, each in a slot of its own."""

from __future__ import annotations

import asyncio

from queue_backends.redis.locating import Address
from queue_backends.redis_cluster.client import ClusterClient
from queue_backends.redis_cluster.slot_map import SlotLocator, SlotMap, slot_of


class SlotClients:
    """One client per master, made when it is first needed."""

    def __init__(self, server_url: str, slots: SlotMap) -> None:
        self._server_url = server_url
        self._slots = slots
        self._by_master: dict[Address, ClusterClient] = {}

    async def of(self, key: str) -> ClusterClient:
        """A client of the server that has the key. Should the slot move, its commands are `BackendUnavailable` once;
        the next call gives the right one. Raises the driver's errors if nobody knows who has it."""
        slot = slot_of(key)
        master = await self._slots.master_of(slot)
        client = self._by_master.get(master)
        if client is None:
            client = self._by_master[master] = ClusterClient(self._server_url, "", SlotLocator(self._slots, slot))
        return client

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(client.close() for client in self._by_master.values()))
