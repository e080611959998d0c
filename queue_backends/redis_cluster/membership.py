"""Which workers there are, and which partitions this one takes from."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from queue_backends.errors import QueueError
from queue_backends.redis.client import RedisClient
from queue_backends.redis_cluster.assignment import owned

BEAT_S = 1.0
"""So often a member says that it lives, and hears who else does."""
LIFETIME_S = 4.0
"""A member that has said nothing for so long is none any more."""
AT_REST_S = 2.0
"""Who has not pulled for so long has its hands full, or is about to end: others take its partitions meanwhile."""
MOST_AT_ONCE = 2000
"""Members times partitions: more are computed in a thread, so that no task has to wait for it."""


class Membership:
    """A worker is a member while it pulls; a process that only submits is none.

    While the members' list cannot be read, the last one known holds: an outdated share costs speed alone.
    """

    def __init__(
        self, home: RedisClient, key: str, name: str, partitions: int, on_change: Callable[[], object]
    ) -> None:
        self._home = home
        self._key = key
        self._name = name
        self._partitions = partitions
        self._on_change = on_change
        self._members: list[str] = []
        self._pulls = 0
        self._rested_since = 0.0
        self._beating: asyncio.Task[None] | None = None
        self.own: list[int] = list(range(partitions))
        """The partitions to take from; all of them until others are known."""

    @property
    def size(self) -> int:
        """How many members there are, as last heard."""
        return max(1, len(self._members))

    async def join(self) -> None:
        """Be a member from now on."""
        if self._beating is None or self._beating.done():
            with contextlib.suppress(QueueError):  # the beat tries again
                await self._beat(LIFETIME_S)
            if self._beating is None or self._beating.done():  # nobody else has joined meanwhile
                self._beating = asyncio.create_task(self._run(), name="membership")

    @contextlib.contextmanager
    def pulling(self) -> Iterator[None]:
        """While somebody pulls."""
        self._pulls += 1
        try:
            yield
        finally:
            self._pulls -= 1
            self._rested_since = time.monotonic()

    async def leave(self) -> None:
        """Be a member no longer."""
        beating, self._beating = self._beating, None
        if beating is None:
            return
        beating.cancel()
        await asyncio.wait([beating])
        with contextlib.suppress(QueueError):  # its time runs out by itself
            await self._beat(0)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            at_rest = not self._pulls and time.monotonic() - self._rested_since > AT_REST_S
            try:
                await self._beat(0 if at_rest else LIFETIME_S)
            except QueueError:
                continue
            if at_rest and not self._pulls:
                return

    async def _beat(self, lifetime_s: float) -> None:
        reply = await self._home.script(
            "members", [self._key], [self._name, round(lifetime_s * 1000)], timeout_s=BEAT_S
        )
        members = [member.decode() for member in reply]
        if members == self._members or self._name not in members:
            return
        self._members = members
        if len(members) * self._partitions > MOST_AT_ONCE:
            own = await asyncio.to_thread(owned, self._name, members, self._partitions)
        else:
            own = owned(self._name, members, self._partitions)
        if own != self.own:
            self.own = own
            self._on_change()
