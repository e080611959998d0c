"""Accepting tasks: each goes to a partition, turn and turn about, or to the one of its idempotency key."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from queue_backends.errors import BackendUnavailable, QueueFull
from queue_backends.interfaces import BackendOptions, QueueStats
from queue_backends.messages import Task, check_run_at, check_task
from queue_backends.redis.client import may_have_arrived
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.partition import Partition

AVOIDED_S = 2.0
"""A partition that could not be reached gets no tasks for so long, as long as others do."""


class ShardedSubmitter:
    """Adds tasks to a queue with partitions.

    The same key always leads to the same partition, whose own guarantee holds then: one task per key, whoever submits
    it, and whatever crashes meanwhile.
    """

    def __init__(
        self,
        partitions: Sequence[Partition],
        ids: Ids,
        options: BackendOptions,
        queue: str,
        stats: Callable[[], Awaitable[QueueStats]],
    ) -> None:
        self._partitions = partitions
        self._ids = ids
        self._options = options
        self._queue = queue
        self._stats = stats
        self._next = random.randrange(len(partitions))  # noqa: S311 - spreads load, guards nothing
        self._avoided_until = [0.0] * len(partitions)
        self._counting = asyncio.Lock()

    async def submit(self, task: Task, run_at: float | None) -> str:
        """Accept one task."""
        self._check([task], run_at)
        if not self._options.max_depth:
            return await self._submit(task, run_at)
        async with self._counting:
            await self._make_sure_of_room([task])
            return await self._submit(task, run_at)

    async def submit_many(self, tasks: Sequence[Task], run_at: float | None) -> list[str]:
        """Accept several tasks: one call per partition, all at once."""
        self._check(tasks, run_at)
        if not self._options.max_depth or not tasks:
            return await self._submit_many(tasks, run_at)
        async with self._counting:
            await self._make_sure_of_room(tasks)
            return await self._submit_many(tasks, run_at)

    def _check(self, tasks: Sequence[Task], run_at: float | None) -> None:
        check_run_at(run_at)
        for task in tasks:
            check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)

    async def _make_sure_of_room(self, tasks: Sequence[Task]) -> None:
        """Counted before, and not in the step that adds: processes that submit at the same moment may together add
        more than there is room for. Known keys are no additions, but which are known is not asked for every call."""
        stats, depth = await self._stats(), self._options.max_depth
        if stats.ready + stats.delayed + len(tasks) <= depth:
            return
        if stats.ready + stats.delayed + len(tasks) - await self._known(tasks) > depth:
            raise QueueFull(
                f"queue {self._queue!r} has reached its max_depth of {depth} waiting tasks: try again later"
            )

    async def _known(self, tasks: Sequence[Task]) -> int:
        """How many of the tasks exist already."""
        keys = [task.idempotency_key for task in tasks if task.idempotency_key]
        names: dict[int, list[str]] = defaultdict(list)
        for key in set(keys):
            number = self._ids.of_key(key)
            names[number].append(self._partitions[number].keys.idempotency(key))
        found: list[int] = await asyncio.gather(
            *(self._partitions[number].client.command("EXISTS", *each) for number, each in names.items())
        )
        return len(keys) - len(set(keys)) + sum(found)

    async def _submit(self, task: Task, run_at: float | None) -> str:
        for others_left in range(len(self._partitions) - 1, -1, -1):
            number = self._choose(task)
            try:
                name = await self._partitions[number].queue.submit(task, run_at=run_at)
            except BackendUnavailable as error:
                self._avoid(number)
                if task.idempotency_key or not others_left or may_have_arrived(error):
                    raise
            else:
                return self._ids.public(number, name)
        raise AssertionError("the last partition's error is raised")

    async def _submit_many(self, tasks: Sequence[Task], run_at: float | None) -> list[str]:
        ids = [""] * len(tasks)
        waiting = list(range(len(tasks)))
        for others_left in range(len(self._partitions) - 1, -1, -1):
            groups: dict[int, list[int]] = defaultdict(list)
            for position in waiting:
                groups[self._choose(tasks[position])].append(position)
            outcomes = await asyncio.gather(
                *(self._add(number, [tasks[each] for each in group], run_at) for number, group in groups.items()),
                return_exceptions=True,
            )
            waiting = []
            errors: list[BaseException] = []
            for (number, group), outcome in zip(groups.items(), outcomes, strict=True):
                if not isinstance(outcome, BaseException):
                    for position, name in zip(group, outcome, strict=True):
                        ids[position] = self._ids.public(number, name)
                elif others_left and self._may_go_elsewhere(outcome, [tasks[each] for each in group]):
                    self._avoid(number)
                    waiting += group
                else:
                    errors.append(outcome)
            if errors:
                raise next((error for error in errors if not isinstance(error, BackendUnavailable)), errors[0])
            if not waiting:
                break
        return ids

    async def _add(self, number: int, tasks: Sequence[Task], run_at: float | None) -> list[str]:
        return await self._partitions[number].queue.submit_many(tasks, run_at=run_at)

    def _may_go_elsewhere(self, error: BaseException, tasks: Sequence[Task]) -> bool:
        """Whether none of them can have been added, and none has a partition of its own."""
        if not isinstance(error, BackendUnavailable) or may_have_arrived(error):
            return False
        return not any(task.idempotency_key for task in tasks)

    def _choose(self, task: Task) -> int:
        if task.idempotency_key:
            return self._ids.of_key(task.idempotency_key)
        now, count = time.monotonic(), len(self._partitions)
        for _ in range(count):
            self._next = (self._next + 1) % count
            if self._avoided_until[self._next] <= now:
                break
        return self._next

    def _avoid(self, number: int) -> None:
        self._avoided_until[number] = time.monotonic() + AVOIDED_S
