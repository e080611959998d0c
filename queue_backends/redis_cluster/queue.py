"""`TaskQueue` over partitions: what concerns one task goes to its own, the rest to all and is merged."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from msgspec import structs

from queue_backends.errors import BackendUnavailable, LeaseLost, WaitTimeout
from queue_backends.interfaces import (
    BackendOptions,
    CancelOutcome,
    Delivery,
    QueueStats,
    Spent,
    TaskState,
    TaskStatus,
)
from queue_backends.messages import DeadLetter, Priority, Task, TaskResult
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.membership import Membership
from queue_backends.redis_cluster.merging import merged
from queue_backends.redis_cluster.partition import Partition
from queue_backends.redis_cluster.pulling import PartitionPuller
from queue_backends.redis_cluster.renewing import renew_all
from queue_backends.redis_cluster.submitting import ShardedSubmitter

T = TypeVar("T")

_ORDER = {TaskState.RUNNING: 0, TaskState.READY: 1, TaskState.DELAYED: 2}
_ENDED = 3
_URGENCY = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


class ShardedQueue:
    """A queue of one partition, or of several."""

    def __init__(
        self,
        partitions: Sequence[Partition],
        ids: Ids,
        membership: Membership,
        puller: PartitionPuller,
        options: BackendOptions,
        name: str,
    ) -> None:
        self._partitions = partitions
        self._ids = ids
        self._membership = membership
        self._puller = puller
        self._submitter = ShardedSubmitter(partitions, ids, options, name, self.stats)

    # Engines

    async def submit(self, task: Task, *, run_at: float | None = None) -> str:
        """Accept one task."""
        return await self._submitter.submit(task, run_at)

    async def submit_many(self, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """Accept several tasks."""
        return await self._submitter.submit_many(tasks, run_at)

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """Results, in the order of `ids`."""
        found = await self._by_id(ids, lambda partition, names: partition.queue.results(names))
        return [
            structs.replace(result, task_id=task_id) if result else None
            for task_id, result in zip(ids, found, strict=True)
        ]

    async def wait(self, task_id: str, timeout_s: float) -> TaskResult:
        """The result, announced on the task's own channel."""
        number, name = self._ids.place(task_id)
        try:
            result = await self._partitions[number].queue.wait(name, timeout_s)
        except WaitTimeout as error:
            raise WaitTimeout(self._ids.reworded(number, error)) from error
        return structs.replace(result, task_id=task_id)

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        """End tasks."""
        return await self._by_id(ids, lambda partition, names: partition.queue.cancel(names))

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Make delayed tasks ready."""
        return await self._by_id(ids, lambda partition, names: partition.queue.wake(names))

    # Workers

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take ready tasks."""
        if len(self._partitions) == 1:
            return await self._partitions[0].queue.pull(limit, wait_s)
        return await self._puller.pull(limit, wait_s)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend leases; those of deliveries that wait here for the next pull, too."""
        renew = {partition.number: partition.queue.renew for partition in self._partitions}
        return await renew_all(self._ids, deliveries, renew)

    async def ack(self, delivery: Delivery, result: TaskResult) -> None:
        """End the task."""
        partition = self._partitions[self._ids.partition_of(delivery)]
        try:
            await partition.queue.ack(self._ids.inside(delivery), result)
        except LeaseLost as error:
            raise LeaseLost(f"task {delivery.task.id} has another owner") from error

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
        """Give the task back, or give it up."""
        partition = self._partitions[self._ids.partition_of(delivery)]
        try:
            await partition.queue.nack(
                self._ids.inside(delivery),
                error,
                retry_in_s=retry_in_s,
                dead=dead,
                next_attempt=next_attempt,
                spent=spent,
                result=result,
                counts=counts,
            )
        except LeaseLost as lost:
            raise LeaseLost(f"task {delivery.task.id} has another owner") from lost

    def cancellations(self) -> AsyncIterator[str]:
        """Of all partitions."""
        return merged([self._cancellations(partition) for partition in self._partitions])

    async def _cancellations(self, partition: Partition) -> AsyncIterator[str]:
        async for name in partition.queue.cancellations():
            yield self._ids.public(partition.number, name)

    # Operators

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """What is known of each task."""
        found = await self._by_id(ids, lambda partition, names: partition.queue.status(names))
        return [self._renamed(task_id, status) for task_id, status in zip(ids, found, strict=True)]

    async def list_tasks(self, *, limit: int = 50, states: Sequence[TaskState] = ()) -> list[TaskStatus]:
        """Tasks by state, over all partitions."""
        pages = await asyncio.gather(
            *(partition.queue.list_tasks(limit=limit, states=states) for partition in self._partitions)
        )
        found = [
            self._renamed(self._ids.public(partition.number, status.id), status)
            for partition, page in zip(self._partitions, pages, strict=True)
            for status in page
        ]
        return sorted(found, key=_rank)[:limit]

    async def stats(self) -> QueueStats:
        """The queue's figures now."""
        found = await asyncio.gather(*(partition.queue.stats() for partition in self._partitions))
        by_priority: Counter[Priority] = Counter()
        for each in found:
            by_priority.update(each.ready_by_priority)
        ages = [each.oldest_ready_age_s for each in found if each.oldest_ready_age_s is not None]
        return QueueStats(
            ready=sum(each.ready for each in found),
            running=sum(each.running for each in found),
            delayed=sum(each.delayed for each in found),
            dead=sum(each.dead for each in found),
            ready_by_priority=dict(by_priority),
            oldest_ready_age_s=max(ages, default=None),
            paused=any(each.paused for each in found),
        )

    async def dead_letters(self, *, limit: int = 50) -> list[DeadLetter]:
        """Dead letters of all partitions, newest first."""
        pages = await asyncio.gather(*(partition.queue.dead_letters(limit=limit) for partition in self._partitions))
        found = [
            structs.replace(
                letter,
                id=self._ids.public(partition.number, letter.id),
                task_id=self._ids.public(partition.number, letter.task_id),
            )
            for partition, page in zip(self._partitions, pages, strict=True)
            for letter in page
        ]
        return sorted(found, key=lambda letter: letter.dead_at, reverse=True)[:limit]

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """Bring letters back."""
        return [
            self._ids.public(partition.number, name)
            for partition, names in self._grouped(letter_ids)
            for name in await partition.queue.requeue(names)
        ]

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Delete letters."""
        return sum([await partition.queue.purge(names) for partition, names in self._grouped(letter_ids)])

    async def pause(self) -> None:
        """Deliver nothing any more."""
        await asyncio.gather(*(partition.queue.pause() for partition in self._partitions))

    async def resume(self) -> None:
        """Deliver again."""
        await asyncio.gather(*(partition.queue.resume() for partition in self._partitions))
        self._puller.wake()

    async def ping(self) -> None:
        """Return if any partition's server answers: the others are waited for where they are needed."""
        answers = await asyncio.gather(
            *(partition.queue.ping() for partition in self._partitions), return_exceptions=True
        )
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in errors:
            if len(errors) == len(answers) or not isinstance(error, BackendUnavailable):
                raise error

    async def close(self) -> None:
        """Take nothing more, and let others know. The partitions' own queues are closed with their partitions."""
        await self._puller.close()
        await self._membership.leave()

    # By id

    def _grouped(self, ids: Sequence[str]) -> list[tuple[Partition, list[str]]]:
        groups: dict[int, list[str]] = defaultdict(list)
        for each in ids:
            number, name = self._ids.place(each)
            groups[number].append(name)
        return [(self._partitions[number], names) for number, names in groups.items()]

    async def _by_id(self, ids: Sequence[str], ask: Callable[[Partition, list[str]], Awaitable[list[T]]]) -> list[T]:
        """Ask each partition for its own, all at once; answers in the order of `ids`."""
        groups: dict[int, list[int]] = defaultdict(list)
        names: list[str] = []
        for position, each in enumerate(ids):
            number, name = self._ids.place(each)
            names.append(name)
            groups[number].append(position)
        answers = await asyncio.gather(
            *(
                ask(self._partitions[number], [names[position] for position in positions])
                for number, positions in groups.items()
            )
        )
        found = {
            position: answer
            for positions, page in zip(groups.values(), answers, strict=True)
            for position, answer in zip(positions, page, strict=True)
        }
        return [found[position] for position in range(len(ids))]

    def _renamed(self, task_id: str, status: TaskStatus) -> TaskStatus:
        return structs.replace(
            status,
            id=task_id,
            task=structs.replace(status.task, id=task_id) if status.task else None,
            result=structs.replace(status.result, task_id=task_id) if status.result else None,
        )


def _rank(status: TaskStatus) -> tuple[int, float, str]:
    """Running, ready by urgency, delayed by their moment, then ended ones, the newest end first."""
    order = _ORDER.get(status.state, _ENDED)
    within = 0.0
    if status.state is TaskState.READY and status.task is not None:
        within = _URGENCY[status.task.priority]
    elif status.state is TaskState.DELAYED:
        within = status.due_at or 0.0
    elif order == _ENDED and status.result is not None:
        within = -status.result.finished_at
    return order, within, status.id
