"""The calls of one process that wait for room in one account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from itertools import chain, islice, zip_longest
from operator import attrgetter

from worker.rate_limits.asking import Wish


class Waiter:
    """One of them, and what becomes of it."""

    __slots__ = ("give_up_at", "has_waited", "needs", "since", "tenant", "urgency", "verdict")

    def __init__(self, tenant: str, urgency: int, since: float, needs: Mapping[str, float], wait_s: float) -> None:
        self.tenant = tenant
        self.urgency = urgency
        self.since = since
        self.needs = needs
        self.give_up_at = time.monotonic() + wait_s
        self.has_waited = False
        """It was asked for, and did not get what it needs at once."""
        self.verdict: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        """None: it may be sent. A number: it shall come back in so many seconds."""

    @property
    def may_be_sent(self) -> bool:
        """Whether room was found."""
        return self.verdict.done() and self.verdict.result() is None


class WaitingCalls:
    """All of them, by id."""

    def __init__(self) -> None:
        self._waiters: dict[str, Waiter] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, call_id: str, waiter: Waiter) -> None:
        """One more."""
        self._waiters[call_id] = waiter

    def remove(self, call_id: str) -> None:
        """It waits no more, whatever the reason; harmless if it is not there."""
        self._waiters.pop(call_id, None)

    def tell(self, call_id: str, verdict: float | None) -> bool:
        """What becomes of a call; False if it has gone away meanwhile."""
        waiter = self._waiters.pop(call_id, None)
        if waiter is None or waiter.verdict.done():
            return False
        waiter.verdict.set_result(verdict)
        return True

    def note_wait(self) -> None:
        """Whoever is still here has to wait."""
        for waiter in self._waiters.values():
            waiter.has_waited = True

    def wishes(self, most: int) -> list[Wish]:
        """What they need; of more than `most`, the first of each tenant, then the second of each, and so on."""
        now = time.monotonic()
        found = [
            Wish(
                id=call_id,
                tenant=waiter.tenant,
                urgency=waiter.urgency,
                since=waiter.since,
                needs=waiter.needs,
                patience_s=max(waiter.give_up_at - now, 0.0),
            )
            for call_id, waiter in self._waiters.items()
        ]
        return _first_of_each(found, most) if len(found) > most else found


def _first_of_each(wishes: Iterable[Wish], most: int) -> list[Wish]:
    by_tenant: dict[str, list[Wish]] = {}
    for wish in sorted(wishes, key=attrgetter("urgency", "since")):
        by_tenant.setdefault(wish.tenant, []).append(wish)
    in_turns = chain.from_iterable(zip_longest(*by_tenant.values()))
    return list(islice((wish for wish in in_turns if wish is not None), most))
