"""Questions to people: put once, answered once, and whoever waits is woken.

| key              | value              | lives                                    |
|------------------|--------------------|------------------------------------------|
| `approvals/<id>` | `Approval`, JSON   | until its time is up, and a week         |

A question's id follows from a key of whoever asks, so that asking again after a crash finds the same question. Its
answer, the end of its time too, is one compare-and-set: of two who decide at once one wins, and the other is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import structlog
from msgspec.structs import replace

from queue_backends import QueueError, StateStore
from queue_backends.messages import encode_json
from worker.approvals.answers import HELLO, PREFIX, Answers, Told, decode_approval
from worker.approvals.news import keep_news
from worker.approvals.question import Approval
from worker.errors import ApprovalDecided, ApprovalNotFound

DEFAULT_S = 24 * 3600.0
LONGEST_S = 30 * 24 * 3600.0
LONGEST_ASK_S = 24 * 3600.0
_KEPT_S = 7 * 24 * 3600.0
"""After its time: whoever asked may have been away for a while."""
_KEPT_OF_ASK_S = 3600.0
LOOK_AGAIN_S = 120.0
"""Whoever waits looks for himself this often, in case that an announcement was lost on its way."""
_TAKE_BACK_S = 1.0

Wake = Callable[[Sequence[str]], Awaitable[object]]
"""`TaskQueue.wake`."""

log = structlog.get_logger(__name__)


def approval_id(key: str) -> str:
    """The id of the question that is put under this key."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


class Approvals:
    """Every method may raise `BackendUnavailable`. One object serves any number who wait, with one watch."""

    def __init__(self, state: StateStore, *, wake: Wake | None = None) -> None:
        """With `wake`, a decision wakes the task that waits for it."""
        self._state = state
        self._wake = wake
        self._answers = Answers(state)

    # Who asks

    async def open(self, question: Approval, *, key: str, timeout_s: float = DEFAULT_S, webhook: str = "") -> Approval:
        """Put a question, or find it as it is if it was put under this key before. One that was withdrawn is put
        again. `webhook` is told of it, or else the one of the settings, by whichever process has that duty."""
        name = PREFIX + approval_id(key)
        while True:
            value = await self._state.get(name)
            found = None if value is None else decode_approval(value)
            if found is not None and not found.withdrawn:
                return found
            now, lasts_s = time.time(), min(max(timeout_s, 0.0), LONGEST_S)
            asked = replace(question, id=approval_id(key), asked_at=now, until=now + lasts_s)
            await keep_news(self._state, asked, webhook)  # first: news without a question are dropped
            if await self._state.compare_and_set(name, value, encode_json(asked), ttl_s=lasts_s + _KEPT_S):
                return asked

    async def find(self, approval_id: str) -> Approval | None:
        """As it stands; None if there is no such question (any more)."""
        value = await self._state.get(PREFIX + approval_id)
        return None if value is None else decode_approval(value)

    async def get(self, approval_id: str) -> Approval:
        """As it stands; one whose time is up without an answer is decided by its fallback now. Raises
        `ApprovalNotFound`."""
        while True:
            value, found = await self._read(approval_id)
            if found.decided or time.time() < found.until:
                return found
            by_itself = replace(
                found, decided=True, timed_out=True, approved=found.fallback == "approve", decided_at=found.until
            )
            if await self._settle(value, by_itself):
                return by_itself

    async def decided(self, approval_id: str, timeout_s: float = LONGEST_S) -> Approval:
        """Wait for the answer, at most so long, and return the question as it then is: decided, by its fallback if its
        time is up. Thousands may wait at once. Raises `ApprovalNotFound`."""
        ends_at = time.monotonic() + timeout_s
        async with self._answers.of(approval_id) as heard:
            while True:
                heard.clear()
                found = await self.get(approval_id)
                left_s = ends_at - time.monotonic()
                if found.decided or left_s <= 0:
                    return found
                wait_s = min(left_s, LOOK_AGAIN_S, max(found.until - time.time(), 0.0) + 0.001)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await heard.wait()

    def told(self, told: Told) -> AbstractAsyncContextManager[None]:
        """Tell of every question that is put and every answer, while the body runs, with one watch for all; first, and
        again whenever some may have been missed, of all that are kept. For those who wait for many."""
        return self._answers.all(told)

    async def withdraw(self, approval_id: str) -> None:
        """Whoever asked waits no more: nobody shall answer into the void. A decided one stays as it is."""
        with contextlib.suppress(ApprovalNotFound):
            while not (found := (seen := await self._read(approval_id))[1]).decided:
                gone = replace(found, decided=True, withdrawn=True, decided_at=time.time())
                if await self._settle(seen[0], gone):
                    return

    async def ask(self, question: Approval, timeout_s: float) -> Approval:
        """Put a question and wait for its answer; it comes back undecided if there is none in time. It is taken back
        when whoever asks is gone."""
        timeout_s = min(max(timeout_s, 0.0), LONGEST_ASK_S)
        now = time.time()
        asked = replace(question, id=secrets.token_hex(4), asked_at=now, until=now + timeout_s)
        await self._state.set(PREFIX + asked.id, encode_json(asked), ttl_s=timeout_s + _KEPT_OF_ASK_S)
        try:
            found = await self.decided(asked.id, timeout_s)
        except ApprovalNotFound:
            return asked
        except asyncio.CancelledError:
            with contextlib.suppress(QueueError, TimeoutError):
                async with asyncio.timeout(_TAKE_BACK_S):
                    await self._state.delete(PREFIX + asked.id)
            raise
        if found.decided and not found.timed_out:
            return found
        await self._state.delete(PREFIX + asked.id)
        return asked

    # Who answers

    async def pending(self) -> list[Approval]:
        """Questions that somebody waits for, the oldest first."""
        now = time.time()
        return sorted((each for each in await self.all() if each.is_open(now)), key=_by_age)

    async def all(self) -> list[Approval]:
        """All that are kept, the oldest first."""
        found = [decode_approval(value) async for key, value in self._state.scan(PREFIX) if key != HELLO]
        return sorted((each for each in found if each is not None), key=_by_age)

    async def decide(self, approval_id: str, *, approved: bool, reviewer: str = "", comment: str = "") -> Approval:
        """Answer a question, and wake whoever waits for it. Raises `ApprovalNotFound` if there is none of that id, and
        `ApprovalDecided`, with how, if it was answered before or its time is up."""
        answer = None
        while not (found := await self.get(approval_id)).decided:
            value, found = await self._read(approval_id)
            answer = replace(
                found, decided=True, approved=approved, reviewer=reviewer, comment=comment, decided_at=time.time()
            )
            if not found.decided and await self._settle(value, answer):
                log.info("a question was answered", approval=found.id, approved=approved, reviewer=reviewer)
                return answer
        if found == answer:  # it was written, and the store's answer to that got lost
            return found
        raise ApprovalDecided(said_of(found))

    async def _read(self, approval_id: str) -> tuple[bytes, Approval]:
        value = await self._state.get(PREFIX + approval_id)
        found = None if value is None else decode_approval(value)
        if value is None or found is None:
            raise ApprovalNotFound(f"there is no approval {approval_id!r}: `shoal approve` lists those that wait")
        return value, found

    async def _settle(self, before: bytes, after: Approval) -> bool:
        if not await self._state.compare_and_set(PREFIX + after.id, before, encode_json(after), ttl_s=_KEPT_S):
            return False
        await self.wake(after)
        return True

    async def wake(self, answered: Approval) -> None:
        """Whoever waits for it as a task becomes ready now. If that fails, the task looks by itself later."""
        if self._wake is None or not answered.task:
            return
        try:
            await self._wake([answered.task])
        except QueueError as error:
            log.warning("a task could not be woken, it looks again by itself", task=answered.task, error=str(error))


def said_of(found: Approval) -> str:
    """Why a question cannot be answered any more."""
    if found.withdrawn:
        return f"approval {found.id!r} is not needed any more: whoever asked has ended"
    how = "approved" if found.approved else "rejected"
    if found.timed_out:
        return f"approval {found.id!r} was not answered in time: it counts as {how}"
    return f"approval {found.id!r} was {how} already{f' by {found.reviewer}' if found.reviewer else ''}"


def _by_age(each: Approval) -> tuple[float, str]:
    return each.asked_at, each.id
