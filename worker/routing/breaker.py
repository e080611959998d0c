"""A circuit breaker: no call goes where calls fail, until one that is tried has succeeded. Pure but for its clock."""

from __future__ import annotations

import enum
from collections.abc import Callable

from msgspec import Struct

from worker.routing.route import BreakerPolicy


class Circuit(enum.StrEnum):
    """Whether calls may go there."""

    CLOSED = "closed"
    """They may."""
    OPEN = "open"
    """They may not, for now."""
    PROBING = "probing"
    """One may, or is under way: what becomes of it decides."""


class Permit(Struct, frozen=True):
    """A call that was let through. Results of calls from before the circuit last changed count no more."""

    era: int


class Breaker:
    """The circuit of one target, in one worker.

    It opens after so many failures in a row, or at a rate of failures; when its time is up one call is let through, and
    closes it by success. A failure opens it again, for twice as long.
    """

    __slots__ = ("_calls", "_clock", "_era", "_failed", "_in_row", "_is_open", "_is_probing", "_openings", "_retry_at")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._era = 0
        self._is_open = False
        self._is_probing = False
        self._retry_at = 0.0
        self._openings = 0
        """In a row, without a success between them."""
        self._in_row = 0
        self._calls = _Window()
        self._failed = _Window()

    @property
    def circuit(self) -> Circuit:
        """Its state now."""
        if not self._is_open:
            return Circuit.CLOSED
        return Circuit.PROBING if self._is_probing or self._clock() >= self._retry_at else Circuit.OPEN

    @property
    def admits(self) -> bool:
        """Whether a call may go there now."""
        return not self._is_open or (not self._is_probing and self._clock() >= self._retry_at)

    @property
    def retry_in_s(self) -> float:
        """When a call will be tried again; 0 if one may be now, or is being tried."""
        return max(0.0, self._retry_at - self._clock()) if self._is_open else 0.0

    def begin(self) -> Permit:
        """A call goes there, which `admits` has allowed. Ends with one of the three that follow."""
        if self._is_open:
            self._is_probing = True
        return Permit(self._era)

    def succeeded(self, permit: Permit, policy: BreakerPolicy) -> None:
        """The target has answered, in whatever way."""
        if permit.era != self._era:
            return
        if self._is_open:
            self._change()
            self._is_open = False
            self._openings = 0
            return
        self._in_row = 0
        self._calls.add(self._clock(), policy.window_s)

    def failed(self, permit: Permit, policy: BreakerPolicy, *, for_good: bool = False) -> None:
        """The target has failed. `for_good`: it will fail in the same way again, so that one failure is enough."""
        if permit.era != self._era:
            return
        now = self._clock()
        self._in_row += 1
        calls = self._calls.add(now, policy.window_s)
        failed = self._failed.add(now, policy.window_s)
        is_bad = calls >= policy.min_calls and failed >= policy.error_rate * calls
        if self._is_open or for_good or is_bad or self._in_row >= policy.failures:
            self._open(now, policy)

    def abandoned(self, permit: Permit) -> None:
        """The call was cancelled, or not sent: it tells nothing. Another one may be tried in its place."""
        if permit.era == self._era:
            self._is_probing = False

    def reset(self) -> None:
        """Forget everything: somebody has changed what may have been wrong."""
        self._change()
        self._is_open = False
        self._openings = 0

    def _open(self, now: float, policy: BreakerPolicy) -> None:
        self._change()
        self._is_open = True
        self._retry_at = now + min(policy.most_open_s, policy.open_s * 2.0 ** min(self._openings, 30))
        self._openings += 1

    def _change(self) -> None:
        self._era += 1
        self._is_probing = False
        self._in_row = 0
        self._calls, self._failed = _Window(), _Window()


class _Window:
    """How many there were in about the last while: in this span of the clock, and a share of the span before."""

    __slots__ = ("_before", "_now", "_span")

    def __init__(self) -> None:
        self._span = 0
        self._now = 0
        self._before = 0

    def add(self, now: float, window_s: float) -> float:
        """Count one more; returns how many that makes."""
        span = int(now // window_s)
        if span != self._span:
            self._before = self._now if span == self._span + 1 else 0
            self._span, self._now = span, 0
        self._now += 1
        return self._now + self._before * (1.0 - now % window_s / window_s)
