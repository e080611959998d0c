"""Wakes parked tasks when their questions are answered: those of this worker's own queue, wherever that was done.

Who decides wakes the task too. But the queue may be another one (that of `shoal run`, for one), and whoever decided may
have died in between.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from queue_backends import Backend, QueueError
from queue_backends.capabilities import Capability
from worker.approvals.approvals import Approvals
from worker.approvals.question import Approval
from worker.parking import LONGEST_LOOK_S

YOUNG_S = LONGEST_LOOK_S + 300.0
"""A parked task looks by itself before an answer is older."""
WITHIN_S = 10.0

log = structlog.get_logger(__name__)


class AnsweredTasks:
    """Wakes, while it runs."""

    def __init__(self, backend: Backend, approvals: Approvals) -> None:
        self._backend = backend
        self._approvals = approvals
        self._answered: asyncio.Queue[str] = asyncio.Queue()

    async def run(self) -> None:
        """Wake until cancelled."""
        if Capability.WAKE in self._backend.gaps:
            return
        async with self._approvals.told(self._told):
            while True:
                first = await self._answered.get()
                rest = {self._answered.get_nowait() for _ in range(self._answered.qsize())}
                await self._wake(sorted({first, *rest}))

    def _told(self, approval: Approval) -> None:
        if approval.task and approval.decided and time.time() - approval.decided_at < YOUNG_S:
            self._answered.put_nowait(approval.task)

    async def _wake(self, task_ids: list[str]) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._backend.queue.wake(task_ids)
        except (QueueError, TimeoutError) as error:
            log.warning(
                "tasks could not be woken, they look again by themselves", count=len(task_ids), error=str(error)
            )
