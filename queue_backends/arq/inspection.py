"""Looking at a queue without changing it: states, figures, dead letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from queue_backends.arq.jobs import Job, entry_fields, read_job, task_of
from queue_backends.arq.names import ArqKeys
from queue_backends.arq.results import result_of
from queue_backends.arq.wire import consumer_of
from queue_backends.errors import InvalidTask
from queue_backends.interfaces import BackendOptions, QueueStats, TaskState, TaskStatus
from queue_backends.messages import DeadLetter, Task, encode_json
from queue_backends.redis.client import RedisClient
from queue_backends.redis.entries import RawFields, pairs
from queue_backends.redis.inspection import ended, is_entry_id
from queue_backends.redis.keys import LANES

OLDEST_MOMENT_MS = 1_000_000_000_000
"""arq's `abort()` puts deferred jobs at the very front, at moment 1: that tells nothing about how long one waited."""
FOREIGN_WORKER = "arq"
PAGE = 500
MOST_LOOKED_AT = 20_000
"""Per lane, when delayed tasks are listed among running ones."""
MOST_LAPSED = 1000
"""Leases that have run out, and that nobody has taken over yet."""
_ENDED = {TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED}


class Inspection:
    """One queue, looked at."""

    def __init__(self, client: RedisClient, keys: ArqKeys, options: BackendOptions) -> None:
        self._client = client
        self._keys = keys
        self._options = options

    async def status(self, task_id: str) -> TaskStatus:
        """Where a task is."""
        keys = self._keys
        result, job, mark, tries, lease_ends, *scores, now = await self._client.pipeline(
            [
                ("GET", keys.result(task_id)),
                ("GET", keys.job(task_id)),
                ("GET", keys.progress(task_id)),
                ("GET", keys.retry(task_id)),
                ("ZSCORE", keys.running, task_id),
                *(("ZSCORE", lane, task_id) for lane in keys.lanes),
                ("TIME",),
            ]
        )
        if result:
            return ended(result_of(task_id, result))
        score = next((float(score) for score in scores if score is not None), None)
        if score is None:
            return TaskStatus(id=task_id, state=TaskState.UNKNOWN)
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
        is_running = mark is not None or lease_ends is not None
        # A waiting task's tries are all behind it, the last one of a running task is the present one.
        task = self._task(task_id, job, _count(tries) + (0 if is_running else 1))
        if is_running:
            return self._running(task_id, task, mark, lease_ends, now_ms)
        if score > now_ms:
            return TaskStatus(id=task_id, state=TaskState.DELAYED, task=task, due_at=score / 1000)
        return TaskStatus(id=task_id, state=TaskState.READY, task=task)

    def _running(
        self, task_id: str, task: Task | None, mark: bytes | None, lease_ends: bytes | None, now_ms: int
    ) -> TaskStatus:
        leased_s = None
        if lease_ends is not None:
            leased_s = max(0.0, self._options.lease_s - (float(lease_ends) - now_ms) / 1000)
        worker = consumer_of((mark or b"").decode(errors="replace")) or (FOREIGN_WORKER if mark else "")
        return TaskStatus(id=task_id, state=TaskState.RUNNING, task=task, worker=worker, leased_s=leased_s)

    def _task(self, task_id: str, data: bytes | None, tries: int) -> Task | None:
        """None for what cannot be read, as whoever pulls it will find."""
        try:
            job = read_job(data or b"")
            return task_of(task_id, job, tries=max(tries, job.job_try), max_prompt_bytes=self._options.max_prompt_bytes)
        except InvalidTask:
            return None

    async def list_tasks(self, limit: int, states: Sequence[TaskState]) -> list[TaskStatus]:
        """Running, ready, delayed, then ended ones, up to `limit`."""
        wanted = set(states or TaskState)
        found: list[TaskStatus] = []
        for state, ids in (
            (TaskState.RUNNING, self._running_ids),
            (TaskState.READY, self._ready_ids),
            (TaskState.DELAYED, self._delayed_ids),
        ):
            if state in wanted and len(found) < limit:
                found += await self._of_state({state}, await ids(limit))
        if wanted & _ENDED and len(found) < limit:
            found += await self._of_state(wanted & _ENDED, await self._ended_ids(limit))
        return found[:limit]

    async def _of_state(self, states: set[TaskState], ids: Sequence[bytes]) -> list[TaskStatus]:
        found = [await self.status(task_id.decode(errors="replace")) for task_id in ids]
        return [status for status in found if status.state in states]

    async def _running_ids(self, limit: int) -> list[bytes]:
        """Ours; those at workers of arq's own stand among the ready ones, which have no list of their own."""
        ids: list[bytes] = await self._client.command("ZRANGE", self._keys.running, 0, limit - 1)
        return ids

    async def _ready_ids(self, limit: int) -> list[bytes]:
        now = _now_ms()
        pages = await self._client.pipeline(
            [("ZRANGEBYSCORE", lane, "-inf", now, "LIMIT", 0, limit) for lane in self._keys.lanes]
        )
        return [task_id for page in pages for task_id in page]

    async def _delayed_ids(self, limit: int) -> list[bytes]:
        """Those that are due later, without the running ones among them."""
        found: list[bytes] = []
        for lane in self._keys.lanes:
            for offset in range(0, MOST_LOOKED_AT, PAGE):
                low, most = f"({_now_ms()}", min(PAGE, MOST_LOOKED_AT - offset)
                page = await self._client.command("ZRANGEBYSCORE", lane, low, "+inf", "LIMIT", offset, most)
                held = await self._client.command("ZMSCORE", self._keys.running, *page) if page else []
                found += [task_id for task_id, end in zip(page, held, strict=True) if end is None]
                if len(page) < PAGE or len(found) >= limit:
                    break
        return found[:limit]

    async def _ended_ids(self, limit: int) -> list[bytes]:
        most = max(limit * 4, 200)
        ids: list[bytes] = await self._client.command("ZREVRANGE", self._keys.results_expiry, 0, most - 1)
        return ids

    async def stats(self) -> QueueStats:
        """A queue's figures. What workers of arq's own are running counts as ready: arq's queue does not tell."""
        keys, now = self._keys, str(_now_ms())
        figures = await self._client.pipeline(
            [
                ("ZCARD", keys.running),
                ("ZRANGEBYSCORE", keys.running, "-inf", now, "LIMIT", 0, MOST_LAPSED),
                ("XLEN", keys.dead),
                ("EXISTS", keys.paused),
                *(("ZCOUNT", lane, "-inf", now) for lane in keys.lanes),
                *(("ZCOUNT", lane, f"({now}", "+inf") for lane in keys.lanes),
                *(("ZRANGEBYSCORE", lane, OLDEST_MOMENT_MS, now, "WITHSCORES", "LIMIT", 0, 1) for lane in keys.lanes),
            ]
        )
        running, lapsed, dead, paused = figures[:4]
        due, later, heads = figures[4:7], figures[7:10], figures[10:13]
        scores = [float(head[1]) for head in heads if head]
        held = await self._in_lanes(lapsed)
        ready = {lane: max(0, count - part) for lane, count, part in zip(LANES, due, held, strict=True)}
        age_s = max(0.0, time.time() - min(scores) / 1000) if scores else 0.0
        return QueueStats(
            ready=sum(ready.values()),
            running=running,
            delayed=max(0, sum(later) - (running - len(lapsed))),
            dead=dead,
            ready_by_priority=ready,
            oldest_ready_age_s=age_s if any(ready.values()) else None,
            paused=bool(paused),
        )

    async def _in_lanes(self, ids: Sequence[bytes]) -> list[int]:
        """How many of these are in each lane: tasks that are due and yet running, until somebody takes them over."""
        if not ids:
            return [0] * len(LANES)
        pages = await self._client.pipeline([("ZMSCORE", lane, *ids) for lane in self._keys.lanes])
        return [sum(score is not None for score in page) for page in pages]

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Letters, newest first."""
        return [
            _letter(*entry)
            for entry in await self._client.command("XREVRANGE", self._keys.dead, "+", "-", "COUNT", limit)
        ]

    async def letters_by_id(self, ids: Sequence[str]) -> list[DeadLetter]:
        """Those letters that are there."""
        good = [letter_id for letter_id in ids if is_entry_id(letter_id)]
        pages = await self._client.pipeline([("XRANGE", self._keys.dead, each, each) for each in good]) if good else []
        return [_letter(*entry) for page in pages for entry in page]


def _letter(letter_id: bytes, raw: RawFields) -> DeadLetter:
    fields: dict[bytes, Any] = dict(pairs(raw))
    text = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
    return DeadLetter(
        id=letter_id.decode(),
        task_id=text.get("task_id", ""),
        error=text.get("error", ""),
        prompt=text.get("prompt", ""),
        attempt=_count(fields.get(b"attempt")),
        fields=_job_fields(fields.get(b"job", b"")),
        dead_at=int(letter_id.partition(b"-")[0]) / 1000,
    )


def _job_fields(data: bytes) -> dict[str, str]:
    """What the job says; of one that is none of ours its function and arguments, of a pickle nothing."""
    try:
        job = read_job(data)
    except InvalidTask:
        return {}
    try:
        return entry_fields(job)
    except InvalidTask:
        return _bare(job)


def _bare(job: Job) -> dict[str, str]:
    return {
        "function": job.function,
        "args": encode_json(job.args).decode(),
        "kwargs": encode_json(job.kwargs).decode(),
    }


def _count(text: bytes | None) -> int:
    return int(text) if text and text.isdigit() and len(text) < 10 else 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
