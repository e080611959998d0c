"""What a memory backend keeps, shared by all backends that were opened on it."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from itertools import takewhile
from typing import NamedTuple

from msgspec import Struct

from queue_backends.errors import LeaseLost
from queue_backends.interfaces import BackendOptions, Delivery, LogEntry, Spent, StateChange
from queue_backends.messages import (
    MAX_CHUNK_CHARS,
    Chunk,
    ChunkDraft,
    DeadLetter,
    Priority,
    Task,
    TaskResult,
    check_chunk_size,
    encode_json,
)

LANES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


class Entry(Struct, kw_only=True):
    """A task in the queue, as it waits or runs."""

    id: str
    task: Task
    next_attempt: int = 0
    spent: Spent = Spent()
    deliveries: int = 0
    first: bool = True
    problem: str = ""
    """Why it cannot be read, if it cannot."""


class Lease(NamedTuple):
    """Who has an entry, and until when by the monotonic clock."""

    token: str
    expires_at: float
    holder: object
    worker: str


class Due(NamedTuple):
    """A delayed entry; `order` keeps those of the same moment in order."""

    at: float
    order: int
    entry: Entry


class Buried(NamedTuple):
    """A dead letter, and what comes back if it is requeued."""

    letter: DeadLetter
    task: Task
    next_attempt: int
    problem: str
    """Why it could not be read, if it could not."""
    is_whole: bool
    """Whether all of it is still there: what was too long is cut."""


class Stream:
    """The chunks of one task that are kept."""

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque()
        self.next_seq = 0
        self.expires_at: float | None = None
        self.ended = False
        self._sizes: deque[int] = deque()
        self._size_bytes = 0

    def add(self, chunk: Chunk, size_bytes: int) -> None:
        """Keep one more."""
        self.chunks.append(chunk)
        self._sizes.append(size_bytes)
        self._size_bytes += size_bytes
        self.next_seq += 1

    def trim(self, most_chunks: int, most_bytes: int) -> None:
        """Let the oldest go, but never the newest."""
        while len(self.chunks) > most_chunks or (self._size_bytes > most_bytes and len(self.chunks) > 1):
            self.chunks.popleft()
            self._size_bytes -= self._sizes.popleft()


class Signal:
    """Wakes everybody who waits for something to have changed."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Something has changed."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Return when something changes, or after `timeout_s`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=max(0.0, timeout_s))
        finally:
            self._waiting.discard(future)


class Store:
    """The data, and the rules that touch more than one part of it. Nothing here awaits, so each call is atomic."""

    def __init__(self) -> None:
        self.changed = Signal()
        self.ready: dict[Priority, deque[Entry]] = {lane: deque() for lane in LANES}
        self.delayed: list[Due] = []
        self.running: dict[str, tuple[Entry, Lease]] = {}
        self.results: dict[str, TaskResult] = {}
        self.ended_at: dict[str, float] = {}
        self.dead: dict[str, Buried] = {}
        """Letters by id, each with its task and the next attempt of its model calls."""
        self.streams: dict[str, Stream] = {}
        self._ended_streams: deque[tuple[float, str]] = deque()
        """The monotonic moment at which each is forgotten, in the order of their ends."""
        self.idempotency: dict[str, tuple[str, float]] = {}
        self.cancel_asked: set[str] = set()
        self.paused = False
        self.values: dict[str, tuple[bytes, float | None]] = {}
        self.logs: dict[str, dict[str, LogEntry]] = {}
        self.counters: dict[str, dict[str, int]] = {}
        self.lifetimes: dict[tuple[str, str], float] = {}
        """Kind (`log`, `counters`) and name -> the monotonic moment at which it is forgotten."""
        self.windows: dict[str, dict[str, tuple[float, int]]] = {}
        self.watchers: set[asyncio.Queue[StateChange]] = set()
        self._last_id = (0, 0)
        self._order = 0

    def new_id(self) -> str:
        """An id in the form of a Redis stream's: Unix milliseconds and a number, always rising."""
        now_ms = time.time_ns() // 1_000_000
        last_ms, last_number = self._last_id
        self._last_id = (now_ms, 0) if now_ms > last_ms else (last_ms, last_number + 1)
        return f"{self._last_id[0]}-{self._last_id[1]}"

    def put(self, entry: Entry, *, run_at: float | None = None, in_front: bool = False) -> None:
        """Make an entry ready now, or at a Unix time."""
        if run_at is not None and run_at > time.time():
            self._order += 1
            heapq.heappush(self.delayed, Due(run_at, self._order, entry))
        elif in_front:
            self.ready[Priority.HIGH].appendleft(entry)
        else:
            self.ready[entry.task.priority].append(entry)
        self.changed.notify()

    def move_due(self) -> float | None:
        """Make ready what is due and what lost its lease; returns the seconds until the next such moment."""
        now, monotonic = time.time(), time.monotonic()
        while self.delayed and self.delayed[0].at <= now:
            entry = heapq.heappop(self.delayed).entry
            self.ready[entry.task.priority].append(entry)
        for entry, lease in list(self.running.values()):
            if lease.expires_at <= monotonic:
                del self.running[entry.id]
                self.ready[Priority.HIGH].appendleft(entry)
        moments = [due.at - now for due in self.delayed[:1]]
        moments += [lease.expires_at - monotonic for _, lease in self.running.values()]
        return min(moments, default=None)

    def owned(self, delivery: Delivery) -> Entry:
        """The entry of a delivery that is still its holder's. Raises `LeaseLost`."""
        found = self.running.get(delivery.entry_id)
        if found is None or found[1].token != delivery.token or found[1].expires_at <= time.monotonic():
            raise LeaseLost(f"task {delivery.task.id} has another owner")
        return found[0]

    def finish(self, result: TaskResult, retention_s: float) -> None:
        """A task has ended."""
        self.results[result.task_id] = result
        self.ended_at[result.task_id] = time.time()
        self.cancel_asked.discard(result.task_id)
        oldest = time.time() - retention_s
        for task_id in list(takewhile(lambda ended: self.ended_at[ended] <= oldest, self.ended_at)):
            del self.ended_at[task_id]
            self.results.pop(task_id, None)
        self.changed.notify()

    def check_chunks(self, task_id: str, drafts: tuple[ChunkDraft, ...]) -> None:
        """Raise `ChunkTooLarge` if one of them is."""
        for draft in drafts:
            if draft.metadata or len(draft.content) > MAX_CHUNK_CHARS // 8:  # escaped, text grows up to six times
                _numbered(task_id, 0, draft)

    def write_chunks(self, task_id: str, drafts: tuple[ChunkDraft, ...], options: BackendOptions) -> None:
        """Number and keep chunks. Raises `ChunkTooLarge`; then nothing was written."""
        stream = self.streams.get(task_id) or Stream()
        chunks = [_numbered(task_id, seq, draft) for seq, draft in enumerate(drafts, stream.next_seq)]
        self.streams[task_id] = stream
        now = time.monotonic()
        for chunk, size_bytes in chunks:
            stream.add(chunk, size_bytes)
            if chunk.is_final:
                stream.ended = True
                stream.expires_at = now + options.chunk_retention_s
                self._ended_streams.append((stream.expires_at, task_id))
        if not stream.ended:
            stream.expires_at = now + options.unfinished_ttl_s
        stream.trim(options.chunk_limit, options.chunk_bytes)
        while self._ended_streams and self._ended_streams[0][0] <= now:
            self.stream(self._ended_streams.popleft()[1])
        self.changed.notify()

    def stream(self, task_id: str) -> Stream | None:
        """The kept chunks of a task, unless they have expired."""
        stream = self.streams.get(task_id)
        if stream is not None and stream.expires_at is not None and stream.expires_at <= time.monotonic():
            del self.streams[task_id]
            return None
        return stream

    def live_log(self, name: str) -> dict[str, LogEntry]:
        """A log's records, unless the log has outlived its time."""
        if self._is_over("log", name):
            self.logs.pop(name, None)
        return self.logs.setdefault(name, {})

    def live_counters(self, name: str) -> dict[str, int]:
        """A counter set, unless it has outlived its time."""
        if self._is_over("counters", name):
            self.counters.pop(name, None)
        return self.counters.setdefault(name, {})

    def keep(self, kind: str, name: str, keep_s: float) -> None:
        """Forget a log or counter set so long from now, unless it is kept anew before."""
        self.lifetimes[kind, name] = time.monotonic() + keep_s

    def _is_over(self, kind: str, name: str) -> bool:
        over = self.lifetimes.get((kind, name), float("inf")) <= time.monotonic()
        if over:
            del self.lifetimes[kind, name]
        return over

    def waiting(self) -> list[Entry]:
        """All entries that wait: ready ones by priority, then delayed ones."""
        return [entry for lane in LANES for entry in self.ready[lane]] + [due.entry for due in sorted(self.delayed)]

    def wake(self, task_id: str) -> bool:
        """Make a delayed task ready; says whether it was one."""
        self.move_due()
        for due in self.delayed:
            if due.entry.task.id == task_id:
                self.delayed.remove(due)
                heapq.heapify(self.delayed)
                self.put(due.entry)
                return True
        return False

    def remove_waiting(self, task_id: str) -> Entry | None:
        """Take a waiting task out."""
        for lane in self.ready.values():
            for entry in lane:
                if entry.task.id == task_id:
                    lane.remove(entry)
                    return entry
        for due in self.delayed:
            if due.entry.task.id == task_id:
                self.delayed.remove(due)
                heapq.heapify(self.delayed)
                return due.entry
        return None


def _numbered(task_id: str, seq: int, draft: ChunkDraft) -> tuple[Chunk, int]:
    """A chunk, and how many bytes it weighs."""
    chunk = Chunk(
        task_id=task_id,
        seq=seq,
        type=draft.type,
        content=draft.content,
        turn=draft.turn,
        attempt=draft.attempt,
        metadata=draft.metadata,
        is_final=draft.is_final,
    )
    json = encode_json(chunk)
    check_chunk_size(task_id, seq, len(json) if len(json) <= MAX_CHUNK_CHARS else len(json.decode()))
    return chunk, len(json)
