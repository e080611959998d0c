"""Asks for the calls of one process, on one limited account: one step at a time, for all that have come meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping

import structlog
from msgspec import Struct

from queue_backends import QueueError, StateStore
from worker.errors import Postponed
from worker.metrics import RateLimitMetrics
from worker.rate_limits.account import Account, shares
from worker.rate_limits.asking import MOST_WISHES, Answer, Ask, ask
from worker.rate_limits.learning import News
from worker.rate_limits.rules import RateLimit
from worker.rate_limits.waiting import Waiter, WaitingCalls
from worker.shared_record import SharedRecord

BELL = "ratebell:"
"""`ratebell:<account's key>` is set when calls of other workers may be sent earlier than these expect."""

_RECORD_TTL_S = 24 * 3600.0
_BELL_TTL_S = 60.0
_BELL_PAUSE_S = 0.02
_SETTLE_WITHIN_S = 0.05
"""What has ended is told so much later, if nobody waits for it: most often the next question takes it along."""
_REFRESH_S = 10.0
_IDLE_S = 60.0
_STORE_PATIENCE_S = 3.0
_STORE_AGAIN_S = 0.5
_MARGIN_S = 0.25
_LATER_S = (1.0, 5.0)
"""When a task shall come back that nobody could tell anything better."""
_MOST_NEWS = 100
_CORRECTION_WEIGHT = 0.2
_LEAST_CORRECTION, _MOST_CORRECTION = 0.02, 20.0

log = structlog.get_logger(__name__)


class Settlement(Struct, frozen=True, kw_only=True):
    """A call has ended, or was not sent after all."""

    used: Mapping[str, float]
    """By how much it used more, or less, than was taken for it."""
    news: News | None = None


class Clerk:
    """One account's business in this process. `run` has to be running."""

    def __init__(
        self,
        limit: RateLimit,
        key: str,
        state: StateStore,
        *,
        worker: str,
        metrics: RateLimitMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limit = limit
        self.key = key
        self.has_ended = False
        self._state = state
        self._record = SharedRecord(state, key, Account, ttl_s=_RECORD_TTL_S)
        self._worker = worker
        self._metrics = metrics
        self._clock = clock
        self.ahead_s = 0.0
        """By how much the clock of the fleet is ahead of ours."""
        self.correction = 1.0
        """How much of the input that is expected counts in the end: all that was not cached, say."""
        self._waiting = WaitingCalls()
        self._running = 0
        self._used: dict[str, float] = {}
        self._news: list[News] = []
        self._due: float | None = None
        """When the next step is to be made, by the monotonic clock; None: there is nothing to say."""
        self._woken = asyncio.Event()
        self._rang_at = 0.0
        self._late: asyncio.Task[tuple[Account, Answer]] | None = None
        self._is_alone = False
        self._says_running = False
        self.seen = Account()
        """The account as last seen."""

    @property
    def now(self) -> float:
        """Unix seconds by the clock of the fleet."""
        return self._clock() + self.ahead_s

    async def enter(
        self, call_id: str, *, tenant: str, urgency: int, since: float, needs: Mapping[str, float], wait_s: float
    ) -> None:
        """Wait until the call may be sent. Raises `Postponed` if that would take longer than `wait_s`."""
        began_at = time.monotonic()
        waiter = Waiter(tenant, urgency, since, needs, wait_s)
        self._waiting.add(call_id, waiter)
        self._hurry()
        try:
            await asyncio.wait([waiter.verdict], timeout=wait_s + _MARGIN_S)
        except asyncio.CancelledError:
            if waiter.may_be_sent:
                self.give_back(needs)
            raise
        finally:
            self._waiting.remove(call_id)
        if waiter.has_waited:
            self._metrics.waited_s.observe(time.monotonic() - began_at)
        retry_in_s = waiter.verdict.result() if waiter.verdict.done() else random.uniform(*_LATER_S)  # noqa: S311 - jitter
        if retry_in_s is not None:
            self._metrics.postponed += 1
            raise Postponed(self._why(), retry_in_s=retry_in_s)

    def _why(self) -> str:
        whose = self.key.partition("/")[2]
        said = f"rate limit {self.limit.name!r}" + (f" of {whose}" if whose else "")
        closed_s = self.seen.closed_until - self.now
        if closed_s > 0:
            return f"{said}: the provider refuses calls for another {closed_s:.0f} s"
        return f"{said}: no room for a model call at present"

    def settle(self, settlement: Settlement) -> None:
        """A call that had entered has ended."""
        self._running = max(self._running - 1, 0)
        self._add(settlement.used)
        if settlement.news is not None:
            if settlement.news.refused:
                self._metrics.refused += 1
            self._news.append(settlement.news)
            del self._news[:-_MOST_NEWS]
        is_awaited = len(self._waiting) or self.seen.holders or (settlement.news and settlement.news.refused)
        self._wake_in(0.0 if is_awaited else _SETTLE_WITHIN_S)

    def give_back(self, needs: Mapping[str, float]) -> None:
        """A call that had entered was not sent."""
        self.settle(Settlement(used={kind: -amount for kind, amount in needs.items()}))

    def change(self, limit: RateLimit) -> None:
        """From now on the limit is this one."""
        if limit != self.limit:
            self.limit = limit
            self._hurry()

    def correct(self, ratio: float) -> None:
        """A call's input was `ratio` times what had been taken for it."""
        after = self.correction * (1 + _CORRECTION_WEIGHT * (min(ratio, 4.0) - 1))
        self.correction = min(max(after, _LEAST_CORRECTION), _MOST_CORRECTION)

    def _add(self, used: Mapping[str, float]) -> None:
        for kind, amount in used.items():
            self._used[kind] = self._used.get(kind, 0.0) + amount

    def rung(self) -> None:
        """Somebody says that there may be room now."""
        if len(self._waiting):
            self._hurry()

    def _hurry(self) -> None:
        self._wake_in(0.0)

    def _wake_in(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if self._due is None or due < self._due:
            self._due = due
            self._woken.set()

    async def run(self) -> None:
        """Make steps as they are due; returns after a minute in which nothing happened and no call was under way."""
        while await self._next_is_due():
            self._due = None
            await self._step()
            if self._due is None and self._says_running:
                self._wake_in(_REFRESH_S)
        self.has_ended = True

    async def _next_is_due(self) -> bool:
        while True:
            left_s = _IDLE_S if self._due is None else self._due - time.monotonic()
            if left_s <= 0:
                return True
            self._woken.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._woken.wait()
            except TimeoutError:
                if self._due is None and not self._running:
                    return False

    async def close(self, within_s: float) -> None:
        """Say what has not been said yet, and that this worker holds nothing any more."""
        if self._late is not None:
            await asyncio.wait([self._late], timeout=within_s)
            self._late.cancel()
        elif self._due is not None or self._says_running:
            self._running = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._step()

    # One step

    async def _step(self) -> None:
        said = self._said()
        answer = await self._asked(said)
        self._metrics.shares = shares(self.seen)
        for call_id in answer.granted:
            if self._waiting.tell(call_id, None):
                self._running += 1
            else:  # it has gone away meanwhile
                self._add(
                    next({kind: -n for kind, n in wish.needs.items()} for wish in said.wishes if wish.id == call_id)
                )
                self._wake_in(_SETTLE_WITHIN_S)
        for call_id, retry_in_s in answer.postponed.items():
            self._waiting.tell(call_id, retry_in_s)
        self._waiting.note_wait()
        if answer.wake_in_s is not None:
            self._wake_in(answer.wake_in_s)
        elif len(said.wishes) < len(self._waiting):
            self._hurry()
        if answer.ring:
            await self._ring()

    def _said(self) -> Ask:
        used, self._used = self._used, {}
        news, self._news = self._news, []
        return Ask(
            worker=self._worker,
            now=self.now,
            running=self._running,
            wishes=self._waiting.wishes(MOST_WISHES),
            used=used,
            news=news,
        )

    async def _asked(self, said: Ask) -> Answer:
        """By the shared record; while the store is away, by what this process knows, with its part of the limits."""
        if self._late is not None and not await self._is_over(self._late):
            return self._alone(said)
        step = asyncio.create_task(self._record.update(lambda account: self._change(account, said)), name=self.key)
        if not await self._is_over(step):
            self._work_alone("the store does not answer")
            return self._alone(said)
        try:
            self.seen, answer = step.result()
        except QueueError as error:
            self._work_alone(str(error))
            return self._alone(said)
        except Exception:  # a record that cannot be read, say: calls go on all the same
            log.exception("a rate limit cannot be kept: this worker goes by what it knows", limit=self.key)
            return self._alone(said)
        self._is_alone = False
        self.ahead_s = max(self.ahead_s, self.seen.at - self._clock())
        self._says_running = said.worker in self.seen.holders and self.seen.concurrent is not None
        return answer

    async def _is_over(self, step: asyncio.Task[tuple[Account, Answer]]) -> bool:
        """Whether a step ends within the time that calls have. If not it goes on, and what it says comes too late."""
        self._late = step
        await asyncio.wait([step], timeout=_STORE_PATIENCE_S)
        if step.done():
            self._late = None
        return step.done()

    def _change(self, account: Account, said: Ask) -> tuple[Account, tuple[Account, Answer]]:
        after, answer = ask(account, self.limit, said)
        return after, (after, answer)

    def _alone(self, said: Ask) -> Answer:
        share = 1.0 / max(len(self.seen.holders), 1)
        others = {name: holder for name, holder in self.seen.holders.items() if name == said.worker}
        known = self.seen.copied()
        known.holders = others
        alone = Ask(
            worker=said.worker,
            now=said.now,
            running=said.running,
            wishes=said.wishes,
            used=said.used,
            news=said.news,
            share=share,
        )
        after, answer = ask(known, self.limit, alone)
        after.holders = {**self.seen.holders, **after.holders}
        self.seen = after
        answer.ring = False
        self._wake_in(_STORE_AGAIN_S)
        return answer

    def _work_alone(self, why: str) -> None:
        if not self._is_alone:
            self._is_alone = True
            log.warning("rate limits cannot be shared: each worker keeps its part", limit=self.key, error=why)

    async def _ring(self) -> None:
        now = time.monotonic()
        if now - self._rang_at < _BELL_PAUSE_S:
            return
        self._rang_at = now
        with contextlib.suppress(QueueError):  # whoever waits looks again by itself, a little later
            await self._state.set(BELL + self.key, self._worker.encode(), ttl_s=_BELL_TTL_S)
