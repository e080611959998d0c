"""A process that is busy reads each answer less often, and more of it at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from providers.reading_pace import BUSY_SHARE, LONGEST_REST_S, MANY_READS_PER_S, ReadingPace

pytestmark = pytest.mark.timeout(20)


class Transport:
    """Remembers whether it may be read."""

    def __init__(self, pieces: int = 0) -> None:
        """`pieces`: how often something is there after a rest."""
        self.pieces = pieces
        self.resumed = asyncio.Event()
        self.resumed.set()

    def read_now(self) -> bool:
        """Whether there was something."""
        self.pieces -= 1
        return self.pieces >= 0

    def pause_reading(self) -> None:
        """As the event loop's."""
        self.resumed.clear()

    def resume_reading(self) -> None:
        """As the event loop's."""
        self.resumed.set()


class Loop:
    """As much of an event loop as the pace uses, with a time and a CPU clock that the test moves."""

    def __init__(self) -> None:
        self.now, self.cpu = 100.0, 7.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        """Seconds, as the test says."""
        return self.now

    def cpu_s(self) -> float:
        """CPU seconds, as the test says."""
        return self.cpu

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Note a timer."""
        self.timers.append((self.now + delay_s, callback))

    def pass_by(self, seconds: float, share: float) -> None:
        """Let time go by, of which the thread uses a share, and let timers fire."""
        end = self.now + seconds
        while self.timers and min(self.timers, key=lambda timer: timer[0])[0] <= end:
            timer = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.cpu += share * (timer[0] - self.now)
            self.now = timer[0]
            timer[1]()
        self.cpu += share * (end - self.now)
        self.now = end


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """The loop that a new pace finds."""
    loop = Loop()
    monkeypatch.setattr("providers.reading_pace.asyncio.get_running_loop", lambda: loop)
    return loop


def reads(pace: ReadingPace, loop: Loop, *, per_s: float, share: float, lasting_s: float = 1.0) -> None:
    """So many reads at a steady rate, while the thread uses that share of a core."""
    for _ in range(round(per_s * lasting_s)):
        loop.pass_by(1 / per_s, share)
        pace.after_read(Transport())


def busy_pace(loop: Loop) -> ReadingPace:
    """A pace whose thread has been busy with reads for long; nobody rests any more."""
    pace = ReadingPace(cpu_s=loop.cpu_s)
    reads(pace, loop, per_s=2 * MANY_READS_PER_S, share=1.0)
    loop.pass_by(LONGEST_REST_S * 2, share=1.0)
    return pace


async def test_nobody_rests_while_there_is_time_to_spare(loop: Loop) -> None:
    """A process that is not busy reads at once, however many reads there are."""
    pace = ReadingPace(cpu_s=loop.cpu_s)
    reads(pace, loop, per_s=10 * MANY_READS_PER_S, share=BUSY_SHARE * 0.9)
    assert (pace.rest_s, loop.timers) == (0.0, [])


async def test_nobody_rests_for_work_of_others(loop: Loop) -> None:
    """What keeps the process busy are not its few reads: to delay them would relieve nobody."""
    pace = ReadingPace(cpu_s=loop.cpu_s)
    reads(pace, loop, per_s=MANY_READS_PER_S / 2, share=1.0)
    assert (pace.rest_s, loop.timers) == (0.0, [])


async def test_a_busy_process_lets_connections_rest(loop: Loop) -> None:
    """Each is paused after its read, and read again when its time has come, not before and not much later."""
    pace, first, second = busy_pace(loop), Transport(), Transport()
    assert pace.rest_s > LONGEST_REST_S / 2
    pace.after_read(first)
    rest_s = pace.rest_s
    loop.pass_by(rest_s * 0.9, share=1.0)
    assert not first.resumed.is_set()
    pace.after_read(second)
    loop.pass_by(rest_s * 0.2, share=1.0)
    assert first.resumed.is_set()
    assert not second.resumed.is_set()
    loop.pass_by(rest_s, share=1.0)
    assert second.resumed.is_set()
    assert loop.timers == []  # nobody rests: nothing ticks


async def test_rests_end_when_there_is_time_again(loop: Loop) -> None:
    """The pace follows the load down as it followed it up, a step at a time."""
    pace = busy_pace(loop)
    reads(pace, loop, per_s=2 * MANY_READS_PER_S, share=BUSY_SHARE / 2, lasting_s=0.06)
    assert 0 < pace.rest_s < LONGEST_REST_S
    reads(pace, loop, per_s=2 * MANY_READS_PER_S, share=BUSY_SHARE / 2)
    assert pace.rest_s == 0


class BrokenTransport(Transport):
    """One that nobody may read again."""

    def resume_reading(self) -> None:
        """Not as the event loop's, which takes it."""
        raise RuntimeError("closed")


async def test_one_that_cannot_be_read_again_holds_up_nobody(loop: Loop) -> None:
    """Its error is the event loop's to report, and the others are read all the same."""
    pace, other = busy_pace(loop), Transport()
    pace.after_read(BrokenTransport())
    pace.after_read(other)
    with pytest.raises(RuntimeError, match="closed"):
        loop.pass_by(2 * LONGEST_REST_S, share=1.0)
    loop.pass_by(LONGEST_REST_S, share=1.0)
    assert other.resumed.is_set()
    assert loop.timers == []


async def test_what_has_something_after_each_rest_is_not_given_back(loop: Loop) -> None:
    """It is read at the end of each rest, without the event loop; when there is nothing, the loop watches it again."""
    pace, connection = busy_pace(loop), Transport(pieces=3)
    pace.after_read(connection)
    while connection.pieces > 0:
        assert not connection.resumed.is_set()
        loop.pass_by(LONGEST_REST_S / 10, share=1.0)
    assert not connection.resumed.is_set()
    loop.pass_by(2 * LONGEST_REST_S, share=1.0)
    assert connection.resumed.is_set()
    assert loop.timers == []


async def test_many_at_once_take_turns_with_the_loop(loop: Loop) -> None:
    """However many rests end in one moment, all are read then, and none is lost."""
    pace = busy_pace(loop)
    connections = [Transport(pieces=1) for _ in range(500)]
    for connection in connections:
        pace.after_read(connection)
    loop.pass_by(3 * LONGEST_REST_S, share=1.0)
    assert all(connection.resumed.is_set() for connection in connections)
    assert {connection.pieces for connection in connections} == {-1}
