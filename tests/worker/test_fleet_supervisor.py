"""The supervisor with small programs in place of workers: their deaths, their size, its signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from worker.errors import BadSetting
from worker.fleet.slot import Backoff, Timing
from worker.fleet.supervisor import Plan, Supervisor

LIMIT_S = 60.0
QUICK = Timing(first_wait_s=0.01, memory_every_s=0.05, kill_after_s=0.2, ready_within_s=25, ahead_s=25)

BEGIN = """
import os, signal, sys, time
from worker.fleet.link import DRAINING, READY, SupervisorLink
link = SupervisorLink.from_environment()
def note(word):
    with open({log!r}, "a") as log:
        print(word, os.getpid(), file=log)
def leave(number, frame):
    note("told")
    os._exit(0)
def told(number, frame):
    note(signal.Signals(number).name)
def work(*words):
    note("up")
    for word in words:
        link.say(word)
    while True:
        time.sleep(0.05)  # not signal.pause(): a signal just before it would be slept through
signal.signal(signal.SIGTERM, leave)
"""
STEADY = BEGIN + "work(READY)"
CRASHING = BEGIN + "note('up'); os._exit(9)"
MISCONFIGURED = BEGIN + "note('up'); os._exit(2)"
LARGE = BEGIN + "ballast = b'x' * (40 << 20)\nwork(READY)"
DRAINED = BEGIN + "note('up'); link.say(READY); link.say(DRAINING); os._exit(0)"
STUBBORN = BEGIN + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwork(READY)"
FORKING = (
    BEGIN
    + """
if os.fork():
    note("up")
    os._exit(9)
note("grandchild")
signal.signal(signal.SIGTERM, signal.SIG_DFL)
time.sleep(120)
"""
)
COUNTING = BEGIN + "signal.signal(signal.SIGTERM, told)\nsignal.signal(signal.SIGINT, told)\nwork(READY)"


class Stage:
    """Programs by slot, which may change between two starts, and what they noted."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self.programs = list(programs)
        self._log = folder / "log"

    def command(self, index: int, _plan: Plan) -> Sequence[str]:
        """The program of a slot."""
        return [sys.executable, "-c", self.programs[index].format(log=str(self._log))]

    def notes(self, word: str) -> list[int]:
        """The process ids that noted the word, in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]

    async def noted(self, word: str, count: int) -> list[int]:
        """Wait until it was noted so often."""
        return await until(lambda: found if len(found := self.notes(word)) >= count else None)


async def until(look: Callable[[], list[int] | None]) -> list[int]:
    """Wait for another process, which announces nothing."""
    async with asyncio.timeout(LIMIT_S):
        while (found := look()) is None:
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def supervised(
    stage: Stage, plan: Plan | None = None, *, replan: Callable[[], Plan] | None = None, timing: Timing = QUICK
) -> AsyncIterator[asyncio.Task[int]]:
    """A supervisor in this process; it is stopped in the end, whatever happens."""
    plan = plan or Plan(processes=len(stage.programs), grace_s=20)
    running = asyncio.create_task(Supervisor(plan, stage.command, replan or (lambda: plan), timing=timing).run())
    try:
        yield running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def to_this(number: signal.Signals) -> None:
    """A signal for the supervisor."""
    os.kill(os.getpid(), number)


async def test_one_signal_drains_all(tmp_path: Path) -> None:
    """SIGTERM reaches every process, and the supervisor ends with 0 when they have."""
    stage = Stage(tmp_path, STEADY, STEADY)
    async with supervised(stage) as running:
        pids = await stage.noted("up", 2)
        to_this(signal.SIGTERM)
        assert await asyncio.wait_for(running, LIMIT_S) == 0
    assert sorted(stage.notes("told")) == sorted(pids)


async def test_one_that_dies_is_started_again(tmp_path: Path) -> None:
    """And again, with longer and longer waits, while the others go on."""
    stage = Stage(tmp_path, STEADY, CRASHING)
    async with supervised(stage):
        assert len(set(await stage.noted("up", 5))) == 5
        assert stage.notes("told") == []


def test_waits_grow_and_start_over() -> None:
    """Doubling up to the longest one; after a steady life the first one again."""
    backoff = Backoff(Timing(first_wait_s=1, longest_wait_s=5))
    assert [backoff.next_s() for _ in range(5)] == [1, 2, 4, 5, 5]
    always_steady = Backoff(Timing(first_wait_s=1, steady_s=0))
    assert [always_steady.next_s() for _ in range(3)] == [1, 1, 1]


async def test_a_death_is_noticed_though_a_grandchild_holds_the_line(tmp_path: Path) -> None:
    """A tool may fork without an exec, and outlive the worker."""
    stage = Stage(tmp_path, FORKING)
    try:
        async with supervised(stage):
            assert len(await stage.noted("up", 2)) >= 2
            await stage.noted("grandchild", 2)
    finally:
        for pid in stage.notes("grandchild"):
            os.kill(pid, signal.SIGKILL)


async def test_wrong_settings_end_the_start(tmp_path: Path) -> None:
    """The first process goes ahead, so the message comes once; its exit code is the fleet's."""
    stage = Stage(tmp_path, MISCONFIGURED, MISCONFIGURED, MISCONFIGURED)
    async with supervised(stage) as running:
        assert await asyncio.wait_for(running, LIMIT_S) == 2
    assert len(stage.notes("up")) == 1


async def test_wrong_settings_later_end_nothing(tmp_path: Path) -> None:
    """A process that dies after somebody broke the settings is tried again; the others are left alone."""
    stage = Stage(tmp_path, STEADY, STEADY)
    async with supervised(stage) as running:
        _, second = await stage.noted("up", 2)
        stage.programs[1] = MISCONFIGURED
        os.kill(second, signal.SIGKILL)
        await stage.noted("up", 5)
        assert not running.done()
        assert stage.notes("told") == []


async def test_a_process_over_its_ceiling_is_replaced(tmp_path: Path) -> None:
    """The new one is up before the old one is told to drain."""
    stage = Stage(tmp_path, LARGE)
    async with supervised(stage, Plan(processes=1, grace_s=20, max_memory_bytes=40 << 20)):
        old = (await stage.noted("up", 1))[0]
        stage.programs[0] = STEADY
        assert (await stage.noted("told", 1))[0] == old
        assert len(stage.notes("up")) == 2


async def test_a_reload_replaces_one_after_the_other(tmp_path: Path) -> None:
    """SIGHUP: each new one is up before its predecessor is told, and the plan's new number holds."""
    stage = Stage(tmp_path, STEADY, STEADY, STEADY)
    async with supervised(stage, Plan(processes=2), replan=lambda: Plan(processes=3)):
        first, second = await stage.noted("up", 2)
        to_this(signal.SIGHUP)
        assert await stage.noted("told", 2) == [first, second]
        assert len(await stage.noted("up", 5)) == 5


async def test_a_reload_to_fewer_processes_drains_the_rest(tmp_path: Path) -> None:
    """The last ones go, for good."""
    stage = Stage(tmp_path, STEADY, STEADY, STEADY)
    async with supervised(stage, Plan(processes=3), replan=lambda: Plan(processes=1)) as running:
        old = await stage.noted("up", 3)
        to_this(signal.SIGHUP)
        assert sorted(await stage.noted("told", 3)) == sorted(old)
        to_this(signal.SIGTERM)
        await asyncio.wait_for(running, LIMIT_S)
    assert len(stage.notes("up")) == len(stage.notes("told")) == 4


async def test_a_reload_stops_at_a_new_process_that_does_not_start(tmp_path: Path) -> None:
    """The old ones are never told."""
    stage = Stage(tmp_path, STEADY, STEADY)
    async with supervised(stage):
        old = await stage.noted("up", 2)
        stage.programs = [CRASHING, STEADY]
        to_this(signal.SIGHUP)
        await stage.noted("up", 3)
        stage.programs = [STEADY, STEADY]
        to_this(signal.SIGHUP)  # the next one is not in the way of the last one
        assert await stage.noted("told", 2) == old
        assert len(stage.notes("up")) == 5


async def test_a_reload_with_wrong_settings_starts_nothing(tmp_path: Path) -> None:
    """They are read before anything is done."""
    stage = Stage(tmp_path, STEADY)
    asked = asyncio.Event()

    def refuse() -> Plan:
        asked.set()
        raise BadSetting("shoal.yaml: unknown key 'x'")

    async with supervised(stage, replan=refuse) as running:
        await stage.noted("up", 1)
        to_this(signal.SIGHUP)
        await asyncio.wait_for(asked.wait(), LIMIT_S)
        to_this(signal.SIGTERM)
        assert await asyncio.wait_for(running, LIMIT_S) == 0
    assert len(stage.notes("up")) == 1


async def test_one_that_an_operator_drained_stays_away(tmp_path: Path) -> None:
    """And when none is left, the supervisor ends with 0."""
    stage = Stage(tmp_path, DRAINED, DRAINED)
    async with supervised(stage) as running:
        assert await asyncio.wait_for(running, LIMIT_S) == 0
    assert len(stage.notes("up")) == 2


async def test_a_reload_brings_back_who_was_drained(tmp_path: Path) -> None:
    """The plan's number holds again."""
    stage = Stage(tmp_path, STEADY, DRAINED)
    async with supervised(stage):
        await stage.noted("up", 2)
        stage.programs[1] = STEADY
        to_this(signal.SIGHUP)
        assert len(await stage.noted("up", 4)) == 4


async def test_one_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    """Grace period and a little more; the exit code tells."""
    stage = Stage(tmp_path, STUBBORN)
    async with supervised(stage, Plan(processes=1, grace_s=0.1)) as running:
        await stage.noted("up", 1)
        to_this(signal.SIGTERM)
        assert await asyncio.wait_for(running, LIMIT_S) == 1


async def test_a_second_signal_hurries_and_a_third_kills(tmp_path: Path) -> None:
    """Each process hears the first two as two different signals, which the kernel cannot merge."""
    stage = Stage(tmp_path, COUNTING)
    async with supervised(stage, Plan(processes=1, grace_s=60)) as running:
        await stage.noted("up", 1)
        to_this(signal.SIGTERM)
        await stage.noted("SIGTERM", 1)
        to_this(signal.SIGINT)
        await stage.noted("SIGINT", 1)
        to_this(signal.SIGTERM)
        assert await asyncio.wait_for(running, LIMIT_S) == 1


def test_health_ports_count_up() -> None:
    """0 stays 0, any free one."""
    assert Plan(processes=3, health_port=8080).health_ports == [8080, 8081, 8082]
    assert Plan(processes=2).health_ports == [0, 0]
