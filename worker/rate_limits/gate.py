"""The gate that keeps the fleet's rate limits: room is taken before each model call, and settled after it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, cast

import structlog
from msgspec import Struct

from providers.retry import is_gated
from providers.tool_loop import TurnRecord
from queue_backends import CallOutcome, Priority, QueueError, StateChange, StateStore, Task, UsageRecord
from worker.call_estimates import CallEstimates
from worker.call_gates import ModelCallIntent
from worker.metrics import Metrics
from worker.rate_limits.clerk import BELL, Clerk, Settlement
from worker.rate_limits.learning import News, counted_tokens
from worker.rate_limits.rules import INPUT_TOKENS, KINDS, OUTPUT_TOKENS, Limits, RateLimit, account_of

PREFIX = "rate:"
"""`rate:<limit's name>/<account>` holds what the fleet knows of one account."""
WAIT_S = 5.0

_UNKNOWN_OUTPUT = 1_000
_CLOSE_WITHIN_S = 2.0
_AGAIN_S = 1.0
_NO_CACHE_COUNTED = frozenset({"anthropic"})
"""Vendors whose limits leave out input that came from their cache."""
_URGENCY = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}

log = structlog.get_logger(__name__)


class _Passage(Struct, frozen=True):
    """A call has passed one account, which took `needs` for it."""

    clerk: Clerk
    needs: Mapping[str, float]


class RateLimitGate:
    """Rate limits of the whole fleet, as one gate before each model call. Works while it is `kept()`.

    Each call has to find room in one account of every limit that is about it. It waits for that at most as long as the
    limit says, or `wait_s`; then its task is postponed. While the store is away, each worker goes on with its part.
    """

    def __init__(
        self,
        state: StateStore,
        limits: Limits,
        *,
        estimates: CallEstimates,
        metrics: Metrics,
        wait_s: float = WAIT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._limits: Limits = dict(limits)
        self._estimates = estimates
        self._metrics = metrics
        self._wait_s = wait_s
        self._clock = clock
        self._worker = secrets.token_hex(6)
        self._clerks: dict[str, Clerk] = {}
        self._passed: dict[str, tuple[_Passage, ...]] = {}
        self._is_kept = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_listening = False

    @property
    def active(self) -> bool:
        """Whether there is any limit."""
        return bool(self._limits)

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._limits

    def change(self, limits: Limits) -> None:
        """From now on these are the limits; calls that wait hear of it at once."""
        self._limits = dict(limits)
        for clerk in self._clerks.values():
            clerk.change(limits.get(clerk.limit.name) or _lifted(clerk.limit))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While this is entered, the gate lets calls through."""
        self._is_kept = True
        try:
            yield
        finally:
            self._is_kept = False
            await self._stop()

    async def _stop(self) -> None:
        clerks, self._clerks = list(self._clerks.values()), {}
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await asyncio.gather(*[clerk.close(_CLOSE_WITHIN_S) for clerk in clerks])

    # Around a call

    async def enter(self, intent: ModelCallIntent) -> None:
        """Wait for room and take it. Raises `Postponed`."""
        passed: list[_Passage] = []
        try:
            for limit, account in self._accounts(intent):
                passage = await self._pass(limit, account, intent)
                passed.append(passage)
        except BaseException:
            for passage in passed:
                passage.clerk.give_back(passage.needs)
            raise
        if passed:
            self._passed[intent.id] = tuple(passed)
            # A provider that runs whole tasks sends calls that nobody sees: these it has to repeat by itself.
            is_gated.set(bool(intent.request.messages) and any(each.clerk.limit.is_vendors for each in passed))

    def _accounts(self, intent: ModelCallIntent) -> list[tuple[RateLimit, str]]:
        found = ((limit, account_of(limit, intent)) for limit in self._limits.values())
        return [(limit, account) for limit, account in found if account is not None]

    async def _pass(self, limit: RateLimit, account: str, intent: ModelCallIntent) -> _Passage:
        clerk, task = self._clerk(limit, account), intent.task
        needs = self._needs(clerk, intent)
        await clerk.enter(
            intent.id,
            tenant=task.tenant,
            urgency=_URGENCY[task.priority],
            since=_enqueued_at(task) or clerk.now,
            needs=needs,
            wait_s=self._wait_s if limit.wait_s is None else limit.wait_s,
        )
        return _Passage(clerk, needs)

    async def leave(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """Settle what the call used; the store hears of it within a moment."""
        self.note(intent, record, usage)

    def note(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """As `leave`."""
        for passage in self._passed.pop(intent.id, ()):
            clerk, needs = passage.clerk, passage.needs
            used = _used(clerk.limit, record, usage, needs)
            if record.outcome is CallOutcome.COMPLETED:
                clerk.correct(used[INPUT_TOKENS] / max(needs[INPUT_TOKENS], 1.0))
            clerk.settle(Settlement(used={kind: used[kind] - needs[kind] for kind in KINDS}, news=_news(clerk, record)))

    def abandon(self, intent: ModelCallIntent) -> None:
        """The call was not sent: what was taken for it goes back."""
        for passage in self._passed.pop(intent.id, ()):
            passage.clerk.give_back(passage.needs)

    # What a call needs

    def _needs(self, clerk: Clerk, intent: ModelCallIntent) -> dict[str, float]:
        expected = self._estimates.of(intent)
        output: float = expected.output_tokens
        if output >= intent.config.max_tokens:  # nobody here has seen such a call end
            output = min(output, clerk.seen.usual_output or _UNKNOWN_OUTPUT)
        return counted_tokens(expected.input_tokens * clerk.correction, output)

    # Clerks

    def _clerk(self, limit: RateLimit, account: str) -> Clerk:
        key = f"{PREFIX}{limit.name}/{account}"
        clerk = self._clerks.get(key)
        if clerk is None or clerk.has_ended:
            if not self._is_kept:
                raise RuntimeError("the rate limits are not kept: enter `kept()` first")
            metrics = self._metrics.rate_limit(limit.name)
            clerk = Clerk(limit, key, self._state, worker=self._worker, metrics=metrics, clock=self._clock)
            self._clerks[key] = clerk
            self._start(self._serve(clerk), f"rate limit {key}")
            if not self._is_listening:
                self._is_listening = True
                self._start(self._listen(), "bells of rate limits")
        return clerk

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)  # ended by `_stop`
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, clerk: Clerk) -> None:
        while not clerk.has_ended:
            try:
                await clerk.run()
            except Exception:  # one account's trouble must not end the worker
                log.exception("a rate limit's step has failed", limit=clerk.key)
                await asyncio.sleep(_AGAIN_S)
        if self._clerks.get(clerk.key) is clerk:
            del self._clerks[clerk.key]

    async def _listen(self) -> None:
        while True:
            try:
                # Every store's watch is an async generator, which has to be closed by whoever leaves it early.
                changes = cast("AsyncGenerator[StateChange, None]", self._state.watch(BELL))
                async with aclosing(changes):
                    async for change in changes:
                        self._rung(change)
            except QueueError as error:
                log.debug("bells of rate limits are not heard", error=str(error))
            except Exception:  # whoever waits looks again by itself, a little later
                log.exception("bells of rate limits are not heard")
            await asyncio.sleep(_AGAIN_S)

    def _rung(self, change: StateChange) -> None:
        clerk = self._clerks.get(change.key.removeprefix(BELL))
        if clerk is not None and change.value and change.value != self._worker.encode():
            clerk.rung()


def _used(limit: RateLimit, record: TurnRecord, usage: UsageRecord, needs: Mapping[str, float]) -> dict[str, float]:
    """What a call has used of each kind, as far as anybody knows."""
    tokens = usage.usage
    if record.rate_limited:
        return counted_tokens(0.0, 0.0)
    if tokens.input_tokens is None and tokens.output_tokens is None:
        failed = record.outcome is CallOutcome.FAILED
        return counted_tokens(needs[INPUT_TOKENS], 0.0 if failed else needs[OUTPUT_TOKENS])
    counts_cached = limit.cached_input_counts
    if counts_cached is None:
        counts_cached = usage.provider not in _NO_CACHE_COUNTED
    cached = 0 if counts_cached else tokens.cache_read_tokens or 0
    return counted_tokens(max((tokens.input_tokens or 0) - cached, 0), tokens.output_tokens or 0)


def _news(clerk: Clerk, record: TurnRecord) -> News:
    is_well = record.outcome is CallOutcome.COMPLETED
    answered_ms = record.time_to_first_chunk_ms
    started_at = record.started_at + clerk.ahead_s
    return News(
        started_at=started_at,
        answered_at=started_at + (record.duration_ms if answered_ms is None else answered_ms) / 1000,
        ended_at=started_at + record.duration_ms / 1000,
        ended_well=is_well,
        limits=record.limits if clerk.limit.is_vendors else None,
        refused=record.rate_limited and clerk.limit.is_vendors,
        retry_after_s=record.retry_after_s,
        output_tokens=record.usage.output_tokens if is_well else None,
    )


def _enqueued_at(task: Task) -> float | None:
    """Unix seconds."""
    try:
        return datetime.fromisoformat(task.enqueued_at).timestamp()
    except ValueError:
        return None


def _lifted(limit: RateLimit) -> RateLimit:
    """A limit that is in force no more: whatever waits for it may go."""
    return RateLimit(name=limit.name, learn=False)
