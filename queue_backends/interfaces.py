"""What a queue backend promises, as three small protocols and the values they exchange.

The promise is at-least-once delivery under a lease. A pulled task is a `Delivery`: it belongs to one worker for
`lease_s` seconds by the broker's clock, and longer if renewed. When a lease runs out, any worker may receive the task
again; until one has it, a write of the former owner may succeed or be refused. The delivery's token fences all that its
holder writes: once somebody else owns the task, every write of the former owner is refused with `LeaseLost` and changes
nothing. Whoever learns that a lease is lost stops the run before its next side effect. A delivery is written through
the backend that pulled it, and ended once.

Times are seconds, moments are Unix seconds, unless a name says otherwise. Every method may raise `BackendUnavailable`;
after that the outcome of a write is unknown, and repeating it is safe: each write is idempotent under its fence or id.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Protocol, Self, TypeVar

from msgspec import Struct

from queue_backends.capabilities import Capability
from queue_backends.errors import LeaseLost
from queue_backends.messages import Chunk, ChunkDraft, DeadLetter, Priority, Task, TaskResult, TokenUsage

ATTEMPTS_PER_DELIVERY = 10
"""A delivery may use this many attempts for one turn. After one that ended without a word, numbering skips so many."""


class BackendOptions(Struct, frozen=True, kw_only=True):
    """How a backend keeps what it is given. All processes of one queue should use the same values."""

    lease_s: float = 30.0
    """How long a pulled task belongs to its worker without a renewal."""
    result_retention_s: float = 24 * 3600.0
    """How long results stay readable after a task ended."""
    chunk_retention_s: float = 3600.0
    """How long a stream can be replayed after its final chunk. An unfinished one is kept for `unfinished_ttl_s`."""
    chunk_limit: int = 10_000
    """At most about this many chunks are kept for replay, per task; the oldest go first."""
    chunk_bytes: int = 16 * 1024 * 1024
    """At most about so many bytes of chunks are kept for replay, per task; the oldest go first, the newest stays."""
    unfinished_ttl_s: float = 7 * 24 * 3600.0
    """What belongs to a task that nobody finishes disappears this long after its last write."""
    idempotency_retention_s: float = 24 * 3600.0
    max_depth: int = 0
    """With more than this many tasks waiting, submit raises `QueueFull`. 0 means no limit."""
    dead_limit: int = 100_000
    """At most about this many dead letters are kept; the oldest go first."""
    max_prompt_bytes: int = 8 * 1024 * 1024
    max_deliveries: int = 3
    """After this many deliveries that ended without an answer (their worker died), the task counts as poison."""
    consumer: str = ""
    """This process' name among the workers, a unique suffix is added. Empty: the host name."""


class Delivery(Struct, frozen=True, kw_only=True):
    """A task in the hands of one worker. Only its holder can ack, nack, renew or publish for it."""

    task: Task
    entry_id: str
    """The backend's own address of what was delivered; differs from `task.id` after a retry."""
    token: str
    """The fencing token: together with `entry_id` unique to this delivery."""
    redeliveries: int = 0
    """How many earlier deliveries of this entry ended without an answer."""
    first: bool = True
    """True only if no worker ever had this task before, so that nothing of it can have been written yet."""
    next_attempt: int = 0
    """From here on this delivery numbers the attempts of its model calls; higher than any that was used before."""
    worker: str = ""
    """Who holds it, by the name that `TaskStatus.worker` shows."""


class LogRecord(Struct, frozen=True, kw_only=True):
    """A value to be appended to a log once, and what to count when it is new."""

    log: str
    id: str
    value: bytes
    keep_s: float
    """How long the record is kept at least; a log without new records disappears after this time."""
    counters: Mapping[str, Mapping[str, int]] = {}
    """Counter set -> field -> amount to add, in the same step, if and only if the record is new."""
    is_last: bool = False
    """Hardly anything follows it in its log: an engine may keep a log cheaply that is nothing but its last record."""


class Ack(Struct, frozen=True, kw_only=True):
    """The task has ended; a result with an error (a cancelled run, say) is one too."""

    delivery: Delivery
    result: TaskResult
    chunks: tuple[ChunkDraft, ...] = ()
    """Chunks not yet published, in order, the final one last."""
    records: tuple[LogRecord, ...] = ()


class Spent(Struct, frozen=True, kw_only=True):
    """What a task has used so far, over all its runs."""

    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    """None: not known."""


class Retry(Struct, frozen=True, kw_only=True):
    """The attempt failed; the task is tried again after `retry_in_s`, with `attempt` one higher."""

    delivery: Delivery
    error: str
    retry_in_s: float = 0.0
    counts: bool = True
    """False: nothing failed. The task waits for `retry_in_s` and comes back with the same `attempt`."""
    next_attempt: int = 0
    """One more than the highest attempt that was used for a model call."""
    spent: Spent | None = None
    """Stands in the task's result if it is cancelled while it waits. None: as before."""
    chunks: tuple[ChunkDraft, ...] = ()
    records: tuple[LogRecord, ...] = ()


class Dead(Struct, frozen=True, kw_only=True):
    """The task failed for good: its error becomes the result, and the entry goes to the dead letters."""

    delivery: Delivery
    result: TaskResult
    next_attempt: int = 0
    """As for `Retry`: counts if the letter is requeued."""
    chunks: tuple[ChunkDraft, ...] = ()
    records: tuple[LogRecord, ...] = ()


class Release(Struct, frozen=True, kw_only=True):
    """The worker gives the task back unfinished; it is ready again at once, and no attempt is counted."""

    delivery: Delivery
    next_attempt: int = 0
    """As for `Retry`."""
    spent: Spent | None = None
    """As for `Retry`."""
    chunks: tuple[ChunkDraft, ...] = ()
    records: tuple[LogRecord, ...] = ()


class Checkpoint(Struct, frozen=True, kw_only=True):
    """The run goes on: so far has it come."""

    delivery: Delivery
    chunks: tuple[ChunkDraft, ...] = ()
    """Chunks not yet published, in order; none of them final."""
    records: tuple[LogRecord, ...] = ()


Outcome = Ack | Retry | Dead | Release
Progress = Outcome | Checkpoint
"""What a worker writes of a run, under its delivery's fence: how it ended, or how far it has come."""

P = TypeVar("P", bound=Progress)


class TaskState(enum.StrEnum):
    """Where a task is."""

    READY = "ready"
    DELAYED = "delayed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """Never seen, or ended so long ago that its result has expired."""


class TaskStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the queue knows of one task."""

    id: str
    state: TaskState
    task: Task | None = None
    """Only while it waits or runs: an ended task's entry is deleted."""
    worker: str = ""
    leased_s: float | None = None
    """Seconds since the lease was taken or last renewed."""
    due_at: float | None = None
    """When a delayed task becomes ready."""
    result: TaskResult | None = None


class QueueStats(Struct, frozen=True, kw_only=True):
    """A queue's figures at one moment."""

    ready: int = 0
    running: int = 0
    delayed: int = 0
    dead: int = 0
    ready_by_priority: dict[Priority, int] = {}
    oldest_ready_age_s: float | None = None
    """How long the task at the head has waited; None if none waits."""
    paused: bool = False


class CancelOutcome(enum.StrEnum):
    """What a cancel request met."""

    CANCELLED = "cancelled"
    """It was waiting; it has ended, with result and final chunk."""
    REQUESTED = "requested"
    """It is running; its worker has been told and will end it."""
    FINISHED = "finished"
    """It had ended before; nothing changed."""
    UNKNOWN = "unknown"
    """No such task; nothing changed."""


class TaskQueue(Protocol):
    """Tasks: in, out under a lease, and their results."""

    async def submit(self, task: Task, *, run_at: float | None = None) -> str:
        """Accept one task and return its id. With `run_at`, it becomes ready at that moment.

        A task whose `idempotency_key` was submitted before is not added again: the first one's id comes back.
        Raises `InvalidTask` or `QueueFull`; then nothing was added.
        """
        ...

    async def submit_many(self, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """Accept several tasks in one round trip; ids in the order of `tasks`.

        All are checked before the first is added. `QueueFull` is decided for each call as a whole.
        """
        ...

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take up to `limit` ready tasks, the most urgent first, each with a fresh lease.

        Returns as soon as there is one; after `wait_s` without any, returns none. Tasks whose lease has run out count
        as ready. An entry that cannot be read goes to the dead letters with the reason and is never returned. While
        the queue is paused nothing is delivered.
        """
        ...

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend each lease to `lease_s` from now, in one round trip.

        Returns those that could not be renewed, in input order: their runs must stop before the next side effect.
        """
        ...

    async def ack(self, delivery: Delivery, result: TaskResult) -> None:
        """End the task with `result`. Raises `LeaseLost`."""
        ...

    async def nack(
        self,
        delivery: Delivery,
        error: str,
        *,
        retry_in_s: float | None = None,
        dead: bool = False,
        next_attempt: int = 0,
        spent: Spent | None = None,
        result: TaskResult | None = None,
        counts: bool = True,
    ) -> None:
        """Give the task back. With `retry_in_s`, the failed attempt counts (unless `counts` is false) and it is ready
        again after that time; with `dead`, it goes to the dead letters and its result is `result`, or says just
        `error`; with neither, it was merely released: ready at once, no attempt counted. `next_attempt`, `spent`: see
        `Retry`. Raises `LeaseLost`."""
        ...

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """The results of ended tasks, in the order of `ids`; None where there is none (yet, or any more)."""
        ...

    async def wait(self, task_id: str, timeout_s: float) -> TaskResult:
        """The task's result, as soon as it exists. Raises `WaitTimeout`; the task goes on."""
        ...

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        """End tasks: waiting ones at once, with the error `run cancelled`; running ones through their worker."""
        ...

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Make delayed tasks ready now; says which were delayed. Any others are left as they are, running ones too:
        whoever parks a task looks again, once it is parked, for what would have woken it.

        Where `Capability.WAKE` is a gap, none is woken: a task that waits has to look again by itself.
        """
        ...

    def cancellations(self) -> AsyncIterator[str]:
        """Ids of running tasks whose cancel was requested, from the first `anext` on. Endless."""
        ...

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task, in the order of `ids`."""
        ...

    async def list_tasks(self, *, limit: int = 50, states: Sequence[TaskState] = ()) -> list[TaskStatus]:
        """Tasks by state: running, ready, delayed, then ended ones, newest end first. Empty `states` means all."""
        ...

    async def stats(self) -> QueueStats:
        """The queue's figures now. Bounded work, whatever the depth."""
        ...

    async def dead_letters(self, *, limit: int = 50) -> list[DeadLetter]:
        """Dead letters, newest first."""
        ...

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """Bring dead letters back (same task id, attempt 0, a new chunk stream); returns their task ids.
        One whose entry was too large to be kept whole stays a letter.
        Attempts of model calls are numbered on: what was spent before stays counted."""
        ...

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Delete dead letters; returns how many there were."""
        ...

    async def pause(self) -> None:
        """Deliver nothing any more, to any worker, until `resume`. Running tasks go on."""
        ...

    async def resume(self) -> None:
        """Deliver again."""
        ...

    async def ping(self) -> None:
        """Return if the broker answers; raise `BackendUnavailable` or `BackendMisconfigured` if it does not."""
        ...

    async def close(self) -> None:
        """Give up connections. Deliveries still held are left to their leases."""
        ...


class LeaseRenewer(Protocol):
    """Keeps the leases of a queue's deliveries from a thread of its own, whatever holds up the queue's own event loop.

    It has connections of its own and belongs to the event loop that first uses it. It pulls nothing.
    """

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """As `TaskQueue.renew`, for deliveries that the queue pulled. The queue learns by itself what was lost."""
        ...

    async def cancel_requests(self) -> list[str]:
        """Ids of running tasks, of this worker or another, whose cancel was requested since this was last asked.

        One cheap command however many tasks there are: it may be asked every second. An id may come twice.
        """
        ...

    async def close(self) -> None:
        """Give up the connections."""
        ...


class ChunkBatch(Struct, frozen=True, kw_only=True):
    """Chunks of one task, in order, written under its delivery's fence."""

    delivery: Delivery
    chunks: tuple[ChunkDraft, ...]


class ChunkStream(Protocol):
    """The chunks of tasks: ordered, numbered by the backend, replayable."""

    async def publish(self, batches: Sequence[ChunkBatch], *, fenced: bool = True) -> list[Delivery]:
        """Number the chunks, keep them for replay and send them to live subscribers, in one round trip.

        Returns the deliveries whose lease is lost: nothing was written for those. Without `fenced`, leases are not
        looked at: for tasks of a queue that another engine holds, whose leases the caller has checked.
        """
        ...

    def subscribe(self, task_id: str, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """All chunks with a `seq` greater than `after_seq`: kept ones first, then live ones; no gap, no duplicate.

        Ends after the final chunk, at once if `after_seq` is at or behind it. A task that was never submitted simply
        has no chunks yet, so bound the wait. Raises `ReplayTrimmed` if the chunks asked for are no longer all kept,
        `TaskNotFound` if the task has ended and none are.
        """
        ...

    async def close(self) -> None:
        """End all subscriptions and give up connections."""
        ...


class LogEntry(Struct, frozen=True, kw_only=True):
    """A record as it is kept."""

    id: str
    value: bytes
    at: float
    """When it was appended, by the store's clock. Unix seconds."""


class LogPage(Struct, frozen=True, kw_only=True):
    """Some records of a log, and where to go on."""

    entries: tuple[LogEntry, ...] = ()
    cursor: str = ""
    """For the next call. It stays valid whatever becomes of the records before it, and means nothing elsewhere."""


class StateChange(Struct, frozen=True, kw_only=True):
    """A key was set (`value`) or deleted (None)."""

    key: str
    value: bytes | None


class StateStore(Protocol):
    """What outlives a process: keys with a lifetime, logs, counters and rolling windows."""

    async def get(self, key: str) -> bytes | None:
        """The key's value, or None."""
        ...

    async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Set a key; with `ttl_s` it disappears after that time."""
        ...

    async def delete(self, key: str) -> bool:
        """Delete a key; says whether it was there."""
        ...

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, *, ttl_s: float | None = None
    ) -> bool:
        """Set the key (delete it, if `value` is None) if it holds `expected` (None: is absent). Says whether it did."""
        ...

    def scan(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        """Keys that begin with `prefix` and their values, in no order."""
        ...

    def watch(self, prefix: str) -> AsyncIterator[StateChange]:
        """Changes of keys that begin with `prefix`, from the first `anext` on. After a lost connection the present
        value of each such key is given again. Endless."""
        ...

    async def append_once(self, records: Sequence[LogRecord]) -> int:
        """Append those records whose id their log does not have yet, add their counters; returns how many were new."""
        ...

    async def read_log(self, log: str, *, limit: int = 100, newest_first: bool = False) -> list[LogEntry]:
        """Records of one log in the order they were appended, or the newest first."""
        ...

    async def read_on(self, log: str, cursor: str = "", *, limit: int = 1000) -> LogPage:
        """The records that follow a cursor (empty: from the oldest kept one), in the order they were appended, and the
        cursor after them.

        Reading on and on gives each record once that is still kept when it is read, also while others append: none is
        passed over because it was written a little earlier and seen a little later. No entries: there are no more yet.
        """
        ...

    async def delete_log(self, log: str) -> None:
        """Forget all records of a log. What is appended later begins it anew."""
        ...

    async def counters(self, name: str) -> dict[str, int]:
        """All fields of a counter set."""
        ...

    async def add(
        self, name: str, field: str, amount: int, *, limit: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        """Add to one counter and return its new value; None, and no change, if that would exceed `limit`."""
        ...

    async def window_add(self, name: str, member: str, amount: int, *, window_s: float) -> None:
        """Note `amount` under `member`, now, in a rolling window. The same member counts once."""
        ...

    async def window_total(self, name: str, *, window_s: float) -> int:
        """The sum of what was noted in the last `window_s` seconds; what is older is dropped."""
        ...

    async def close(self) -> None:
        """Give up connections."""
        ...


class Backend:
    """A queue, a chunk stream and a state store that work together.

    Here `commit` is composed of its single steps, in an order that repeats safely. An engine that holds all three
    overrides it with one atomic step.
    """

    gaps: Mapping[Capability, str] = MappingProxyType({})
    """What this engine lacks, each with one sentence that tells its users what follows."""

    def __init__(self, queue: TaskQueue, chunks: ChunkStream, state: StateStore, *, url: str = "") -> None:
        self.queue = queue
        self.chunks = chunks
        self.state = state
        self.url = url

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """Carry out how runs ended, or how far they have come: chunks, records, result, and the entry's fate, all under
        each delivery's fence.

        Returns those whose lease was lost; of these nothing was written.
        """
        lost: list[P] = []
        for outcome in outcomes:
            try:
                await self._commit_one(outcome)
            except LeaseLost:
                lost.append(outcome)
        return lost

    async def _commit_one(self, outcome: Progress) -> None:
        delivery = outcome.delivery
        if outcome.chunks:
            batch = ChunkBatch(delivery=delivery, chunks=outcome.chunks)
            if await self.chunks.publish([batch]):
                raise LeaseLost(f"task {delivery.task.id} has another owner")
        if outcome.records or isinstance(outcome, Checkpoint):
            if await self.queue.renew([delivery]):
                raise LeaseLost(f"task {delivery.task.id} has another owner")
            await self.state.append_once(outcome.records)
        match outcome:
            case Ack(result=result):
                await self.queue.ack(delivery, result)
            case Retry(error=error, retry_in_s=retry_in_s, next_attempt=next_attempt, spent=spent, counts=counts):
                await self.queue.nack(
                    delivery, error, retry_in_s=retry_in_s, next_attempt=next_attempt, spent=spent, counts=counts
                )
            case Dead(result=result, next_attempt=next_attempt):
                await self.queue.nack(delivery, result.error, dead=True, next_attempt=next_attempt, result=result)
            case Release(next_attempt=next_attempt, spent=spent):
                await self.queue.nack(delivery, "", next_attempt=next_attempt, spent=spent)

    def lease_renewer(self) -> LeaseRenewer | None:
        """What keeps leases while this event loop is held up; to be called in it. None: this backend cannot be reached
        from another loop, and only `queue.renew` renews."""
        return None

    async def close(self) -> None:
        """Close all three."""
        await self.chunks.close()
        await self.state.close()
        await self.queue.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
