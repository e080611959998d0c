"""ark's lists whose slot is not that of their task's partition: fed behind the task's own step, not in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import redis.exceptions
import structlog

from queue_backends.errors import QueueError
from queue_backends.interfaces import BackendOptions
from queue_backends.messages import ChunkDraft, ChunkType
from queue_backends.redis_cluster.slot_clients import SlotClients

log = structlog.get_logger(__name__)


class Feed(NamedTuple):
    """What a list shall get."""

    name: str
    chunks: Sequence[ChunkDraft]


class ArkLists:
    """Feeds lists as well as it can: what they miss is in the task's stream, and in its result.

    The task's own scripts cannot: on a cluster a script has one slot. A crash between the two steps leaves the list
    without its last pieces.
    """

    def __init__(self, clients: SlotClients, options: BackendOptions) -> None:
        self._clients = clients
        self._keep_ms = round(options.unfinished_ttl_s * 1000)

    async def feed(self, feeds: Sequence[Feed]) -> None:
        """Append the chunks' text to each list, and its end mark after a final one."""
        for name, chunks in feeds:
            texts = [chunk.content for chunk in chunks if chunk.type is ChunkType.CONTENT and chunk.content]
            is_final = bool(chunks) and chunks[-1].is_final
            if not texts and not is_final:
                continue
            try:
                client = await self._clients.of(name)
                await client.script("feed", [name], [self._keep_ms, int(is_final), *texts])
            except (QueueError, redis.exceptions.RedisError, OSError) as error:
                log.warning("a task's list misses a piece of its answer", list=name, error=str(error))
