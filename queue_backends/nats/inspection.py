"""Looking at a queue: one task, lists, figures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from queue_backends.interfaces import QueueStats, TaskState, TaskStatus
from queue_backends.messages import RUN_CANCELLED, Priority, TaskResult
from queue_backends.nats.entries import entry_of, shown_task
from queue_backends.nats.holding import Holdings
from queue_backends.nats.ledger import Ledger, Stored
from queue_backends.nats.records import Stage, TaskRecord, decode_record
from queue_backends.nats.subjects import CONSUMERS, DEAD, LANES, LATER, TASK_LANES, is_token

WAITING_STATES = frozenset({TaskState.RUNNING, TaskState.READY})
ENDED_STATES = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})


class Inspector:
    """Reads; changes nothing."""

    def __init__(self, ledger: Ledger, holdings: Holdings) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._holdings = holdings

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """Results that are still kept."""
        subjects = {task_id: self._subjects.task(task_id) for task_id in ids if is_token(task_id)}
        found = await self._ledger.last_of(list(subjects.values())) if subjects else {}
        results: list[TaskResult | None] = []
        for task_id in ids:
            stored = found.get(subjects.get(task_id, ""))
            results.append(decode_record(stored).result if stored else None)
        return results

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task."""
        known = [task_id for task_id in dict.fromkeys(ids) if is_token(task_id)]
        asked = [
            subject
            for task_id in known
            for subject in (
                self._subjects.task(task_id),
                self._subjects.lane("*", task_id),
                self._subjects.later(task_id),
            )
        ]
        found = await self._ledger.last_of(asked) if asked else {}
        by_id: dict[str, list[Stored]] = {}
        for stored in found.values():
            by_id.setdefault(stored.name, []).append(stored)
        return [self._status(task_id, by_id.get(task_id, [])) for task_id in ids]

    def _status(self, task_id: str, found: Sequence[Stored]) -> TaskStatus:
        own = self._subjects.task(task_id)
        kept = next((stored for stored in found if stored.subject == own), None)
        record = decode_record(kept) if kept else None
        if record is not None and record.stage is Stage.ENDED and record.result is not None:
            return _ended(record.result)
        entries = [stored for stored in found if stored.subject != own]
        if record is not None:
            entries = [stored for stored in entries if entry_of(stored).run == record.run]
        if record is not None and kept is not None and record.stage is Stage.RUNNING:
            entry = next((stored for stored in entries if stored.revision == record.entry), None)
            return self._running(task_id, kept, record, entry)
        if not entries:
            return TaskStatus(id=task_id, state=TaskState.UNKNOWN)
        return self._waiting(max(entries, key=lambda stored: stored.revision))

    def _running(self, task_id: str, kept: Stored, record: TaskRecord, entry: Stored | None) -> TaskStatus:
        return TaskStatus(
            id=task_id,
            state=TaskState.RUNNING,
            task=shown_task(task_id, entry.data, crashes=record.crashes) if entry else None,
            worker=record.worker,
            leased_s=max(0.0, self._ledger.now() - kept.at),
        )

    def _waiting(self, entry: Stored) -> TaskStatus:
        task = shown_task(entry.name, entry.data)
        if entry.subject == self._subjects.later(entry.name):
            return TaskStatus(id=entry.name, state=TaskState.DELAYED, task=task, due_at=entry_of(entry).due_at)
        return TaskStatus(id=entry.name, state=TaskState.READY, task=task)

    async def list_tasks(self, limit: int, states: Sequence[TaskState]) -> list[TaskStatus]:
        """Tasks by state: running, ready, delayed, then ended ones, newest end first."""
        wanted = set(states or TaskState)
        found: list[TaskStatus] = []
        if wanted & WAITING_STATES:
            in_lanes = await self._in_lanes(limit, wanted)
            for state in (TaskState.RUNNING, TaskState.READY):
                found += [status for status in in_lanes if status.state is state and state in wanted]
        if TaskState.DELAYED in wanted and len(found) < limit:
            found += await self._delayed(limit - len(found))
        if wanted & ENDED_STATES and len(found) < limit:
            found += await self._newest_ends(limit - len(found), wanted)
        return found[:limit]

    async def _in_lanes(self, limit: int, wanted: set[TaskState]) -> list[TaskStatus]:
        """What lies in the lanes, in the order of delivery: delivered ones first, which are running, as a rule."""
        infos = await asyncio.gather(*(self._info(lane) for lane in TASK_LANES))
        found: list[TaskStatus] = []
        for lane, info in zip(TASK_LANES, infos, strict=True):
            delivered = int(info["delivered"]["stream_seq"])
            if TaskState.RUNNING in wanted and info["num_ack_pending"]:
                found += await self._entries(lane, 1, limit + info["num_ack_pending"], up_to=delivered)
            if TaskState.READY in wanted and info["num_pending"]:
                found += await self._entries(lane, delivered + 1, limit)
        return found

    async def _entries(self, lane: str, start: int, limit: int, *, up_to: int = 0) -> list[TaskStatus]:
        entries = await self._ledger.first(self._subjects.filter_of(lane), limit, start=start)
        if up_to:
            entries = [stored for stored in entries if stored.revision <= up_to]
        records = await self._ledger.last_of([self._subjects.task(stored.name) for stored in entries])
        known = {stored.name: stored for stored in records.values()}
        statuses = [self._status(entry.name, [entry, *_present(known.get(entry.name))]) for entry in entries]
        return [status for status in statuses if status.state in WAITING_STATES]

    async def _delayed(self, limit: int) -> list[TaskStatus]:
        entries = await self._ledger.first(self._subjects.filter_of(LATER), limit)
        statuses = [self._waiting(entry) for entry in entries]
        return sorted(statuses, key=lambda status: status.due_at or 0.0)

    async def _newest_ends(self, limit: int, wanted: set[TaskState]) -> list[TaskStatus]:
        """Records of tasks, newest first, until enough of them have ended."""
        count = limit
        while True:
            records = await self._ledger.newest(self._subjects.all_tasks, count)
            results = [decode_record(stored).result for stored in records]
            found = [_ended(result) for result in results if result is not None]
            found = [status for status in found if status.state in wanted]
            if len(found) >= limit or len(records) < count:
                return found[:limit]
            count *= 4

    async def _info(self, consumer: str) -> dict[str, Any]:
        return await self._ledger.connection.api(f"CONSUMER.INFO.{self._subjects.stream}.{consumer}")

    async def waiting(self) -> int:
        """How many tasks wait, ready or delayed."""
        infos = await asyncio.gather(*(self._info(name) for name in (LATER, *TASK_LANES)))
        return sum(int(info["num_pending"]) for info in infos) + int(infos[0]["num_ack_pending"])

    async def stats(self) -> QueueStats:
        """The queue's figures. The server keeps them: one answer for each consumer, whatever the depth."""
        infos = dict(zip(CONSUMERS, await asyncio.gather(*map(self._info, CONSUMERS)), strict=True))
        front = int(infos[TASK_LANES[0]]["num_pending"])
        ready = {Priority(lane): int(infos[lane]["num_pending"]) for lane in LANES}
        ready[Priority.HIGH] += front
        later = infos[LATER]
        return QueueStats(
            ready=sum(ready.values()),
            running=sum(int(infos[lane]["num_ack_pending"]) for lane in TASK_LANES),
            delayed=int(later["num_pending"]) + int(later["num_ack_pending"]),
            dead=int(infos[DEAD]["num_pending"]),
            ready_by_priority=ready,
            oldest_ready_age_s=await self._oldest_age_s(infos) if sum(ready.values()) else None,
            paused=any(infos[lane].get("paused", False) for lane in TASK_LANES),
        )

    async def _oldest_age_s(self, infos: dict[str, Any]) -> float | None:
        heads = await asyncio.gather(
            *(
                self._ledger.page(
                    self._subjects.filter_of(lane), start=int(infos[lane]["delivered"]["stream_seq"]) + 1, limit=1
                )
                for lane in TASK_LANES
            )
        )
        moments = [found[0].at for found, _ in heads if found]
        return max(0.0, self._ledger.now() - min(moments)) if moments else None


def _present(stored: Stored | None) -> list[Stored]:
    return [] if stored is None else [stored]


def _ended(result: TaskResult) -> TaskStatus:
    state = TaskState.SUCCEEDED if result.ok else TaskState.FAILED
    if result.error == RUN_CANCELLED:
        state = TaskState.CANCELLED
    return TaskStatus(id=result.task_id, state=state, result=result)
