"""One turn whose calls go where a `TurnRouter` says: on to the next target when one fails, or two at once when one is
slow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec import Struct

from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    ProviderError,
    RateLimited,
    StreamBroken,
)
from providers.interfaces import ChunkFn
from providers.messages import AgentConfig, LimitsSeen, Message, TurnEnd, TurnEvent, TurnRequest, UsageUpdate
from providers.retry import is_gated
from providers.turn_routing import CallEnd, Target, TurnRouter
from queue_backends import CallOutcome, ChunkType, QueueError
from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY

RESTART_BASE_S = 0.5
RESTART_MOST_S = 20.0


class CallUnderWay(Protocol):
    """What this module needs to know of a call; the loop's own class has it."""

    request: TurnRequest
    streamed_chars: int
    race: Race | None
    target: Target | None
    first_chunk_s: float | None

    def lasted_s(self) -> float:
        """How long ago it began."""
        ...


class Caller(Protocol):
    """What this module needs of the tool-use loop."""

    config: AgentConfig
    attempt: int
    chunk_fn: ChunkFn
    sleep: Callable[[float], Awaitable[None]]

    def request(self, turn: int, messages: tuple[Message, ...], attempt: int, target: Target | None) -> TurnRequest:
        """The request of one call; without a target, what any of them would be asked."""
        ...

    def call(self, request: TurnRequest, target: Target, race: Race | None) -> CallUnderWay:
        """A call that has not begun."""
        ...

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        """Tell the observer where the call goes."""
        ...

    def speaks(self, request: TurnRequest) -> None:
        """Tell the observer that the chunks that follow are this call's."""
        ...

    def before(self, request: TurnRequest) -> Awaitable[None]:
        """Everything that stands before a call; raising keeps it from being sent."""
        ...

    async def stream(self, call: Any) -> TurnEnd:
        """Carry the call out."""
        ...


class Race:
    """Two calls of one turn at the same time: the first to speak wins, and nobody hears of the other."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.spoke = asyncio.Event()
        self.winner: asyncio.Task[Any] | None = None

    async def heard(self, call: CallUnderWay, event: TurnEvent) -> None:
        """An event of a call in the race. Returns if the call may go on; one that has lost waits here for its end.

        What a vendor tells before the answer begins, its limits and the size of the prompt, wins nothing.
        """
        if type(event) is LimitsSeen or type(event) is UsageUpdate:
            return
        if self.winner is not None:
            await asyncio.Event().wait()  # whoever won cancels it
        self.winner = asyncio.current_task()
        self.spoke.set()
        call.race = None
        self._caller.speaks(call.request)
        if call.target is not None and call.target.switch is not None:
            await self._caller.chunk_fn(ChunkType.CONTENT, "", call.target.switch.metadata())


class _Failure(Struct, frozen=True, kw_only=True):
    """How a call failed that another may follow."""

    error: Exception
    target: Target
    may_start_over: bool
    """The same target may do better, as it may without any route."""
    waits_in_gate: bool


class _Stopped(Exception):
    """Carries a `_Failure` to where it is decided how the turn goes on; never leaves this module."""

    def __init__(self, failure: _Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


class RoutedTurn:
    """The calls of one turn. Each has an attempt of its own, `ATTEMPTS_PER_DELIVERY` at most."""

    __slots__ = ("_attempts", "_caller", "_messages", "_restarts", "_router", "_turn")

    def __init__(self, caller: Caller, router: TurnRouter, turn: int, messages: tuple[Message, ...]) -> None:
        self._caller = caller
        self._router = router
        self._turn = turn
        self._messages = messages
        self._attempts = 0
        self._restarts = 0

    async def run(self) -> TurnEnd:
        """The turn's answer. Raises what the router makes of the failures, or what no other target would do better."""
        target = await self._router.first(self._caller.request(self._turn, self._messages, self._caller.attempt, None))
        one_call = self._one if self._router.hedge_after_s is None else self._raced
        while True:
            try:
                return await one_call(target)
            except _Stopped as stopped:
                failure = stopped.failure
            target = await self._after(failure)

    async def _after(self, failure: _Failure) -> Target:
        """Where the turn goes on; raises if it does not."""
        error = failure.error
        if self._attempts >= ATTEMPTS_PER_DELIVERY:
            raise self._exhausted(error)
        if (target := await self._router.next(error)) is not None:
            return target
        may_start_over = failure.may_start_over or failure.waits_in_gate
        if self._restarts >= self._caller.config.max_turn_restarts or not may_start_over:
            raise self._exhausted(error)
        if not failure.waits_in_gate:
            await self._caller.sleep(restart_delay_s(self._restarts, error))
        self._restarts += 1
        return self._router.again(failure.target)

    def _exhausted(self, error: Exception) -> Exception:
        ended_with = self._router.exhausted(error)
        if ended_with is not error:  # an error that is its own cause would have no end
            ended_with.__cause__ = error
        return ended_with

    async def _one(self, target: Target, race: Race | None = None) -> TurnEnd:
        """One call. Raises `_Stopped` for a failure after which the turn may go on."""
        caller = self._caller
        attempt = caller.attempt + self._attempts
        self._attempts += 1
        call: CallUnderWay | None = None
        error: BaseException | None = None
        outcome: CallOutcome | None = None
        try:
            request = caller.request(self._turn, self._messages, attempt, target)
            caller.goes_to(request, target)
            await caller.before(request)
            if race is None and target.switch is not None:
                await caller.chunk_fn(ChunkType.CONTENT, "", target.switch.metadata())
            call = caller.call(request, target, race)
            end = await caller.stream(call)
            outcome = CallOutcome.COMPLETED
        except Exception as failed:
            error, outcome = failed, CallOutcome.FAILED if call is not None else None
            if not self._goes_on(failed, is_sent=call is not None):
                raise
            raise _Stopped(_failure(failed, call, target)) from failed
        except BaseException as stopped:
            error, outcome = stopped, CallOutcome.CANCELLED if call is not None else None
            raise
        finally:
            self._router.ended(
                target,
                CallEnd(
                    outcome=outcome,
                    error=error,
                    first_chunk_s=call.first_chunk_s if call is not None else None,
                    lasted_s=call.lasted_s() if call is not None else 0.0,
                ),
            )
        await self._router.answered(target)
        return end

    def _goes_on(self, error: Exception, *, is_sent: bool) -> bool:
        """Whether another target may do better. No other one is asked after a refusal or an impossible request."""
        if not is_sent:
            return self._router.passes_over(error)
        return isinstance(error, ProviderError) and (
            error.retryable or isinstance(error, AuthenticationFailed | ContextTooLong)
        )

    # Two at once

    async def _raced(self, target: Target) -> TurnEnd:
        """One call, and a second one beside it if the first says nothing for too long."""
        pair = _Pair(self._one, Race(self._caller))
        attempt = self._caller.attempt + self._attempts
        try:
            async with asyncio.TaskGroup() as group:
                pair.start(group, target)
                await pair.until_heard(self._router.hedge_after_s)
                if pair.is_silent and (second := await self._second(attempt)) is not None:
                    self._begin_hedge(pair, group, second)
                await pair.until_heard(None)
                pair.end_losers()
        except BaseExceptionGroup as failed:
            error = failed.exceptions[0]
            raise error from error.__cause__
        return pair.answer()

    def _begin_hedge(self, pair: _Pair, group: asyncio.TaskGroup, second: Target) -> None:
        if pair.is_silent:
            pair.start(group, second)
        else:  # the first has spoken, or failed, while a second was looked for
            self._router.ended(second, CallEnd(outcome=None))

    async def _second(self, beside: int) -> Target | None:
        if self._attempts + 1 >= ATTEMPTS_PER_DELIVERY:  # one is kept for what may follow
            return None
        return await self._router.second(beside)


class _Pair:
    """A call and, perhaps, its hedge: both run at the same time until one has spoken."""

    def __init__(self, one_call: Callable[[Target, Race], Awaitable[TurnEnd]], race: Race) -> None:
        self._one_call = one_call
        self._race = race
        self._running: list[asyncio.Task[None]] = []
        self._ends: list[TurnEnd] = []
        self._failures: list[_Failure] = []

    def start(self, group: asyncio.TaskGroup, target: Target) -> None:
        self._running.append(group.create_task(self._run(target), name=f"call of {target.name}"))

    async def _run(self, target: Target) -> None:
        try:
            self._ends.append(await self._one_call(target, self._race))
        except _Stopped as stopped:
            self._failures.append(stopped.failure)
        except Exception as error:
            if isinstance(error, QueueError) or not self._is_spare():  # a lost lease ends both
                raise

    def _is_spare(self) -> bool:
        """Whether the turn can do without the present call: the other one has won, or goes on."""
        if self._race.winner is not None:
            return asyncio.current_task() is not self._race.winner
        first = self._running[0]
        return asyncio.current_task() is not first and not first.done()

    @property
    def is_silent(self) -> bool:
        """Nobody has spoken, and the first call goes on."""
        return not self._race.spoke.is_set() and not self._running[0].done()

    async def until_heard(self, limit_s: float | None) -> None:
        """Return when somebody has spoken, or nobody is left to, or after `limit_s`."""
        spoke = asyncio.create_task(self._race.spoke.wait(), name="the first to speak")
        try:
            async with asyncio.timeout(limit_s):
                while not spoke.done() and (pending := [task for task in self._running if not task.done()]):
                    await asyncio.wait([spoke, *pending], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return
        finally:
            spoke.cancel()

    def end_losers(self) -> None:
        if (winner := self._race.winner) is not None:
            for task in self._running:
                if task is not winner:
                    task.cancel()

    def answer(self) -> TurnEnd:
        if self._ends:
            return self._ends[0]
        raise _Stopped(self._failures[-1])


def _failure(error: Exception, call: CallUnderWay | None, target: Target) -> _Failure:
    is_retryable = isinstance(error, ProviderError) and error.retryable
    # Before its first chunk the adapter has already repeated what is worth repeating.
    is_cut = (call is not None and call.streamed_chars > 0) or isinstance(error, StreamBroken | BadResponse)
    return _Failure(
        error=error,
        target=target,
        may_start_over=is_retryable and is_cut,
        waits_in_gate=isinstance(error, RateLimited) and is_gated.get(),
    )


def restart_delay_s(restart: int, error: Exception) -> float:
    """How long to wait before a turn starts over: as long as the vendor asks, else a little longer each time."""
    if isinstance(error, ProviderError) and error.retry_after_s is not None:
        return error.retry_after_s
    return random.uniform(0, min(RESTART_MOST_S, RESTART_BASE_S * 2**restart))  # noqa: S311 - jitter is no secret
