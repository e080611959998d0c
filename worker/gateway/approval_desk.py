"""The questions that runs put to people, as a gateway knows them: followed in memory, so that looking costs nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from queue_backends import Backend, QueueError
from worker.approvals import Approval, Approvals
from worker.approvals.tidying import take_back_ended
from worker.background import BackgroundWork
from worker.errors import ApprovalDecided, ApprovalNotFound

TIDY_EVERY_S: Final = 15.0
MOST_KEPT: Final = 10_000
"""Decided ones beyond these are forgotten here; each can still be looked up."""

log = structlog.get_logger(__name__)


class ApprovalDesk(BackgroundWork):
    """Entered (`async with`), it follows the questions, and takes those back that nobody waits for any more."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(self._follow_and_tidy, name="approvals")
        self._backend = backend
        self.store = Approvals(backend.state, wake=backend.queue.wake)
        self._known: dict[str, Approval] = {}
        self._follows = False
        self.version = 0
        """One higher with each change: whoever has seen this one has seen all."""

    def open(self, tenant: str = "") -> list[Approval]:
        """Questions that wait, the oldest first; of a tenant, or all."""
        now = time.time()
        found = [each for each in self._known.values() if each.is_open(now) and tenant in ("", each.tenant)]
        return sorted(found, key=lambda each: (each.asked_at, each.id))

    def decided(self, tenant: str = "") -> list[Approval]:
        """Those that were answered, or whose time is up, the latest first; of a tenant, or all."""
        found = [
            each
            for each in self._known.values()
            if each.decided and not each.withdrawn and each.asked_at and tenant in ("", each.tenant)
        ]
        return sorted(found, key=lambda each: (each.decided_at, each.id), reverse=True)

    async def look(self) -> None:
        """Read everything now, if the watch has not begun yet. Raises `BackendUnavailable`."""
        if not self._follows:
            for each in await self.store.all():
                self.note(each)

    async def decide(self, approval_id: str, *, approved: bool, reviewer: str, comment: str) -> Approval:
        """Answer a question for a person. Raises as `Approvals.decide`."""
        found = await self.store.get(approval_id)
        if not found.decided:
            await take_back_ended(self._backend, self.store, [found])
        try:
            answer = await self.store.decide(approval_id, approved=approved, reviewer=reviewer, comment=comment)
        except ApprovalDecided:
            self.note(await self.store.get(approval_id))
            raise
        self.note(answer)
        return answer

    def note(self, approval: Approval) -> None:
        """This is how a question stands now."""
        before = self._known.get(approval.id)
        if approval == before or (before is not None and before.decided and not approval.decided):
            return  # what is told last may be older than what was looked up
        self.version += 1
        if approval.withdrawn:
            self._known.pop(approval.id, None)
            return
        self._known[approval.id] = approval
        if len(self._known) > MOST_KEPT:
            for old in self.decided()[MOST_KEPT // 2 :]:
                self._known.pop(old.id, None)

    async def _follow_and_tidy(self) -> None:
        async with self.store.told(self.note):
            self._follows = True
            while True:
                try:
                    await self._tidy()
                except QueueError as error:
                    log.warning("approvals are not tidied up now", error=str(error))
                await asyncio.sleep(TIDY_EVERY_S)

    async def _tidy(self) -> None:
        """Let the fallback of those count whose time is up, and take back those whose task has ended."""
        now = time.time()
        for each in [each for each in self._known.values() if not each.decided and each.until <= now]:
            try:
                self.note(await self.store.get(each.id))
            except ApprovalNotFound:
                self._known.pop(each.id, None)
                self.version += 1
        await take_back_ended(self._backend, self.store, self.open())
