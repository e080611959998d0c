"""Writing how runs ended, or how far they have come: one fenced step per partition, all partitions at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from msgspec import structs

from queue_backends.errors import BackendUnavailable, ChunkTooLarge
from queue_backends.interfaces import P, Progress
from queue_backends.redis_cluster.ark_lists import ArkLists, Feed
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.partition import Partition
from queue_backends.redis_cluster.slot_map import slot_of
from queue_backends.redis_cluster.state import ShardedState

T = TypeVar("T")

MOST_REMEMBERED = 10_000


class Written(Generic[T]):
    """What was written in calls that failed as a whole, because another partition was away: the caller repeats the
    call, and these must not be written twice. It repeats the same objects."""

    def __init__(self) -> None:
        self._items: OrderedDict[int, T] = OrderedDict()

    def add(self, items: Sequence[T]) -> None:
        """These were written."""
        for item in items:
            self._items[id(item)] = item  # held, so that no other object gets its id
        while len(self._items) > MOST_REMEMBERED:
            self._items.popitem(last=False)

    def without(self, items: Sequence[T]) -> list[T]:
        """Those that were not."""
        return [item for item in items if id(item) not in self._items] if self._items else list(items)

    def forget(self, items: Sequence[T]) -> None:
        """The call has succeeded: it is not repeated."""
        if self._items:
            for item in items:
                self._items.pop(id(item), None)


async def all_groups(
    groups: dict[int, list[T]], write: Callable[[int, list[T]], Awaitable[list[T]]], written: Written[T]
) -> list[T]:
    """Write each partition's group, all at once. Returns what was lost; raises if a partition is away, once all others
    are done."""
    if len(groups) == 1:
        ((number, group),) = groups.items()
        return await write(number, group)
    outcomes = await asyncio.gather(*(write(*group) for group in groups.items()), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    lost = [item for outcome in outcomes if not isinstance(outcome, BaseException) for item in outcome]
    if errors:
        gone = {id(item) for item in lost}
        for group, outcome in zip(groups.values(), outcomes, strict=True):
            if not isinstance(outcome, BaseException):
                written.add([item for item in group if id(item) not in gone])
        raise next((error for error in errors if not isinstance(error, BackendUnavailable)), errors[0])
    return lost


class ShardedCommitter:
    """Writes outcomes to the partitions of their deliveries."""

    def __init__(self, partitions: Sequence[Partition], ids: Ids, state: ShardedState, lists: ArkLists) -> None:
        self._partitions = partitions
        self._ids = ids
        self._state = state
        self._lists = lists
        self._written: Written[Progress] = Written()

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """Write them; returns those whose lease was lost, of which nothing was written."""
        groups: dict[int, list[Progress]] = defaultdict(list)
        for outcome in self._written.without(outcomes):
            groups[self._ids.partition_of(outcome.delivery)].append(outcome)
        lost = {id(outcome) for outcome in await all_groups(groups, self._commit, self._written)} if groups else set()
        self._written.forget(outcomes)
        return [outcome for outcome in outcomes if id(outcome) in lost]

    async def _commit(self, number: int, outcomes: list[Progress]) -> list[Progress]:
        partition = self._partitions[number]
        inner: list[Progress] = []
        feeds: list[Feed | None] = []
        for outcome in outcomes:
            name = outcome.delivery.task.stream_key
            is_elsewhere = bool(name) and slot_of(name) != partition.slot
            delivery = self._ids.inside(outcome.delivery, stream_key=not is_elsewhere)
            if outcome.records:
                outcome = await self._without_foreign_records(partition, outcome)
            inner.append(structs.replace(outcome, delivery=delivery))
            feeds.append(Feed(name, outcome.chunks) if is_elsewhere and outcome.chunks else None)
        try:
            gone = {id(outcome) for outcome in await partition.commit(inner)}
        except ChunkTooLarge as error:
            raise ChunkTooLarge(self._ids.reworded(number, error)) from error
        if any(feeds):
            written = [feed for feed, each in zip(feeds, inner, strict=True) if feed and id(each) not in gone]
            await self._lists.feed(written)
        return [outcome for outcome, each in zip(outcomes, inner, strict=True) if id(each) in gone]

    async def _without_foreign_records(self, partition: Partition, outcome: Progress) -> Progress:
        """Records that belong to another partition go there first, if the lease is still ours: they are known by their
        ids, so that a repetition does no harm. A worker writes none of these: all of its own name their task."""
        foreign = [record for record in outcome.records if self._state.home_of(record) != partition.number]
        if not foreign:
            return outcome
        if not await partition.queue.renew([self._ids.inside(outcome.delivery)]):
            await self._state.append_once(foreign)
        return structs.replace(outcome, records=tuple(record for record in outcome.records if record not in foreign))
