"""Accepting tasks: those that come while a script call is under way go together in the next one."""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from queue_backends.batching import batches
from queue_backends.errors import BackendUnavailable, QueueFull
from queue_backends.gathering import Gatherer
from queue_backends.interfaces import BackendOptions, QueueStats
from queue_backends.messages import Task, check_run_at, check_task, now_rfc3339, task_to_entry
from queue_backends.redis.client import COMMAND_TIMEOUT_S, RedisClient, may_have_arrived
from queue_backends.redis.entries import flat
from queue_backends.redis.keys import GROUP, LANES, Keys
from queue_backends.redis.wire import CallTable

SUBMIT_LIMIT_S = 15.0
FIRST_DELAY_S = 0.05
REMEMBERED_MS = 60_000
UNKNOWN_OUTCOME = "whether the tasks were accepted is not known, so submit them again only with their idempotency_key"


Submission = tuple[Task, float | None]
"""A task on its way in, and when it becomes ready."""


class Submitter:
    """Adds tasks to one queue."""

    def __init__(
        self, client: RedisClient, keys: Keys, options: BackendOptions, stats: Callable[[], Awaitable[QueueStats]]
    ) -> None:
        self._client = client
        self._keys = keys
        self._options = options
        self._stats = stats
        self._gatherer = Gatherer(self._add, _submission_chars)
        self._names: list[str] = []
        """Under which nobody is calling now."""
        self._calls = 0

    def submit(self, task: Task, run_at: float | None) -> asyncio.Future[str]:
        """Accept one task, in the same round trip as others that are submitted at this time."""
        self._check(task)
        check_run_at(run_at)
        return self._gatherer.submit((task, run_at))

    async def submit_many(self, tasks: Sequence[Task], run_at: float | None) -> list[str]:
        """Accept several tasks, all checked before the first is added."""
        check_run_at(run_at)
        for task in tasks:
            self._check(task)
        depth, parts = self._options.max_depth, list(batches(tasks, _chars))
        if depth and len(parts) > 1:  # several script calls: decide for all of them before the first
            stats = await self._stats()
            if stats.ready + stats.delayed + len(tasks) > depth:
                raise self._full()
        ids: list[str] = []
        for batch in parts:
            ids += await self._add([(task, run_at) for task in batch])
        return ids

    async def close(self) -> None:
        """Let what is on its way arrive."""
        await self._gatherer.close(SUBMIT_LIMIT_S)

    def _check(self, task: Task) -> None:
        check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)

    async def _add(self, tasks: Sequence[Submission]) -> list[str]:
        """One script call, which is repeated under the same number while it is not known whether it was carried out:
        the server remembers the last one of each name. A name whose call has come to an end is used again."""
        name = self._names.pop() if self._names else uuid.uuid4().hex
        self._calls += 1
        reply = await self._repeated(functools.partial(self._call, name, self._calls, tasks))
        self._names.append(name)
        if reply == b"full":
            raise self._full()
        return [task_id.decode() for task_id in reply]

    async def _repeated(self, call: Callable[[bool, float], Awaitable[Any]]) -> Any:
        deadline, delay_s, is_repeated = time.monotonic() + SUBMIT_LIMIT_S, FIRST_DELAY_S, False
        while True:
            limit_s = min(COMMAND_TIMEOUT_S, max(0.1, deadline - time.monotonic()))
            try:
                return await call(is_repeated, limit_s)
            except BackendUnavailable as error:
                is_repeated = is_repeated or may_have_arrived(error)
                if not is_repeated:
                    raise
                if time.monotonic() + delay_s > deadline:
                    raise BackendUnavailable(f"{error}; {UNKNOWN_OUTCOME}") from error
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 1.0)

    async def _call(
        self, name: str, number: int, tasks: Sequence[Submission], is_repeated: bool, limit_s: float
    ) -> Any:
        keys, options = self._keys, self._options
        enqueued_at = now_rfc3339()
        table = CallTable(*keys.lanes, keys.delayed, keys.delayed_entries, keys.moved, keys.submitter(name))
        packed = [
            (
                LANES.index(task.priority) + 1,
                round(run_at * 1000) if run_at is not None else 0,
                table.position(keys.idempotency(task.idempotency_key)) if task.idempotency_key else 0,
                flat(task_to_entry(task, enqueued_at)),
            )
            for task, run_at in tasks
        ]
        idempotency_ms = round(options.idempotency_retention_s * 1000)
        payload = (GROUP, options.max_depth, idempotency_ms, packed, number, is_repeated, REMEMBERED_MS)
        return await self._client.script("submit", table.names, table.arguments(payload), timeout_s=limit_s)

    def _full(self) -> QueueFull:
        depth = self._options.max_depth
        return QueueFull(
            f"queue {self._keys.queue!r} has reached its max_depth of {depth} waiting tasks: try again later"
        )


def _chars(task: Task) -> int:
    return len(task.prompt)


def _submission_chars(submission: Submission) -> int:
    return len(submission[0].prompt)
