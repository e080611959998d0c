"""ark's budget: a rolling daily number of tokens for one agent, shared by all workers and readable by ark's.

Usage is noted in the rolling window `swarm:budget:<namespace>:<agent>:usage` (source: ark, a sorted set scored by Unix
milliseconds with members `<task id>:<turn>:<attempt>:<total tokens>`; ark sums the part after the last colon).

Within a process a call is reserved before it is sent and settled after it: when what is used and what is under way
together reach the limit, the next call waits for one that is under way instead of overshooting or failing too early.
Over several processes the overshoot is at most what each has under way at that moment.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import structlog
from msgspec import Struct

from providers import BudgetExceeded
from providers.tool_loop import TurnRecord
from queue_backends import QueueError, StateStore, TokenUsage, UsageRecord
from worker.call_gates import ModelCallIntent

WINDOW_S = 24 * 3600.0

_RESERVATION_S = 600.0
_REFRESH_S = 1.0
_MAX_UNWRITTEN = 10_000
_UNKNOWN_CALL_TOKENS = 8000
"""What a call is expected to use before the first one has ended: ark's default for AGENT_MAX_TOKENS."""

_log = structlog.get_logger(__name__)


class _Reservation(Struct, frozen=True):
    tokens: int
    expires_at: float


class DailyWindow:
    """One agent's daily token budget, as a gate. With `limit_tokens` 0, or without namespace and agent (ark), it costs
    nothing.

    The window is summed at most every `refresh_s` seconds; in between, this process adds what it used itself. A
    reservation that nobody settles is dropped after `reservation_s`.
    """

    def __init__(
        self,
        state: StateStore,
        *,
        namespace: str,
        agent: str,
        limit_tokens: int,
        refresh_s: float = _REFRESH_S,
        reservation_s: float = _RESERVATION_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.active = limit_tokens > 0 and bool(namespace) and bool(agent)
        self._state = state
        self._name = f"swarm:budget:{namespace}:{agent}:usage"
        self._limit = limit_tokens
        self._refresh_s = refresh_s
        self._reservation_s = reservation_s
        self._clock = clock
        self._used = 0
        self._used_at = -math.inf
        self._is_exact = False
        self._refreshing = asyncio.Lock()
        self._reserved: dict[str, _Reservation] = {}  # in the order in which they expire
        self._reserved_tokens = 0
        self._settled = asyncio.Event()
        self._usual_tokens = _UNKNOWN_CALL_TOKENS
        self._is_store_down = False
        self._unwritten: dict[str, int] = {}

    async def enter(self, intent: ModelCallIntent) -> None:
        """As `check`, for one model call."""
        await self.check(intent.id)

    async def leave(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """As `record`."""
        await self.record(intent.id, usage.usage)

    def note(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """As `leave`, for who must not wait, such as a cancelled run: it is written with the next record or check."""
        if self.active:
            self._add(intent.id, usage.usage.total_tokens)
            self.release(intent.id)

    def abandon(self, intent: ModelCallIntent) -> None:
        """As `release`."""
        self.release(intent.id)

    async def check(self, call: str = "", *, expected_tokens: int = 0) -> None:
        """Call this before each model call. Raises `providers.BudgetExceeded` if the limit is used up.

        With a `call` (`<task id>:<turn>:<attempt>`) it is reserved until `record`, `note` or `release`, for
        `expected_tokens` or, if 0, for what calls used lately. While calls under way would fill the rest of the budget,
        this waits for one of them to end. A store that cannot be asked allows the call; the log says so once.
        """
        if not self.active:
            return
        self.release(call)
        while True:
            self._settled.clear()
            used = await self._used_lately()
            if used >= self._limit and not self._is_exact:
                await self._refresh()  # refuse only on what the store says
                used = self._used
            if used >= self._limit:
                raise BudgetExceeded(
                    f"daily token budget exceeded: used {used} of {self._limit} tokens in the last 24h"
                )
            if not self._is_full(used):
                break
            await self._wait_for_one_to_end()
        if call:
            self._reserve(call, expected_tokens or self._usual_tokens)

    async def record(self, call: str, usage: TokenUsage) -> None:
        """Call this after each model call, failed and cut ones too. The same call counts once.

        Never raises for a store that is away: the usage is kept and written later, and the log says so once.
        """
        if not self.active:
            return
        self._add(call, usage.total_tokens)
        try:
            await self.flush()
        finally:
            self.release(call)

    async def flush(self) -> None:
        """Write what was noted and is not written yet. Never raises for a store that is away."""
        taken, self._unwritten = self._unwritten, {}
        try:
            while taken:
                member, total = next(iter(taken.items()))
                await self._state.window_add(self._name, member, total, window_s=WINDOW_S)
                del taken[member]
        except QueueError as error:
            self._say_store_is_down(error)
        finally:
            self._unwritten.update(taken)

    def release(self, call: str) -> None:
        """Give a reservation back: the call was not sent after all, or its run has ended. Harmless if there is none."""
        if reservation := self._reserved.pop(call, None):
            self._reserved_tokens -= reservation.tokens
            self._settled.set()

    async def used_tokens(self) -> int:
        """Tokens noted in the last 24 hours, by all workers. Raises `BackendUnavailable`."""
        return await self._state.window_total(self._name, window_s=WINDOW_S)

    async def _used_lately(self) -> int:
        if self._clock() - self._used_at >= self._refresh_s:
            async with self._refreshing:
                if self._clock() - self._used_at >= self._refresh_s:
                    await self._refresh()
        return self._used

    async def _refresh(self) -> None:
        await self.flush()
        try:
            self._used = await self.used_tokens()
            self._is_store_down = False
        except QueueError as error:
            self._used = 0
            self._say_store_is_down(error)
        self._used_at = self._clock()
        self._is_exact = True

    def _add(self, member: str, total: int) -> None:
        if total <= 0:
            return  # ark: such usage is not noted
        self._usual_tokens = (3 * self._usual_tokens + total) // 4
        self._used += total
        self._is_exact = False
        if len(self._unwritten) < _MAX_UNWRITTEN:
            self._unwritten[member] = total

    def _reserve(self, call: str, tokens: int) -> None:
        self._reserved[call] = _Reservation(tokens, self._clock() + self._reservation_s)
        self._reserved_tokens += tokens

    def _is_full(self, used: int) -> bool:
        """Whether calls under way may use up the rest; a call with nothing beside it may always try."""
        if self._reserved and used + self._reserved_tokens >= self._limit:
            self._drop_expired()
        return bool(self._reserved) and used + self._reserved_tokens >= self._limit

    def _drop_expired(self) -> None:
        now = self._clock()
        for call, reservation in list(self._reserved.items()):
            if reservation.expires_at > now:
                return
            self.release(call)

    async def _wait_for_one_to_end(self) -> None:
        oldest = next(iter(self._reserved.values()))
        try:
            async with asyncio.timeout(max(oldest.expires_at - self._clock(), 0.0)):
                await self._settled.wait()
        except TimeoutError:
            return  # the oldest reservation has expired: count again

    def _say_store_is_down(self, error: QueueError) -> None:
        if not self._is_store_down:
            self._is_store_down = True
            _log.warning("daily token budget cannot be kept: calls are allowed", budget=self._name, error=str(error))
