"""Taking tasks from several partitions at once.

A worker takes from the partitions that are its own, turn and turn about. One that finds nothing there helps with the
others: at once as long as it finds something, otherwise now and then, so that a partition whose workers are busy, or
that has none for a moment, is served all the same.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence

from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.interfaces import Delivery
from queue_backends.redis.pulling import LONGEST_BLOCK_S, Idle
from queue_backends.redis_cluster.arrivals import Arrivals
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.membership import Membership
from queue_backends.redis_cluster.partition import Partition

GRACE_S = 0.05
"""So long those who answer wait for those who do not."""
ANSWER_S = 5.0
"""So long they do if nobody has found anything. A partition that is slower is not waited for again until it answers."""
SWEEP_S = 1.0
"""An idle worker looks this often at partitions that are not its own, or less often:"""
SWEEPS_PER_S = 1000.0
"""so many looks, about, all idle workers together take per second."""


class PartitionPuller:
    """Takes tasks for one worker. What was taken and handed to nobody waits in its partition's queue for the next pull,
    which has it first; renewals keep it until then."""

    def __init__(self, partitions: Sequence[Partition], ids: Ids, membership: Membership) -> None:
        self._partitions = partitions
        self._ids = ids
        self._membership = membership
        self._news = asyncio.Event()
        self._arrivals = [
            Arrivals(partition, functools.partial(self._arrived, partition.number)) for partition in partitions
        ]
        self._taking: dict[int, asyncio.Task[None]] = {}
        self._errors: dict[int, QueueError] = {}
        self._quiet_until: dict[int, float] = {}
        """Partitions that had nothing, and would have told of an arrival: they need not be asked again so soon."""
        self._filled: set[int] = set()
        """Partitions whose last take gave as much as it was asked for."""
        self._turn = 0
        self._next_sweep = 0.0

    def wake(self) -> None:
        """Something has changed: look again, everywhere."""
        self._quiet_until.clear()
        self._news.set()

    def _arrived(self, number: int) -> None:
        self._quiet_until.pop(number, None)
        self._news.set()

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks: what is there at once, else the first that comes."""
        await self._membership.join()
        with self._membership.pulling():
            deadline = time.monotonic() + wait_s
            while True:
                self._news.clear()
                is_last = time.monotonic() >= deadline
                if (found := await self._look(limit, is_last=is_last)) or is_last:
                    return found
                wait_s = max(0.001, min(deadline - time.monotonic(), LONGEST_BLOCK_S))
                if found := await self._await_some(limit, wait_s):
                    return found

    # Looking

    async def _look(self, limit: int, *, is_last: bool) -> list[Delivery]:
        """What there is now: in our own partitions, and if it is time for it, in all others."""
        if found := self._collect(limit):
            return found
        own, now = self._membership.own, time.monotonic()
        asked = own if is_last else [number for number in own if self._quiet_until.get(number, 0.0) <= now]
        await self._take_from(asked, limit)
        if found := self._collect(limit):
            return found
        others = [partition.number for partition in self._partitions if partition.number not in own]
        if others and (is_last or time.monotonic() >= self._next_sweep or all(n in self._errors for n in own)):
            await self._take_from(others, limit)
            found = self._collect(limit)
            if not found:
                pause_s = max(SWEEP_S, self._membership.size * len(others) / SWEEPS_PER_S)
                self._next_sweep = time.monotonic() + pause_s
            if found:
                return found
        self._complain()
        return []

    def _complain(self) -> None:
        """Raise if no partition can be reached, or if one refuses for a reason that does not pass."""
        errors = list(self._errors.values())
        for error in errors:
            if not isinstance(error, BackendUnavailable):
                self._errors.clear()
                raise error
        if len(errors) == len(self._partitions):
            self._errors.clear()
            raise errors[0]

    def _collect(self, limit: int) -> list[Delivery]:
        """What waits for us, from every partition in turn."""
        found: list[Delivery] = []
        for number in self._in_turn(range(len(self._partitions))):
            if len(found) < limit:
                waiting = self._partitions[number].queue.take_waiting(limit - len(found))
                found += [self._ids.outside(number, delivery) for delivery in waiting]
        return found

    def _in_turn(self, numbers: Sequence[int]) -> list[int]:
        start = self._turn % len(numbers) if numbers else 0
        return [*numbers[start:], *numbers[:start]]

    # Taking

    async def _take_from(self, numbers: Sequence[int], limit: int) -> None:
        """Take up to `limit`, an even share from each; what some do not have, others may give."""
        self._turn += 1
        waiting = [number for number in self._in_turn(numbers) if number not in self._taking]
        while waiting and (room := limit - self._ready()) > 0:
            asked, waiting = waiting[:room], waiting[room:]
            share, extra = divmod(room, len(asked))
            tasks = [self._start(number, share + (position < extra)) for position, number in enumerate(asked)]
            await self._answers(tasks)
            waiting += [number for number in asked if number in self._filled and number not in self._taking]

    def _ready(self) -> int:
        return sum(len(partition.queue.waiting()) for partition in self._partitions)

    def _start(self, number: int, share: int) -> asyncio.Task[None]:
        """A take of its own: it goes to its end whatever happens to the pull, so that what it claims is not lost."""
        self._filled.discard(number)
        task = self._taking[number] = asyncio.create_task(self._take(number, share), name="take")
        return task

    async def _take(self, number: int, share: int) -> None:
        queue, arrivals = self._partitions[number].queue, self._arrivals[number]
        would_tell = arrivals.is_armed
        try:
            taken = await queue.take(share)
        except QueueError as error:
            self._errors[number] = error
        else:
            self._errors.pop(number, None)
            if isinstance(taken, Idle):
                if would_tell and arrivals.is_armed:
                    self._quiet_until[number] = time.monotonic() + min(taken.next_due_s, LONGEST_BLOCK_S)
            else:
                queue.keep_waiting(taken)
                if len(taken) == share:
                    self._filled.add(number)
                self._news.set()
        finally:
            del self._taking[number]

    async def _answers(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        _, pending = await asyncio.wait(tasks, timeout=GRACE_S)
        if not pending or self._ready():
            return
        deadline = time.monotonic() + ANSWER_S
        while pending and not self._ready() and (left_s := deadline - time.monotonic()) > 0:
            _, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    # Waiting

    async def _await_some(self, limit: int, wait_s: float) -> list[Delivery]:
        """Until something comes, or it is time to look again; the deliveries, if they came with the news."""
        own = [number for number in self._membership.own if number not in self._taking and number not in self._errors]
        if len(own) == 1 and len(self._membership.own) == 1:
            return await self._await_one(own[0], limit, wait_s)
        unarmed = [number for number in own if not self._arrivals[number].is_armed]
        if unarmed:
            await asyncio.gather(*(self._arm(number) for number in unarmed))
            await self._take_from(unarmed, limit)  # what came before we began to hear
            if found := self._collect(limit):
                return found
        until = min((self._quiet_until.get(number, 0.0) for number in own), default=float("inf"))
        try:
            async with asyncio.timeout(max(0.001, min(wait_s, until - time.monotonic()))):
                await self._news.wait()
        except TimeoutError:
            return []
        return []

    async def _arm(self, number: int) -> None:
        try:
            await self._arrivals[number].arm()
        except QueueError as error:
            self._errors[number] = error

    async def _await_one(self, number: int, limit: int, wait_s: float) -> list[Delivery]:
        """With one partition there is nothing to choose: a read that takes, which wakes one worker for each task."""
        try:
            taken = await self._partitions[number].queue.pull(limit, wait_s)
        except QueueError as error:
            self._errors[number] = error
            return []
        return [self._ids.outside(number, delivery) for delivery in taken]

    async def close(self) -> None:
        """Take nothing more. What is under way may come to its end: it is given back with the rest."""
        await asyncio.gather(*(arrivals.close() for arrivals in self._arrivals))
        if taking := list(self._taking.values()):
            _, pending = await asyncio.wait(taking, timeout=LONGEST_BLOCK_S)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
