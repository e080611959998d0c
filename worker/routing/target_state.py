"""What a worker knows of each target: its circuit, how quick it is, how busy, and whether it wants to be left alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from worker.routing.breaker import Breaker
from worker.routing.route import RouteTarget

LATENCY_WEIGHT = 0.2
LATENCY_KEPT_S = 300.0
"""What was measured longer ago says nothing any more: the target is tried again."""
LONGEST_REST_S = 300.0
MOST_TARGETS = 10_000

Identity = tuple[str, str, str, str]


class TargetState:
    """One place that calls may go to."""

    __slots__ = ("_clock", "_latency_at", "_latency_s", "_rests_until", "breaker", "context_window", "in_flight", "why")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latency_s: float | None = None
        self._latency_at = 0.0
        self._rests_until = 0.0
        self.breaker = Breaker(clock)
        self.in_flight = 0
        """Calls that are under way, or stand in the gates."""
        self.why: BaseException | None = None
        """How the last call there failed; None after a success."""
        self.context_window: int | None = None
        """Tokens, once somebody had to know."""

    @property
    def latency_s(self) -> float | None:
        """The rolling mean of the time to the first chunk; None if nothing is known of late."""
        return self._latency_s if self._clock() - self._latency_at < LATENCY_KEPT_S else None

    def took(self, first_chunk_s: float) -> None:
        """A call's first chunk came after so long."""
        known = self.latency_s
        self._latency_s = first_chunk_s if known is None else known + LATENCY_WEIGHT * (first_chunk_s - known)
        self._latency_at = self._clock()

    def took_more_than(self, waited_s: float) -> None:
        """Nothing had come after so long, when the call was ended."""
        if waited_s > (self.latency_s or 0.0):
            self.took(waited_s)

    def rest(self, for_s: float) -> None:
        """It wants to hear nothing for so long."""
        self._rests_until = max(self._rests_until, self._clock() + min(for_s, LONGEST_REST_S))

    @property
    def rests_s(self) -> float:
        """How much longer it wants to hear nothing."""
        return max(0.0, self._rests_until - self._clock())

    def forget(self) -> None:
        """Its settings have changed: what went wrong before may not go wrong again."""
        self.breaker.reset()
        self._rests_until, self.why = 0.0, None


class TargetStates:
    """All targets that this worker's routes name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: dict[Identity, TargetState] = {}
        self._changes: dict[str, int] = {}

    def of(self, target: RouteTarget) -> TargetState:
        """The state of a target; the same for all routes that name the same place."""
        found = self._states.get(target.identity)
        if found is None:
            self._make_room()
            found = self._states[target.identity] = TargetState(self._clock)
        return found

    def forget(self, provider: str) -> None:
        """A provider's settings have changed."""
        self._changes[provider] = self.changes(provider) + 1
        for identity, state in self._states.items():
            if identity[0] == provider:
                state.forget()

    def changes(self, provider: str) -> int:
        """How often a provider's settings have changed."""
        return self._changes.get(provider, 0)

    def known(self) -> Iterable[tuple[Identity, TargetState]]:
        """Every target that was ever asked for, with its state."""
        return list(self._states.items())

    def _make_room(self) -> None:
        """Routes may change for as long as the worker lives."""
        if len(self._states) >= MOST_TARGETS:
            self._states = {identity: state for identity, state in self._states.items() if state.in_flight}
