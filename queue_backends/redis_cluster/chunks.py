"""Chunks of a queue with partitions: each task's are in the partition of the task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

from msgspec import structs

from queue_backends.errors import ChunkTooLarge, ReplayTrimmed, TaskNotFound
from queue_backends.interfaces import ChunkBatch, Delivery
from queue_backends.messages import Chunk, encode_json
from queue_backends.redis_cluster.ark_lists import ArkLists, Feed
from queue_backends.redis_cluster.commit import Written, all_groups
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.merging import closing
from queue_backends.redis_cluster.partition import Partition
from queue_backends.redis_cluster.slot_map import slot_of

LARGE_CHARS = 100_000


def _is_large(batch: ChunkBatch) -> bool:
    """Whether a chunk may be close to the limit: its JSON can be several times as long as its text."""
    return any(
        len(draft.content) > LARGE_CHARS or (draft.metadata and len(encode_json(draft.metadata)) > LARGE_CHARS)
        for draft in batch.chunks
    )


class ShardedChunks:
    """`ChunkStream` on a cluster."""

    def __init__(self, partitions: Sequence[Partition], ids: Ids, lists: ArkLists) -> None:
        self._partitions = partitions
        self._ids = ids
        self._lists = lists
        self._written: Written[ChunkBatch] = Written()

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        """One step per partition, all at once."""
        groups: dict[int, list[ChunkBatch]] = defaultdict(list)
        for batch in self._written.without(batches):
            groups[self._partition_of(batch.delivery, fenced=fenced)].append(batch)

        async def write(number: int, group: list[ChunkBatch]) -> list[ChunkBatch]:
            return await self._publish(self._partitions[number], group, fenced=fenced)

        lost: list[ChunkBatch] = []
        for number in [number for number, group in groups.items() if any(map(_is_large, group))]:
            # Alone, and first: should one of its chunks be refused as too large, nothing of the call is written.
            lost += await all_groups({number: groups.pop(number)}, write, self._written)
        if groups:
            lost += await all_groups(groups, write, self._written)
        self._written.forget(batches)
        return [batch.delivery for batch in lost]

    def _partition_of(self, delivery: Delivery, *, fenced: bool) -> int:
        return self._ids.partition_of(delivery) if fenced else self._ids.place(delivery.task.id).partition

    async def _publish(self, partition: Partition, batches: list[ChunkBatch], *, fenced: bool) -> list[ChunkBatch]:
        inner: list[ChunkBatch] = []
        feeds: list[Feed | None] = []
        for batch in batches:
            name = batch.delivery.task.stream_key
            is_elsewhere = bool(name) and slot_of(name) != partition.slot
            delivery = self._ids.inside(batch.delivery, stream_key=not is_elsewhere)
            inner.append(ChunkBatch(delivery=delivery, chunks=batch.chunks))
            feeds.append(Feed(name, batch.chunks) if is_elsewhere and batch.chunks else None)
        try:
            gone = {id(delivery) for delivery in await partition.chunks.publish(inner, fenced=fenced)}
        except ChunkTooLarge as error:
            raise ChunkTooLarge(self._ids.reworded(partition.number, error)) from error
        if any(feeds):
            written = [feed for feed, each in zip(feeds, inner, strict=True) if feed and id(each.delivery) not in gone]
            await self._lists.feed(written)
        return [batch for batch, each in zip(batches, inner, strict=True) if id(each.delivery) in gone]

    async def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """Replay, then live."""
        number, name = self._ids.place(task_id)
        stream = self._partitions[number].chunks.subscribe(name, after_seq=after_seq)
        try:
            async with closing(stream):
                async for chunk in stream:
                    yield chunk if name == task_id else structs.replace(chunk, task_id=task_id)
        except ReplayTrimmed as error:
            raise ReplayTrimmed(task_id, error.first_seq) from error
        except TaskNotFound as error:
            raise TaskNotFound(self._ids.reworded(number, error)) from error

    async def close(self) -> None:
        """End all subscriptions."""
        for partition in self._partitions:
            await partition.chunks.close()
