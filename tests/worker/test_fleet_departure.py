"""What signals and requests mean to one worker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from worker.errors import BadSetting
from worker.fleet.departure import Departure
from worker.fleet.link import DRAINING, VARIABLE, SupervisorLink
from worker.fleet.presence import DrainRequest

LIMIT_S = 10.0
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """What the tests do to this process' signals is taken back."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Told:
    """What a departure makes of the signals."""

    def __init__(self, link: SupervisorLink, *, problem: str = "") -> None:
        self.words: list[str] = []
        self._problem = problem
        self.departure = Departure(
            link,
            drain=lambda: self.words.append("drain"),
            hurry=lambda: self.words.append("hurry"),
            check=self._check,
        )

    def _check(self) -> None:
        self.words.append("check")
        if self._problem:
            raise BadSetting(self._problem)

    async def after(self, *numbers: signal.Signals) -> list[str]:
        """Send this process the signals, one after the other, and let the loop hear each."""
        with self.departure.signals():
            for number in numbers:
                os.kill(os.getpid(), number)
                await asyncio.sleep(0.05)
        return self.words


@pytest.fixture
def line() -> Iterator[tuple[SupervisorLink, socket.socket]]:
    """A worker's end of the line, and the supervisor's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(LIMIT_S)
    environ = {VARIABLE: str(ours.detach())}
    link = SupervisorLink.from_environment(environ)
    assert link.is_supervised
    assert environ == {}, "the worker's own children shall not take it for theirs"
    with theirs:
        yield link, theirs
    link.close()


async def test_the_second_signal_hurries() -> None:
    """Whichever they are."""
    assert await Told(SupervisorLink()).after(signal.SIGINT, signal.SIGINT) == ["drain", "hurry"]


async def test_under_a_supervisor_a_repeated_signal_counts_once(line: tuple[SupervisorLink, socket.socket]) -> None:
    """An init system tells all processes of a group, and the supervisor tells its own; its second word differs."""
    link, _ = line
    assert await Told(link).after(signal.SIGTERM, signal.SIGTERM, signal.SIGINT) == ["drain", "hurry"]


async def test_a_request_is_no_signal(line: tuple[SupervisorLink, socket.socket]) -> None:
    """The supervisor hears of it; a signal after it does not hurry yet."""
    link, supervisor = line
    told = Told(link)
    told.departure.requested(DrainRequest(at=0.0, by="ops@web-1"))
    assert supervisor.recv(64) == DRAINING + b"\n"
    assert await told.after(signal.SIGTERM) == ["drain", "drain"]


async def test_a_hangup_starts_anew_if_the_settings_will_do() -> None:
    """They are looked at before anything is given up."""
    told = Told(SupervisorLink())
    assert await told.after(signal.SIGHUP) == ["check", "drain"]
    assert told.departure.starts_anew


async def test_a_hangup_with_wrong_settings_changes_nothing() -> None:
    """The worker goes on as it is."""
    told = Told(SupervisorLink(), problem="shoal.yaml: unknown key 'x'")
    assert await told.after(signal.SIGHUP) == ["check"]
    assert not told.departure.starts_anew


async def test_under_a_supervisor_a_hangup_is_its_affair(line: tuple[SupervisorLink, socket.socket]) -> None:
    """It starts another process before this one drains."""
    assert await Told(line[0]).after(signal.SIGHUP) == []


async def test_under_nohup_a_hangup_stays_ignored() -> None:
    """That is what the user asked for."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert await Told(SupervisorLink()).after(signal.SIGHUP) == []


async def test_the_end_of_the_supervisor_drains(line: tuple[SupervisorLink, socket.socket]) -> None:
    """However it ended: the kernel closes its side."""
    link, supervisor = line
    told = Told(link)
    supervisor.close()
    await asyncio.wait_for(told.departure.with_supervisor(), LIMIT_S)
    assert told.words == ["drain"]
    link.say(DRAINING)  # nobody hears it, which is no error


@pytest.mark.parametrize("number", ["", "x", "999999"])
async def test_without_a_supervisor_the_line_never_ends(number: str) -> None:
    """A leftover variable is no supervisor."""
    link = SupervisorLink.from_environment({VARIABLE: number} if number else {})
    assert not link.is_supervised
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(link.lost(), 0.01)
