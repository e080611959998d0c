"""Looking at a queue without changing it: states, figures, results, dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from queue_backends.errors import InvalidTask
from queue_backends.interfaces import BackendOptions, QueueStats, TaskState, TaskStatus
from queue_backends.messages import DeadLetter, Task, TaskResult
from queue_backends.postgresql.arrays import Ints, Uuids
from queue_backends.postgresql.connections import Connections
from queue_backends.postgresql.names import id_of
from queue_backends.postgresql.rows import LANES, TaskRow, decode_entry, decode_result, state_of, task_of

_LIVE = (TaskState.READY, TaskState.RUNNING, TaskState.DELAYED)
"""By the numbers that the table has for them."""
_ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
_ORDER = (TaskState.RUNNING, TaskState.READY, TaskState.DELAYED)
_DELAYED_KIND, _RUNNING_KIND, _DEAD_KIND = 4, 5, 6


class Inspector:
    """Reads one queue."""

    def __init__(self, connections: Connections, queue_id: int, options: BackendOptions) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._keep_s = float(options.result_retention_s)

    async def _rows(self, statement: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        return await self._connections.execute(statement, {"queue": self._queue_id, **parameters})

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """Results that are still kept, in the order of `ids`."""
        known = _known(ids)
        if not known.items:
            return [None] * len(ids)
        rows = await self._rows("results", ids=known, keep=self._keep_s)
        found = {str(task_id): decode_result(data) for task_id, data in rows}
        return [found.get(task_id) for task_id in ids]

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task."""
        known = _known(ids)
        if not known.items:
            return [TaskStatus(id=task_id, state=TaskState.UNKNOWN) for task_id in ids]
        # Tasks first: one that ends meanwhile is found by its result, and none is in neither.
        live = {str(row[0]): _live(row) for row in await self._rows("status", ids=known)}
        ended = {str(row[0]): _ended(row[1]) for row in await self._rows("results", ids=known, keep=self._keep_s)}
        found = ended | live
        return [found.get(task_id) or TaskStatus(id=task_id, state=TaskState.UNKNOWN) for task_id in ids]

    async def list_tasks(self, limit: int, states: Sequence[TaskState]) -> list[TaskStatus]:
        """Running, ready, delayed, then ended ones, up to `limit`."""
        wanted = set(states or TaskState)
        found: list[TaskStatus] = []
        for state in _ORDER:
            if state in wanted and len(found) < limit:
                found += [_live(row) for row in await self._rows(f"list_{state}", limit=limit - len(found))]
        codes = [code for code, state in enumerate(_ENDED) if state in wanted]
        if codes and len(found) < limit:
            rows = await self._rows("list_ended", states=Ints(codes), limit=limit - len(found), keep=self._keep_s)
            found += [_ended(data) for (data,) in rows]
        return found

    async def stats(self) -> QueueStats:
        """The queue's figures: sums of few rows, and the heads of four lanes."""
        ((paused, oldest_age_s, kinds, amounts),) = await self._rows("stats")
        counts = dict(zip(kinds, amounts, strict=True))
        by_lane = [counts.get(lane, 0) for lane in range(len(LANES) + 1)]
        by_priority = dict(zip(LANES, by_lane[1:], strict=True))
        by_priority[LANES[0]] += by_lane[0]
        return QueueStats(
            ready=sum(by_lane),
            running=counts.get(_RUNNING_KIND, 0),
            delayed=counts.get(_DELAYED_KIND, 0),
            dead=counts.get(_DEAD_KIND, 0),
            ready_by_priority=by_priority,
            oldest_ready_age_s=None if oldest_age_s is None else max(0.0, oldest_age_s),
            paused=paused,
        )

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Letters, newest first."""
        return [_letter(*row) for row in await self._rows("dead_letters", limit=limit)]

    async def purge(self, letters: Sequence[int]) -> int:
        """Delete letters; returns how many there were."""
        if not letters:
            return 0
        return len(await self._rows("purge", letters=Ints(letters)))


def _known(ids: Sequence[str]) -> Uuids:
    """Ids that can be ours."""
    return Uuids([found for text in dict.fromkeys(ids) if (found := id_of(text))])


def _live(row: Sequence[Any]) -> TaskStatus:
    *_, state, worker, leased_s, due_at = row
    found = TaskRow._make((*row[:-4], False))
    is_running = _LIVE[state] is TaskState.RUNNING
    return TaskStatus(
        id=str(found.id),
        state=_LIVE[state],
        task=_readable(found, crashes=max(0, found.deliveries - is_running)),
        worker=worker or "",
        leased_s=None if leased_s is None else max(0.0, leased_s),
        due_at=due_at,
    )


def _readable(row: TaskRow, *, crashes: int) -> Task | None:
    try:
        return task_of(row, crashes=crashes)
    except InvalidTask:
        return None


def _ended(data: bytes) -> TaskStatus:
    result = decode_result(data)
    return TaskStatus(id=result.task_id, state=_ENDED[state_of(result)], result=result)


def _letter(position: int, task_id: UUID, error: bytes, entry: bytes, attempt: int, dead_at: float) -> DeadLetter:
    try:
        fields = decode_entry(entry)
    except InvalidTask:
        fields = {}
    return DeadLetter(
        id=str(position),
        task_id=str(task_id),
        error=error.decode(),
        prompt=fields.get("prompt", ""),
        attempt=attempt,
        fields=fields,
        dead_at=dead_at,
    )
