"""One broker, many attempts: it goes away once and comes back once, however late some attempts' outcomes are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from queue_backends.availability import QUIET_S, Availability

ERROR = ConnectionError("refused")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    """The clock of the test's broker."""
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> Availability:
    """A broker that nobody has heard of yet."""
    return Availability(long_silence_s=15.0, clock=clock)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What has been logged."""
    with capture_logs() as lines:
        yield lines


def test_many_failures_are_one_outage(broker: Availability, clock: Clock, logs: list[Any]) -> None:
    """A hundred failed attempts and a hundred answers make two lines."""
    for _ in range(100):
        broker.failed(ERROR, began_at=clock.time)
    clock.time += 1
    for _ in range(100):
        broker.answered(began_at=clock.time)
    assert len(logs) == 2
    assert not broker.is_away


def test_an_attempt_from_before_the_return_is_no_second_outage(
    broker: Availability, clock: Clock, logs: list[Any]
) -> None:
    """It began while the broker was away; its failure is told after another attempt has succeeded."""
    broker.failed(ERROR, began_at=clock.time)
    clock.time += 1
    early = broker.now()
    clock.time += 1
    broker.answered(began_at=broker.now())
    broker.failed(ERROR, began_at=early)
    assert not broker.is_away
    assert len(logs) == 2


def test_an_answer_from_before_the_outage_is_no_return(broker: Availability, clock: Clock, logs: list[Any]) -> None:
    """Its reply was under way when the connections were cut."""
    early = broker.now()
    clock.time += 1
    broker.failed(ERROR, began_at=broker.now())
    broker.answered(began_at=early)
    assert broker.is_away
    assert len(logs) == 1


def test_a_second_outage_is_said(broker: Availability, clock: Clock, logs: list[Any]) -> None:
    """What began after the return and fails is news."""
    broker.failed(ERROR, began_at=clock.time)
    clock.time += 1
    broker.answered(began_at=broker.now())
    clock.time += 1
    broker.failed(ERROR, began_at=broker.now())
    assert broker.is_away
    assert len(logs) == 3


def test_a_broker_that_refuses_some_is_away_until_it_refuses_none(
    broker: Availability, clock: Clock, logs: list[Any]
) -> None:
    """A full server answers reads: that is no return, until nothing was refused for a while."""
    broker.failed(ERROR, began_at=clock.time, answers=True)
    clock.time += 1
    broker.answered(began_at=broker.now())
    assert broker.is_away
    clock.time += QUIET_S
    broker.answered(began_at=broker.now())
    assert not broker.is_away
