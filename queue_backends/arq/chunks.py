"""Chunks: as on Redis, under the fence of arq's leases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_backends.arq.names import ArqKeys
from queue_backends.arq.wire import Fence, Scripts, fence_of
from queue_backends.interfaces import BackendOptions, ChunkBatch
from queue_backends.redis.chunks import Numbering, RedisChunks
from queue_backends.redis.client import RedisClient
from queue_backends.redis.pubsub import PubSubHub
from queue_backends.redis.wire import CallTable, chunk_items


class ArqChunks(RedisChunks):
    """`ChunkStream` beside an arq queue."""

    def __init__(
        self,
        client: RedisClient,
        keys: ArqKeys,
        scripts: Scripts,
        hub: PubSubHub,
        numbering: Numbering,
        options: BackendOptions,
    ) -> None:
        super().__init__(client, keys, hub, numbering, options)
        self._names = keys
        self._scripts = scripts

    async def _write(self, batches: Sequence[ChunkBatch], *, fenced: bool) -> list[int]:
        table = CallTable()
        packed = [self._packed(batch, table, fenced=fenced) for batch in batches]
        lost: list[int] = await self._scripts.call("publish", packed, table=table)
        return lost

    def _packed(self, batch: ChunkBatch, table: CallTable, *, fenced: bool) -> tuple[Any, ...]:
        delivery, task = batch.delivery, batch.delivery.task
        first_seq, cut_before, encoded = self._numbering.encode(delivery, batch.chunks)
        return (
            *(fence_of(delivery) if fenced else Fence(1, task.id, "")),
            table.position(task.stream_key) if task.stream_key else 0,
            first_seq,
            cut_before,
            chunk_items(task, batch.chunks, encoded, table),
            bool(batch.chunks) and batch.chunks[-1].is_final,
        )

    async def _traces(self, task_id: str, key: str) -> tuple[Sequence[Any], bool, bool]:
        *scores, last, ended = await self._client.pipeline(
            [
                *(("ZSCORE", lane, task_id) for lane in self._names.lanes),
                ("XREVRANGE", key, "+", "-", "COUNT", 1),
                (
                    "EXISTS",
                    self._names.result(task_id),
                ),  # last: a task that ends has its result when it leaves its queue
            ]
        )
        return last, any(score is not None for score in scores), bool(ended)
