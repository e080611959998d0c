"""What a lease's holder knows of its task's stream. It alone writes there, so it counts by itself; what somebody else
has written before, it reads once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from queue_backends.interfaces import BackendOptions, Delivery
from queue_backends.messages import MAX_CHUNK_CHARS, Chunk, ChunkDraft, check_chunk_size
from queue_backends.postgresql.arrays import Bytes
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.names import key_of

CUT_AT_ONCE = 16
"""The oldest chunks go when the stream is this part of its cap beyond it: not with every write."""

_encode = msgspec.json.Encoder().encode


class Stream:
    """One task's stream, as far as it was written."""

    __slots__ = ("end_byte", "next_seq", "oldest_byte", "oldest_seq")

    def __init__(self, next_seq: int = 0, end_byte: int = 0, oldest_seq: int = 0, oldest_byte: int = 0) -> None:
        self.next_seq = next_seq
        self.end_byte = end_byte
        self.oldest_seq = oldest_seq
        self.oldest_byte = oldest_byte


class Piece(NamedTuple):
    """What one write adds to a stream."""

    first_seq: int
    next_seq: int
    end_byte: int
    oldest_seq: int
    cut_seq: int | None
    """Chunks before this `seq` go; None: nothing goes."""
    cut_byte: int | None
    """So do those that end at or before this byte."""
    is_final: bool
    jsons: tuple[bytes, ...]


class Numbering:
    """The streams of the deliveries that this process holds."""

    def __init__(self, connections: Connections, queue_id: int, options: BackendOptions) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._limit = options.chunk_limit
        self._bytes = options.chunk_bytes
        self._streams: dict[tuple[str, str], Stream] = {}

    async def prepare(self, deliveries: Sequence[Delivery]) -> None:
        """Make sure that `encode` knows where these streams end."""
        unknown = [d for d in deliveries if not d.first and _key(d) not in self._streams]
        if not unknown:
            return
        keys = [key_of(delivery.task.id) for delivery in unknown]
        rows = await self._connections.execute("streams", {"queue": self._queue_id, "tasks": Bytes(keys)})
        found = {row[0]: row for row in rows}
        for delivery, key in zip(unknown, keys, strict=True):
            self.know(delivery, found.get(key))

    def know(self, delivery: Delivery, row: Sequence[Any] | None) -> None:
        """Note where a stream ends and begins, as the server has it; None: there is none yet."""
        self._streams[_key(delivery)] = Stream(*row[1:]) if row else Stream()

    def encode(self, delivery: Delivery, drafts: Sequence[ChunkDraft]) -> Piece:
        """Chunks as JSON, numbered on. Raises `ChunkTooLarge`; then nothing of that call may be written."""
        stream = self._streams.get(_key(delivery)) or _UNWRITTEN
        jsons = tuple(_json(delivery.task.id, seq, draft) for seq, draft in enumerate(drafts, stream.next_seq))
        next_seq = stream.next_seq + len(jsons)
        end_byte = stream.end_byte + sum(map(len, jsons))
        is_over = (
            next_seq - stream.oldest_seq > self._limit + self._limit // CUT_AT_ONCE
            or end_byte - stream.oldest_byte > self._bytes + self._bytes // CUT_AT_ONCE
        )
        return Piece(
            stream.next_seq,
            next_seq,
            end_byte,
            stream.oldest_seq,
            max(0, next_seq - self._limit) if is_over else None,
            max(0, end_byte - self._bytes) if is_over else None,
            bool(drafts) and drafts[-1].is_final,
            jsons,
        )

    def wrote(self, delivery: Delivery, piece: Piece, keep_from: int | None) -> None:
        """Note that a piece was written, and that only chunks from `keep_from` on are kept, if it says so."""
        if not piece.jsons:
            return
        stream = self._streams.setdefault(_key(delivery), Stream())
        stream.next_seq, stream.end_byte = piece.next_seq, piece.end_byte
        if keep_from is not None and piece.cut_byte is not None:  # of what this write itself has brought, nothing went
            begins_at = piece.end_byte - sum(map(len, piece.jsons))
            stream.oldest_seq = min(keep_from, piece.first_seq)
            stream.oldest_byte = max(stream.oldest_byte, min(piece.cut_byte, begins_at))

    def forget(self, delivery: Delivery) -> None:
        """The delivery is over."""
        self._streams.pop(_key(delivery), None)


_UNWRITTEN = Stream()


def _json(task_id: str, seq: int, draft: ChunkDraft) -> bytes:
    json = _encode(
        Chunk(
            task_id=task_id,
            seq=seq,
            type=draft.type,
            content=draft.content,
            turn=draft.turn,
            attempt=draft.attempt,
            metadata=draft.metadata,
            is_final=draft.is_final,
        )
    )
    if len(json) > MAX_CHUNK_CHARS:
        check_chunk_size(task_id, seq, len(json.decode()))
    return json


def _key(delivery: Delivery) -> tuple[str, str]:
    return delivery.entry_id, delivery.token
