"""`ack` and `nack` of an engine that writes how runs end: each is a commit of one."""

from __future__ import annotations

import abc
import time
from collections.abc import Sequence

from queue_backends.errors import LeaseLost
from queue_backends.interfaces import Ack, Dead, Delivery, Outcome, Release, Retry, Spent
from queue_backends.messages import TaskResult


class EndsByCommit(abc.ABC):
    """Part of a `TaskQueue`."""

    @abc.abstractmethod
    async def _commit(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """As `Backend.commit`."""

    async def ack(self, delivery: Delivery, result: TaskResult) -> None:
        """End the task."""
        await self._commit_one(Ack(delivery=delivery, result=result))

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
        outcome: Outcome
        if dead:
            said = result or TaskResult(task_id=delivery.task.id, error=error, finished_at=time.time())
            outcome = Dead(delivery=delivery, result=said, next_attempt=next_attempt)
        elif retry_in_s is not None:
            outcome = Retry(
                delivery=delivery,
                error=error,
                retry_in_s=retry_in_s,
                next_attempt=next_attempt,
                spent=spent,
                counts=counts,
            )
        else:
            outcome = Release(delivery=delivery, next_attempt=next_attempt, spent=spent)
        await self._commit_one(outcome)

    async def _commit_one(self, outcome: Outcome) -> None:
        if await self._commit([outcome]):
            raise LeaseLost(f"task {outcome.delivery.task.id} has another owner")
