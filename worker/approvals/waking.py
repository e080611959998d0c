"""Wakes parked tasks when their questions are answered, wherever that was done.

Who decides wakes the task too. But its queue may be another one (the private one of `shoal run`), and who decided may
have died in between. Gateways and local runs do it; workers need not, and read nothing for it when they start.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from queue_backends import Backend, QueueError
from queue_backends.capabilities import Capability
from worker.approvals.approvals import Approvals
from worker.approvals.question import Approval
from worker.background import BackgroundWork
from worker.parking import LONGEST_LOOK_S

YOUNG_S = LONGEST_LOOK_S + 300.0
"""A parked task looks by itself before an answer is older."""
WITHIN_S = 10.0

log = structlog.get_logger(__name__)


class AnsweredTasks(BackgroundWork):
    """Wakes those of a backend's queue, while it is entered (`async with`)."""

    def __init__(self, backend: Backend, approvals: Approvals) -> None:
        super().__init__(self._wake_answered, name="answered tasks")
        self._backend = backend
        self._approvals = approvals
        self._answered: asyncio.Queue[str] = asyncio.Queue()

    async def _wake_answered(self) -> None:
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
