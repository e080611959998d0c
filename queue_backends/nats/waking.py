"""Waking: a task that waits for its moment goes into its lane now."""

from __future__ import annotations

from collections.abc import Sequence

from queue_backends.interfaces import BackendOptions
from queue_backends.messages import Priority
from queue_backends.nats.entries import entry_of, own_headers, shown_task
from queue_backends.nats.ledger import Ledger, Stored
from queue_backends.nats.records import Stage, TaskRecord, decode_record, encode_record
from queue_backends.nats.repeating import until_as_expected
from queue_backends.nats.subjects import TASK_LANES, is_token
from queue_backends.nats.writes import Write


class Waker:
    """Makes delayed tasks ready, whoever else is about to."""

    def __init__(self, ledger: Ledger, options: BackendOptions) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._options = options

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Whether each was delayed, in order."""
        return [await self._wake(task_id) for task_id in ids]

    async def _wake(self, task_id: str) -> bool:
        if not is_token(task_id):
            return False
        return await until_as_expected(lambda: self._try(task_id), f"wake of task {task_id}")

    async def _try(self, task_id: str) -> bool:
        kept = await self._ledger.last(self._subjects.task(task_id), fresh=True)
        record = decode_record(kept) if kept else None
        if record is not None and record.stage is not Stage.WAITING:
            return False
        run = record.run if record else 0
        later = await self._ledger.last(self._subjects.later(task_id), fresh=True)
        if later is None or entry_of(later).run != run or await self._is_ready(task_id, run):
            return False
        await self._ledger.write_all(self._writes(task_id, later, record, kept))
        # Whoever is offered the entry from now on comes too late; deleting it only spares the trouble.
        await self._ledger.purge(later.subject, before=later.revision + 1)
        return True

    async def _is_ready(self, task_id: str, run: int) -> bool:
        """Whether somebody has put it into its lane already."""
        lanes = await self._ledger.last_of([self._subjects.lane(lane, task_id) for lane in TASK_LANES], fresh=True)
        return any(entry_of(stored).run == run for stored in lanes.values())

    def _writes(self, task_id: str, later: Stored, record: TaskRecord | None, kept: Stored | None) -> list[Write]:
        """Into its lane; and the record as it is, which fails if anybody has claimed or ended the task meanwhile."""
        lane = Priority(shown_task(task_id, later.data).priority).value
        waiting = record or TaskRecord(stage=Stage.WAITING)
        return [
            Write(self._subjects.lane(lane, task_id), later.data, expected=0, headers=own_headers(later)),
            Write(
                self._subjects.task(task_id),
                encode_record(waiting),
                expected=kept.revision if kept else 0,
                ttl_s=self._options.unfinished_ttl_s,
            ),
        ]
