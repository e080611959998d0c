"""What tests of the command line share: how a command ended, and what engines and workers do to the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from queue_backends import Backend, ChunkBatch, ChunkDraft, ChunkType, Delivery


class Outcome(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Shoal = Callable[..., Outcome]
WithBackend = Callable[[Callable[[Backend], Any]], Any]


async def pull_one(backend: Backend) -> Delivery:
    """Take the next task as a worker would."""
    [delivery] = await backend.queue.pull(1, 5.0)
    return delivery


async def publish(backend: Backend, delivery: Delivery, chunks: Sequence[ChunkDraft]) -> None:
    """Write chunks as a worker would."""
    assert not await backend.chunks.publish([ChunkBatch(delivery=delivery, chunks=tuple(chunks))])


def content(text: str, *, turn: int = 0, attempt: int = 0) -> ChunkDraft:
    """A piece of an answer."""
    return ChunkDraft(type=ChunkType.CONTENT, content=text, turn=turn, attempt=attempt)


DONE = ChunkDraft(type=ChunkType.DONE, is_final=True)
