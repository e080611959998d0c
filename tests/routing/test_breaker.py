"""The circuit of a target."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from worker.routing.breaker import Breaker, Circuit, Permit
from worker.routing.route import BreakerPolicy

POLICY = BreakerPolicy(failures=3, error_rate=0.5, min_calls=10, window_s=60, open_s=10, most_open_s=35)


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def failing(breaker: Breaker, times: int) -> None:
    """So many calls that fail."""
    for _ in range(times):
        breaker.failed(breaker.begin(), POLICY)


def test_failures_in_a_row_open_it() -> None:
    """A success between them begins the count anew."""
    breaker = Breaker(Clock())
    failing(breaker, 2)
    breaker.succeeded(breaker.begin(), POLICY)
    failing(breaker, 2)
    assert breaker.admits
    failing(breaker, 1)
    assert (breaker.admits, breaker.circuit) == (False, Circuit.OPEN)


def test_a_rate_of_failures_opens_it() -> None:
    """Half of enough calls, though never three in a row; and what is long ago does not count."""
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(4):
        failing(breaker, 1)
        breaker.succeeded(breaker.begin(), POLICY)
    clock.now += 500
    for _ in range(4):
        failing(breaker, 1)
        breaker.succeeded(breaker.begin(), POLICY)
    assert breaker.admits
    for _ in range(2):
        failing(breaker, 1)
        if breaker.circuit is Circuit.CLOSED:
            breaker.succeeded(breaker.begin(), POLICY)
    assert breaker.circuit is Circuit.OPEN


def test_one_call_probes_and_decides() -> None:
    """While it is under way no other may go; a failure doubles the wait, up to the most; a success closes the circuit
    and forgets all that."""
    clock = Clock()
    breaker = Breaker(clock)
    failing(breaker, 3)
    for wait_s in (10, 20, 35, 35):
        assert breaker.retry_in_s == wait_s
        clock.now += wait_s
        probe = breaker.begin()
        assert (breaker.admits, breaker.circuit) == (False, Circuit.PROBING)
        breaker.failed(probe, POLICY)
    clock.now += 35
    breaker.succeeded(breaker.begin(), POLICY)
    assert breaker.circuit is Circuit.CLOSED
    failing(breaker, 3)
    assert breaker.retry_in_s == 10


def test_a_probe_that_tells_nothing_leaves_its_place_to_another() -> None:
    """A run that was cancelled, say."""
    clock = Clock()
    breaker = Breaker(clock)
    failing(breaker, 3)
    clock.now += 10
    breaker.abandoned(breaker.begin())
    assert breaker.admits


def test_calls_from_before_a_change_count_no_more() -> None:
    """Neither does a late success close what has opened since, nor a late failure prolong it."""
    clock = Clock()
    breaker = Breaker(clock)
    early, late = breaker.begin(), breaker.begin()
    failing(breaker, 3)
    breaker.succeeded(early, POLICY)
    assert breaker.circuit is Circuit.OPEN
    clock.now += 5
    breaker.failed(late, POLICY)
    assert breaker.retry_in_s == 5


def test_what_fails_for_good_opens_it_at_once_until_somebody_changes_something() -> None:
    """A wrong key, and its correction."""
    breaker = Breaker(Clock())
    breaker.failed(breaker.begin(), POLICY, for_good=True)
    assert not breaker.admits
    breaker.reset()
    assert breaker.admits


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: calls only go where it is allowed, one at a time while it is being tried,
    and a circuit that is open can always be tried again."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(self.clock)
        self.probes = 0
        """Calls under way that were let through an open circuit."""
        self.probing: set[int] = set()

    @precondition(lambda self: self.breaker.admits)
    @rule(target=permits)
    def begin(self) -> Permit:
        is_probe = self.breaker.circuit is not Circuit.CLOSED
        permit = self.breaker.begin()
        if is_probe:
            self.probing.add(id(permit))
            assert not self.breaker.admits
        return permit

    @rule(permit=consumes(permits))
    def succeed(self, permit: Permit) -> None:
        self.breaker.succeeded(permit, POLICY)
        if id(permit) in self.probing:
            assert self.breaker.circuit is Circuit.CLOSED
            self.probing.discard(id(permit))

    @rule(permit=consumes(permits), for_good=st.booleans())
    def fail(self, permit: Permit, for_good: bool) -> None:
        self.breaker.failed(permit, POLICY, for_good=for_good)
        if id(permit) in self.probing:
            assert self.breaker.circuit is Circuit.OPEN
            self.probing.discard(id(permit))

    @rule(permit=consumes(permits))
    def abandon(self, permit: Permit) -> None:
        self.breaker.abandoned(permit)
        self.probing.discard(id(permit))

    @rule(seconds=st.floats(0.1, 100))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def one_probe_at_most(self) -> None:
        assert len(self.probing) <= 1

    @invariant()
    def the_wait_is_bounded(self) -> None:
        assert 0 <= self.breaker.retry_in_s <= POLICY.most_open_s
        if not self.probing and self.breaker.retry_in_s == 0:
            assert self.breaker.admits


BreakerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBreaker = BreakerMachine.TestCase
