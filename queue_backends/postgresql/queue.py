"""`TaskQueue` on tables: a row per task while it waits or runs, leases by the server's clock."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog

from queue_backends.ending import EndsByCommit
from queue_backends.errors import BackendUnavailable, QueueError, WaitTimeout
from queue_backends.interfaces import (
    BackendOptions,
    CancelOutcome,
    Delivery,
    Outcome,
    QueueStats,
    TaskState,
    TaskStatus,
)
from queue_backends.messages import DeadLetter, Task, TaskResult
from queue_backends.postgresql.announcing import Announcer
from queue_backends.postgresql.arrays import Uuids
from queue_backends.postgresql.channels import Channel
from queue_backends.postgresql.cleaning import Cleaner
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.ending import end_waiting
from queue_backends.postgresql.foreign import QueueRow, borrowed
from queue_backends.postgresql.inspection import Inspector
from queue_backends.postgresql.listening import Hub
from queue_backends.postgresql.names import id_of
from queue_backends.postgresql.pulling import Puller
from queue_backends.postgresql.renewing import renew_leases
from queue_backends.postgresql.result_reader import ResultReader
from queue_backends.postgresql.submitting import Submitter
from queue_backends.postgresql.writing import Writer

log = structlog.get_logger(__name__)

CONTROL_RECHECK_S = 60.0
RESULT_RECHECK_S = 5.0
"""`wait` looks this often by itself, in case an announcement was lost on the way."""


class PostgresqlQueue(EndsByCommit):
    """`TaskQueue` on PostgreSQL."""

    def __init__(
        self,
        connections: Connections,
        queue: QueueRow,
        hub: Hub,
        writer: Writer,
        announcer: Announcer,
        cleaner: Cleaner,
        options: BackendOptions,
    ) -> None:
        self._connections = connections
        self._queue = queue
        queue_id = self._queue_id = queue.id
        self._hub = hub
        self._writer = writer
        self._announcer = announcer
        self._cleaner = cleaner
        self._options = options
        self._to_cancel: asyncio.Queue[str] = asyncio.Queue()
        self._submitter = Submitter(connections, queue_id, announcer, options)
        self._puller = Puller(connections, queue_id, hub, writer, options, self._to_cancel.put_nowait)
        self._inspector = Inspector(connections, queue_id, options)
        self._reader = ResultReader(self._inspector)

    @property
    def consumer(self) -> str:
        """This process' name among the workers."""
        return self._puller.consumer

    # Engines

    async def submit(self, task: Task, *, run_at: float | None = None, connection: Any = None) -> str:
        """Accept one task; with `connection`, as `submit_in` does."""
        if connection is not None:
            return (await self.submit_in(connection, [task], run_at=run_at))[0]
        self._cleaner.wrote()
        return await self._submitter.submit(task, run_at)

    async def submit_many(
        self, tasks: Sequence[Task], *, run_at: float | None = None, connection: Any = None
    ) -> list[str]:
        """Accept several tasks, a few hundred per statement; with `connection`, as `submit_in` does."""
        if connection is not None:
            return await self.submit_in(connection, tasks, run_at=run_at)
        self._cleaner.wrote()
        return await self._submitter.submit_many(tasks, run_at)

    async def submit_in(self, connection: Any, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """Accept tasks as part of the transaction on `connection`: a psycopg `AsyncConnection`, or an SQLAlchemy
        `AsyncConnection` or `AsyncSession` on one. They exist if it is committed, and that wakes workers.

        Raises `InvalidTask`, `QueueFull` or `BackendMisconfigured`; then nothing was done. A failure of the server
        is psycopg's own error: the transaction is the caller's.
        """
        entries = self._submitter.checked(tasks, run_at)
        if not entries:
            return []
        self._cleaner.wrote()
        async with borrowed(connection, self._queue, self._connections.address) as own:
            return await self._submitter.add_in(own, entries)

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """Results, in the order of `ids`."""
        return await self._inspector.results(ids)

    async def wait(self, task_id: str, timeout_s: float) -> TaskResult:
        """The result, as soon as its task's end is announced."""
        try:
            async with asyncio.timeout(timeout_s), self._hub.listen(Channel.DONE, task_id) as inbox:
                while True:
                    if found := await self._result_if_reachable(task_id):
                        return found
                    await inbox.get(RESULT_RECHECK_S)
                    if inbox.closed:
                        raise BackendUnavailable(f"the backend was closed while somebody waited for task {task_id}")
        except TimeoutError as error:
            raise WaitTimeout(f"task {task_id} has no result after {timeout_s} s: wait again, or cancel it") from error

    async def _result_if_reachable(self, task_id: str) -> TaskResult | None:
        """A server that is away meanwhile is no reason to stop waiting: once it is back, the inbox says so."""
        try:
            return await self._reader.read(task_id)
        except BackendUnavailable:
            return None

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        """End tasks: those that wait in one transaction each, with result and final chunk."""
        return [await self._cancel(task_id) for task_id in ids]

    async def _cancel(self, task_id: str) -> CancelOutcome:
        work = functools.partial(end_waiting, writer=self._writer, queue_id=self._queue_id, task_id=task_id)
        outcome, jsons = await self._connections.work(work)
        if outcome is CancelOutcome.CANCELLED:
            self._announcer.chunks(task_id, jsons)
            self._announcer.done(task_id)
        elif outcome is CancelOutcome.REQUESTED:
            self._announcer.control(f"cancel {task_id}")
        return outcome

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Make delayed tasks ready, and tell those who wait for work."""
        known = {found: text for text in ids if (found := id_of(text)) is not None}
        if not known:
            return [False] * len(ids)
        rows = await self._connections.execute("wake", {"queue": self._queue_id, "ids": Uuids(list(known))})
        woken = {known[row[0]] for row in rows}
        if woken:
            self._announcer.work()
        return [text in woken and ids.index(text) == place for place, text in enumerate(ids)]

    # Workers

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks: what is there at once, else the first that comes."""
        self._cleaner.start()
        return await self._puller.pull(limit, wait_s)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those of deliveries that wait here for the next pull, too."""
        held = [*deliveries, *self.waiting()]
        lost, cancelled = await renew_leases(self._connections, self._queue_id, self._options, held)
        for task_id in cancelled:
            self._to_cancel.put_nowait(task_id)
        self.forget(lost)
        ours = {id(delivery) for delivery in deliveries}
        return [delivery for delivery in lost if id(delivery) in ours]

    def waiting(self) -> tuple[Delivery, ...]:
        """Deliveries that the next pull will hand out. May be called from another thread."""
        return tuple(self._puller.surplus)

    def forget(self, lost: Sequence[Delivery]) -> None:
        """These are somebody else's now."""
        if not lost:
            return
        gone = {(delivery.entry_id, delivery.token) for delivery in lost}
        for delivery in lost:
            self._writer.drop(delivery)
        kept = [delivery for delivery in self._puller.surplus if (delivery.entry_id, delivery.token) not in gone]
        self._puller.surplus = deque(kept)

    async def _commit(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return await self._writer.commit(outcomes)

    async def cancellations(self) -> AsyncIterator[str]:
        """Announced ones, and those that renewals and pulls came upon."""
        listening = asyncio.create_task(self._listen_control(), name="queue control listener")
        try:
            while True:
                yield await self._to_cancel.get()
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _listen_control(self) -> None:
        while True:
            try:
                async with self._hub.listen(Channel.CONTROL) as inbox:
                    while not inbox.closed:
                        verb, _, task_id = str(await inbox.get(CONTROL_RECHECK_S) or "").partition(" ")
                        if verb == "cancel":
                            self._to_cancel.put_nowait(task_id)
                    return
            except BackendUnavailable:
                continue  # it has waited long enough by itself; renewals see cancellations meanwhile

    # Operators

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task."""
        return await self._inspector.status(ids)

    async def list_tasks(self, *, limit: int = 50, states: Sequence[TaskState] = ()) -> list[TaskStatus]:
        """Tasks by state."""
        return await self._inspector.list_tasks(limit, states)

    async def stats(self) -> QueueStats:
        """The queue's figures now."""
        return await self._inspector.stats()

    async def dead_letters(self, *, limit: int = 50) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return await self._inspector.dead_letters(limit)

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """Bring letters back."""
        brought_back = []
        for letter in _numbers(letter_ids):
            rows = await self._connections.execute("requeue", {"queue": self._queue_id, "letter": letter})
            brought_back += [str(row[0]) for row in rows]
        if brought_back:
            self._announcer.work()
        return brought_back

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Delete letters."""
        return await self._inspector.purge(_numbers(letter_ids))

    async def pause(self) -> None:
        """Deliver nothing any more."""
        await self._connections.execute("pause", {"queue": self._queue_id, "paused": True})

    async def resume(self) -> None:
        """Deliver again."""
        await self._connections.execute("pause", {"queue": self._queue_id, "paused": False})
        self._announcer.work()

    async def ping(self) -> None:
        """Return if the server answers."""
        await self._connections.execute("ping", {}, timeout_s=5)

    async def close(self) -> None:
        """Give back what no run ever saw. Deliveries still held are left to their leases."""
        try:
            await self._submitter.close()
            await self._puller.leave()
        except QueueError as error:
            log.warning("could not say goodbye to the queue", error=str(error))
        finally:
            await self._puller.close()
            await self._reader.close()


def _numbers(letter_ids: Sequence[str]) -> list[int]:
    """Ids of letters that can be ours."""
    return [int(text) for text in letter_ids if text.isascii() and text.isdigit() and len(text) < 19]
