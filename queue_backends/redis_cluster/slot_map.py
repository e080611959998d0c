"""Which server of a cluster is the master of which slot, as its servers tell it."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import redis.crc
import redis.exceptions

from queue_backends.redis.client import is_about_credentials, masked
from queue_backends.redis.locating import Address, LocatedConnection
from queue_backends.redis_cluster.direct import ask

ASK_WITHIN_S = 1.5
"""One server is given so long to answer; then the next one is asked."""
LOCATE_WITHIN_S = 5.0
PAUSE_S = 0.1
"""Between two questions, however many partitions want to know."""


def slot_of(key: str) -> int:
    """The slot of a key, 0 to 16383."""
    slot: int = redis.crc.key_slot(key.encode())
    return slot


class SlotRange(NamedTuple):
    """Slots from `first` to `last`, both included, and their master."""

    first: int
    last: int
    master: Address


Row = tuple[SlotRange, Sequence[Address]]
"""Slots, and all servers that hold them, the master first."""


class SlotMap:
    """Shared by all connections of a process' event loop to one cluster; asks again once somebody doubts it."""

    def __init__(self, server_url: str, seeds: Sequence[Address]) -> None:
        self._server_url = server_url
        self._seeds = tuple(seeds)
        self._known: tuple[Address, ...] = ()
        """All servers, replicas too, as last told."""
        self._ranges: list[SlotRange] = []
        self._starts: list[int] = []
        self._moved: dict[int, Address] = {}
        self._is_doubted = True
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    def twin(self) -> SlotMap:
        """Another map of the same cluster, for another event loop."""
        other = SlotMap(self._server_url, self._seeds)
        other._known = self._known
        return other

    def doubt(self) -> None:
        """Ask the servers before the next answer."""
        self._is_doubted = True

    def any_host(self) -> str:
        """Of some server: on one machine they share it, and then redirections may leave it out."""
        return (self._known or self._seeds)[0].host

    def note_moved(self, slot: int, master: Address) -> None:
        """A server has said where a slot is now. Others may have moved as well."""
        self._moved[slot] = master

    async def master_of(self, slot: int) -> Address:
        """The slot's master. Raises the driver's errors if no server tells it."""
        if self._is_doubted:
            async with asyncio.timeout(LOCATE_WITHIN_S):
                await self._ask_again()
        if slot in self._moved:
            return self._moved[slot]
        place = bisect_right(self._starts, slot) - 1
        if place < 0 or self._ranges[place].last < slot:
            self._is_doubted = True
            raise redis.exceptions.ClusterDownError(f"no server of the cluster has slot {slot}")
        return self._ranges[place].master

    async def _ask_again(self) -> None:
        async with self._asking:
            if not self._is_doubted:  # somebody else has asked meanwhile
                return
            pause_s = self._asked_at + PAUSE_S - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            self._is_doubted = False  # from here on, doubts are about what we are about to hear
            try:
                self._take(await self._first_answer())
            except BaseException:
                self._is_doubted = True
                raise
            finally:
                self._asked_at = time.monotonic()

    async def _first_answer(self) -> list[Row]:
        """What the first of the servers says that knows masters for some slots."""
        candidates = list(dict.fromkeys([*random.sample(self._known, len(self._known)), *self._seeds]))
        reason: Exception = redis.exceptions.ConnectionError("there is none")
        for address in candidates:
            try:
                async with asyncio.timeout(ASK_WITHIN_S):
                    (reply,) = await ask(self._server_url, address, ("CLUSTER", "SLOTS"))
                if isinstance(reply, Exception):
                    raise reply
            except (redis.exceptions.RedisError, OSError) as error:
                if is_about_credentials(error):
                    raise
                reason = error
                continue
            if reply:
                return _absolute(reply, address)
            reason = redis.exceptions.ClusterDownError(f"{address.host}:{address.port} knows no slots")
        shown = masked(self._server_url)
        raise type(reason)(f"no server of the cluster tells who has which slots ({shown}): {reason}") from reason

    def _take(self, rows: Sequence[Row]) -> None:
        self._ranges = sorted(ranged for ranged, _ in rows)
        self._starts = [ranged.first for ranged in self._ranges]
        self._known = tuple(dict.fromkeys(address for _, servers in rows for address in servers))
        self._moved.clear()


def _absolute(reply: Sequence[Any], asked: Address) -> list[Row]:
    """CLUSTER SLOTS' rows. A server that does not know its own name leaves it empty."""
    rows: list[Row] = []
    for first, last, *servers in reply:
        addresses = [
            Address(host.decode() if host and host != b"?" else asked.host, port) for host, port, *_ in servers
        ]
        rows.append((SlotRange(first, last, addresses[0]), addresses))
    return rows


class SlotLocator:
    """`Locator` of one slot's master."""

    def __init__(self, slots: SlotMap, slot: int) -> None:
        self.slots = slots
        self.slot = slot
        self.last: Address | None = None
        """What was told last."""

    async def locate(self) -> Address:
        """Where the slot is now."""
        self.last = await self.slots.master_of(self.slot)
        return self.last

    async def vet(self, connection: LocatedConnection) -> None:
        """Whoever is asked about a slot that it does not have says so itself."""

    def doubt(self) -> None:
        """Its address led nowhere."""
        self.slots.doubt()

    def twin(self) -> Self:
        """With a map of its own."""
        return type(self)(self.slots.twin(), self.slot)
