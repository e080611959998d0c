"""Keeping leases in all partitions, from the queue's own loop or from a thread beside it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from queue_backends.interfaces import Delivery, LeaseRenewer
from queue_backends.redis_cluster.ids import Ids

Renew = Callable[[list[Delivery]], Awaitable[list[Delivery]]]


async def renew_all(ids: Ids, deliveries: Sequence[Delivery], renew: Mapping[int, Renew]) -> list[Delivery]:
    """Renew in every partition at once, those too of which nothing is given: deliveries may wait there for a pull.

    Returns those that are lost, in input order. A partition that is away costs the others nothing: its error is raised
    when they are done.
    """
    inner: dict[int, list[Delivery]] = defaultdict(list)
    outer: dict[int, Delivery] = {}
    for delivery in deliveries:
        number = ids.partition_of(delivery)
        own = ids.inside(delivery)
        inner[number].append(own)
        outer[id(own)] = delivery
    replies = await asyncio.gather(*(one(inner[number]) for number, one in renew.items()), return_exceptions=True)
    lost: list[Delivery] = []
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
        lost += [outer[id(own)] for own in reply if id(own) in outer]
    if len(lost) < 2:
        return lost
    gone = {id(delivery) for delivery in lost}
    return [delivery for delivery in deliveries if id(delivery) in gone]


class ShardedRenewer:
    """`LeaseRenewer` over partitions."""

    def __init__(self, renewers: Mapping[int, LeaseRenewer], ids: Ids) -> None:
        self._renewers = renewers
        self._ids = ids

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases."""
        return await renew_all(self._ids, deliveries, {number: one.renew for number, one in self._renewers.items()})

    async def cancel_requests(self) -> list[str]:
        """What was asked in any partition that can be reached; a request is told once, so that none may get lost
        because another partition is away. Raises if all are."""
        answers = await asyncio.gather(
            *(one.cancel_requests() for one in self._renewers.values()), return_exceptions=True
        )
        found: list[str] = []
        errors: list[BaseException] = []
        for number, answer in zip(self._renewers, answers, strict=True):
            if isinstance(answer, BaseException):
                errors.append(answer)
            else:
                found += [self._ids.public(number, name) for name in answer]
        if len(errors) == len(answers):
            raise errors[0]
        return found

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(one.close() for one in self._renewers.values()))
