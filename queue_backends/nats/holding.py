"""The deliveries that this process holds, and what it knows of each: so that a write needs no question first."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from queue_backends.interfaces import Delivery, Spent
from queue_backends.messages import ChunkDraft
from queue_backends.nats.records import TaskRecord


class Replay:
    """What is kept of one task's chunks, message by message, as far as its writer knows; the newest always stays."""

    __slots__ = ("_limit", "_limit_bytes", "_parts", "chunks", "size_bytes")

    def __init__(self, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._parts: deque[tuple[int, int, int]] = deque()
        """Revision, chunks and bytes of each message, oldest first."""
        self.chunks = 0
        self.size_bytes = 0

    def wrote(self, revision: int, chunks: int, size_bytes: int) -> None:
        """One more message."""
        self._parts.append((revision, chunks, size_bytes))
        self.chunks += chunks
        self.size_bytes += size_bytes

    def trim_before(self) -> int:
        """Messages before this revision have to go, and are forgotten here; 0 if none has to. There is some slack, so
        that not every write costs a trim."""
        if self.chunks <= self._limit * 1.1 and self.size_bytes <= self._limit_bytes * 1.1:
            return 0
        before = 0
        while len(self._parts) > 1:
            _, chunks, size_bytes = self._parts[0]
            if self.chunks - chunks < self._limit and self.size_bytes <= self._limit_bytes:
                break
            self._parts.popleft()
            self.chunks -= chunks
            self.size_bytes -= size_bytes
            before = self._parts[0][0]
        return before


class Held:
    """One delivery."""

    __slots__ = (
        "ack_subject",
        "delivery",
        "lock",
        "next_seq",
        "record",
        "renewed_at",
        "replay",
        "revision",
        "spent",
        "unconfirmed",
    )

    def __init__(self, delivery: Delivery, record: TaskRecord, revision: int, ack_subject: str, spent: Spent) -> None:
        self.delivery = delivery
        self.record = record
        self.revision = revision
        """Of the task's record: the fence of all that is written for it."""
        self.ack_subject = ack_subject
        self.spent = spent
        self.next_seq: int | None = 0 if delivery.first else None
        """Of the next chunk; None if it has to be looked up."""
        self.unconfirmed: tuple[int, tuple[ChunkDraft, ...]] | None = None
        """Chunks that may have been written, and the first one's number."""
        self.replay: Replay | None = None
        self.renewed_at = time.monotonic()
        self.lock = asyncio.Lock()
        """Writes of one task go one after the other: the next one builds on its revision and numbers."""

    @property
    def task_id(self) -> str:
        return self.delivery.task.id


class Holdings:
    """All of them, by token. The lease renewer reads it from its own thread."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._by_task: dict[str, str] = {}

    def add(self, held: Held) -> None:
        """A task is ours from now on."""
        self._held[held.delivery.token] = held
        self._by_task[held.task_id] = held.delivery.token

    def get(self, delivery: Delivery) -> Held | None:
        """What we know of a delivery; None if it is over."""
        return self._held.get(delivery.token)

    def forget(self, delivery: Delivery) -> None:
        """It is over."""
        self._held.pop(delivery.token, None)
        if self._by_task.get(delivery.task.id) == delivery.token:
            del self._by_task[delivery.task.id]

    def holds(self, token: str) -> Held | None:
        """What we know of a delivery, by its token."""
        return self._held.get(token)

    def token_of(self, task_id: str) -> str:
        """The newest delivery of a task that is held here; empty if none is."""
        return self._by_task.get(task_id, "")
