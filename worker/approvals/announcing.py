"""Tells webhooks of questions: at least once, by whichever process of the fleet has the duty."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial

import structlog

from queue_backends import QueueError, StateChange, StateStore
from queue_backends.messages import encode_json
from worker.approvals.answers import PREFIX, decode_approval
from worker.approvals.news import HELLO, KEPT_S, NEWS, all_news
from worker.approvals.question import Approval
from worker.background import BackgroundWork
from worker.deliveries.trying import Patience
from worker.engine.lease import TTL_S, Duty
from worker.following import Following
from worker.gateway.callback_attempt import attempt
from worker.gateway.callbacks import Callback, CallbackState, opened
from worker.net_guard import NetGuard
from worker.settings.approvals import ApprovalSettings

AT_ONCE = 16
LOOK_EVERY_S = 5.0
FIRST_LOOKS_S = 0.5
"""News are kept just before their question is put, which is then looked for this often."""
SHORTEST_S = 0.05
ORPHANED_S = 60.0
"""News without a question are dropped after so long: whoever was about to put it has died."""
DUTY = "approvals/announcing"

log = structlog.get_logger(__name__)


class Announcing(BackgroundWork):
    """Tells, while it is entered and has the duty."""

    def __init__(
        self,
        state: StateStore,
        settings: ApprovalSettings,
        guard: NetGuard,
        *,
        duty_ttl_s: float = TTL_S,
        patience: Patience | None = None,
    ) -> None:
        duty = Duty(state, f"duties/{DUTY}", ttl_s=duty_ttl_s)
        super().__init__(partial(duty.whenever_held, self._announce), name="news of approvals")
        self._state = state
        self._settings = settings
        self._http = guard.http()
        self._patience = patience or Patience()
        self._due: dict[str, tuple[Callback, float]] = {}
        """By approval; each with when it was first seen here, by the monotonic clock."""
        self._some = asyncio.Event()

    async def stop(self) -> None:
        """Tell no more; whoever has the duty next goes on."""
        await super().stop()
        await self._http.aclose()

    async def _announce(self) -> None:
        self._due.clear()
        following = Following(
            self._state, NEWS, HELLO, what="news of approvals", changed=self._heard, keep=self._read_all
        )
        async with following:
            while True:
                if not self._due:
                    self._some.clear()
                    await self._some.wait()
                next_in_s = await self._tell_due()
                self._some.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(next_in_s):
                        await self._some.wait()

    def _heard(self, change: StateChange) -> None:
        news = opened(change.value) if change.value else None
        approval_id = change.key.removeprefix(NEWS)
        if news is None:
            self._due.pop(approval_id, None)
        elif approval_id not in self._due:
            self._know(news)

    def _know(self, news: Callback) -> None:
        self._due[news.task_id] = (news, time.monotonic())
        self._some.set()

    async def _read_all(self) -> None:
        async for news in all_news(self._state):
            if news.task_id not in self._due:
                self._know(news)
        await asyncio.Event().wait()

    async def _tell_due(self) -> float:
        """Tell what is due, several at once; returns after how many seconds to look again."""
        now = time.time()
        due = [news for news, _ in self._due.values() if news.next_try_at is None or news.next_try_at <= now]
        gate = asyncio.Semaphore(AT_ONCE)

        async def tell(news: Callback) -> None:
            async with gate:
                try:
                    await self._tell(news)
                except QueueError as error:  # it is told again: a receiver knows it by its id
                    log.warning("news of an approval cannot be kept", approval=news.task_id, error=str(error))

        async with asyncio.TaskGroup() as telling:
            for news in due:
                telling.create_task(tell(news), name=f"news of approval {news.task_id}")
        return self._look_in_s()

    def _look_in_s(self) -> float:
        """Until something is due: a try after a failed one, or one that found no question yet."""
        now = time.time()
        waits = [news.next_try_at - now if news.next_try_at else FIRST_LOOKS_S for news, _ in self._due.values()]
        return max(SHORTEST_S, min([LOOK_EVERY_S, *waits]))

    async def _tell(self, news: Callback) -> None:
        value = await self._state.get(PREFIX + news.task_id)
        asked = decode_approval(value) if value is not None else None
        seen_at = self._due.get(news.task_id, (news, 0.0))[1]
        if asked is None and time.monotonic() - seen_at < ORPHANED_S:
            return  # it is about to be put
        url = news.url or self._settings.webhook
        if asked is None or not asked.is_open(time.time()) or not url:
            await self._forget(news)
            return
        to = Callback(task_id=news.task_id, id=news.id, url=url, tries=news.tries)
        after = await attempt(to, body_of(asked), self._settings.webhook_secret, self._http, self._patience)
        log.info("news of an approval", approval=asked.id, state=after.state.value, status=after.last_status)
        if after.state is not CallbackState.PENDING:
            if after.state is CallbackState.DEAD:
                log.error("a webhook was not told of an approval", approval=asked.id, error=after.last_error)
            await self._forget(news)
            return
        kept = Callback(
            task_id=news.task_id, id=news.id, url=news.url, tries=after.tries, next_try_at=after.next_try_at
        )
        self._due[news.task_id] = (kept, seen_at)
        await self._state.set(NEWS + news.task_id, encode_json(kept), ttl_s=KEPT_S)

    async def _forget(self, news: Callback) -> None:
        self._due.pop(news.task_id, None)
        await self._state.delete(NEWS + news.task_id)


def body_of(asked: Approval) -> bytes:
    """What is sent: type, moment, the question, and how it is answered."""
    answer = {
        "method": "POST",
        "path": f"/v1/approvals/{asked.id}",
        "body": {"approved": True, "comment": ""},
        "command": f"shoal approve {asked.id}",
    }
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(asked.asked_at))
    return encode_json({"type": "approval.asked", "timestamp": moment, "data": {"approval": asked, "answer": answer}})
