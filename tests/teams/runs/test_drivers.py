"""The drivers of `shoal serve`: they find the fleet's runs, share them, survive each other's death and the server's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from queue_backends import Backend, open_backend
from tests.servers import Server, fresh_stream
from tests.teams.runs.test_driving import asked, echo, team
from tests.teams.runs.workers import Workers
from worker.approvals import Approvals
from worker.teams.drivers import RunDrivers
from worker.teams.plan import Approval, Step
from worker.teams.run_keys import ACTIVE
from worker.teams.run_state import Phase, RunState
from worker.teams.runs import Run, Runs

ROOT = Path(__file__).parents[3]
WITHIN_S = 30.0
SHORT_LEASE_S = 1.0

TWO = team(Step(name="a", role="a"), Step(name="b", role="b", depends_on=("a",)))
ASKING = team(Step(name="a", role="a", approval=Approval(message="Go?")))


@pytest.fixture(params=["memory", "valkey"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A fleet's queue and state."""
    url = "memory://"
    if request.param == "valkey":
        url = request.getfixturevalue("valkey_server").url(fresh_stream())
    async with await open_backend(url) as opened:
        yield opened


async def ended(runs: Runs, run_id: str) -> RunState:
    """The run, once it has ended."""
    return await reached(runs, run_id, lambda state: state.phase.is_final)


async def reached(runs: Runs, run_id: str, wanted: Callable[[RunState], object]) -> RunState:
    """The run, once something holds for it."""
    async with asyncio.timeout(WITHIN_S):
        async for state in runs.follow(run_id):
            if wanted(state):
                return state
    raise AssertionError("the run has ended before")


async def until(holds: Callable[[], object]) -> None:
    """Return once it does."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_runs_that_were_there_and_new_ones_are_driven(backend: Backend) -> None:
    """Whoever starts a run needs to do nothing more."""
    runs = Runs(backend.state)
    before = await runs.start(TWO, {})
    async with Workers(backend, echo).working(), RunDrivers(backend, Runs(backend.state)):
        assert (await ended(runs, before)).phase is Phase.SUCCEEDED
        after = await runs.start(TWO, {})
        assert (await ended(runs, after)).phase is Phase.SUCCEEDED


async def test_local_runs_are_left_alone(backend: Backend) -> None:
    """Their tasks are in a queue that the fleet does not have."""
    runs = Runs(backend.state)
    local = await runs.start(TWO, {}, is_local=True)
    async with Workers(backend, echo).working(), RunDrivers(backend, runs):
        assert (await ended(runs, await runs.start(TWO, {}))).phase is Phase.SUCCEEDED
        assert (await runs.read(local)).state.phase is Phase.PENDING


async def test_more_runs_than_are_driven_at_once(backend: Backend) -> None:
    """They wait for their turn; two processes share them, and no task is run twice."""
    runs, workers = Runs(backend.state), Workers(backend, echo)
    ids = [await runs.start(TWO, {}) for _ in range(12)]
    first, second = (RunDrivers(backend, Runs(backend.state), most=2) for _ in range(2))
    async with workers.working(), first, second:
        for run_id in ids:
            assert (await ended(runs, run_id)).phase is Phase.SUCCEEDED
    assert sorted(workers.ran.values()) == [1] * 24


async def test_runs_that_begin_while_all_are_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading does not find them, the watch has told of them before it ends: they are driven all the same, those
    that have to wait for their turn included."""
    async with await open_backend("memory://") as backend:
        runs, state = Runs(backend.state), backend.state
        scan, reading, go_on = state.scan, asyncio.Event(), asyncio.Event()

        async def slow(prefix: str) -> AsyncIterator[tuple[str, bytes]]:
            found = [each async for each in scan(prefix)]
            if prefix == ACTIVE:
                reading.set()
                await go_on.wait()
            for each in found:
                yield each

        monkeypatch.setattr(state, "scan", slow)
        async with RunDrivers(backend, Runs(state), most=1) as drivers:
            await reading.wait()
            ids = [await runs.start(TWO, {}) for _ in range(3)]
            await until(lambda: drivers.driving)
            go_on.set()
            async with Workers(backend, echo).working():
                for run_id in ids:
                    assert (await ended(runs, run_id)).phase is Phase.SUCCEEDED


async def test_a_run_that_waits_for_a_person_is_in_nobodys_hands(backend: Backend) -> None:
    """It takes no room from others, and goes on at once when the person has answered."""
    runs = Runs(backend.state)
    async with Workers(backend, echo).working(), RunDrivers(backend, Runs(backend.state), most=1) as drivers:
        waiting = await runs.start(ASKING, {})
        question = await asked(backend)
        assert (await ended(runs, await runs.start(TWO, {}))).phase is Phase.SUCCEEDED
        await until(lambda: not drivers.driving)
        await Approvals(backend.state).decide(question, approved=True)
        assert (await ended(runs, waiting)).phase is Phase.SUCCEEDED


async def test_an_answer_given_while_nobody_was_there(backend: Backend) -> None:
    """The drivers that come next find it."""
    runs = Runs(backend.state)
    async with RunDrivers(backend, Runs(backend.state)) as drivers:
        run_id = await runs.start(ASKING, {})
        question = await asked(backend)
        await until(lambda: not drivers.driving)
    await Approvals(backend.state).decide(question, approved=False)
    async with RunDrivers(backend, Runs(backend.state)):
        assert (await ended(runs, run_id)).phase is Phase.FAILED


async def test_cancel_reaches_a_run_that_rests(backend: Backend) -> None:
    """It ends, though it waited in nobody's hands."""
    runs = Runs(backend.state)
    async with RunDrivers(backend, Runs(backend.state)) as drivers:
        run_id = await runs.start(ASKING, {})
        await asked(backend)
        await until(lambda: not drivers.driving)
        await runs.cancel(run_id)
        assert (await ended(runs, run_id)).phase is Phase.CANCELLED


async def test_a_replica_that_leaves_hands_its_runs_on(backend: Backend) -> None:
    """At once, without anybody waiting for a lease."""
    runs, workers = Runs(backend.state), Workers(backend, echo)
    async with RunDrivers(backend, Runs(backend.state), lease_s=3600) as second:
        async with RunDrivers(backend, Runs(backend.state), lease_s=3600):
            run_id = await runs.start(TWO, {})
            await reached(runs, run_id, lambda state: state.step("a").task_id)
        async with workers.working():
            assert (await ended(runs, run_id)).phase is Phase.SUCCEEDED
        assert second.name
    assert sorted(workers.ran.values()) == [1, 1]


async def test_the_end_of_a_run_is_told_until_it_was_heard(backend: Backend) -> None:
    """Whoever is told of it may fail, or die: then it is told again, and after that no more."""
    runs, told, failed = Runs(backend.state), list[str](), asyncio.Event()

    async def fails(run: Run) -> None:
        failed.set()
        raise RuntimeError("not now")

    async def hears(run: Run) -> None:
        told.append(run.header.id)

    async with Workers(backend, echo).working():
        async with RunDrivers(backend, Runs(backend.state), on_end=fails):
            run_id = await runs.start(TWO, {})
            async with asyncio.timeout(WITHIN_S):
                await failed.wait()
        async with RunDrivers(backend, Runs(backend.state), on_end=hears):
            await until(lambda: told)
            another = await runs.start(TWO, {})
            await until(lambda: another in told)
        async with RunDrivers(backend, Runs(backend.state), on_end=hears):
            await ended(runs, await runs.start(TWO, {}))
    assert told.count(run_id) == 1


SERVER = """
import asyncio, sys
from queue_backends import open_backend
from worker.teams.drivers import RunDrivers
from worker.teams.runs import Runs

async def main():
    async with await open_backend(sys.argv[1]) as backend:
        async with RunDrivers(backend, Runs(backend.state), lease_s=float(sys.argv[2])) as drivers:
            while not drivers.driving:
                await asyncio.sleep(0.005)
            print("drives", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def another_process(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Drives the fleet's runs; killed at the end at the latest."""
    command = (sys.executable, "-c", SERVER, url, str(SHORT_LEASE_S))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_runs_of_a_killed_process_are_taken_over(valkey_server: Server) -> None:
    """After kill -9, another process drives them once the dead one's lease has run out; no task is run twice."""
    url = valkey_server.url(fresh_stream())
    async with await open_backend(url) as backend, another_process(url) as process:
        runs, workers = Runs(backend.state), Workers(backend, echo)
        run_id = await runs.start(TWO, {})
        assert process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            assert await process.stdout.readline() == b"drives\n"
        await reached(runs, run_id, lambda state: state.step("a").task_id)
        async with RunDrivers(backend, Runs(backend.state), lease_s=SHORT_LEASE_S):
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            async with workers.working():
                assert (await ended(runs, run_id)).phase is Phase.SUCCEEDED
        assert sorted(workers.ran.values()) == [1, 1]


async def test_a_process_that_was_held_up_does_not_go_on(valkey_server: Server) -> None:
    """Its lease has run out meanwhile, and another has taken its runs: each call is made once all the same."""
    url = valkey_server.url(fresh_stream())
    async with await open_backend(url) as backend, another_process(url) as process:
        runs, workers = Runs(backend.state), Workers(backend, echo)
        run_id = await runs.start(TWO, {})
        await reached(runs, run_id, lambda state: state.step("a").task_id)
        os.kill(process.pid, signal.SIGSTOP)
        async with RunDrivers(backend, Runs(backend.state), lease_s=SHORT_LEASE_S) as drivers:
            await until(lambda: run_id in drivers.driving)
            os.kill(process.pid, signal.SIGCONT)
            async with workers.working():
                assert (await ended(runs, run_id)).phase is Phase.SUCCEEDED
        assert sorted(workers.ran.values()) == [1, 1]


async def test_a_restart_of_the_server_in_the_middle(durable_server: Server) -> None:
    """Redis dies and comes back with what it had: the run goes on, and all who follow it see its end."""
    async with await open_backend(durable_server.url(fresh_stream())) as backend:
        runs, workers = Runs(backend.state), Workers(backend, echo)
        async with RunDrivers(backend, Runs(backend.state)):
            run_id = await runs.start(TWO, {})
            await reached(runs, run_id, lambda state: state.step("a").task_id)
            following = asyncio.create_task(ended(runs, run_id))
            await asyncio.to_thread(durable_server.restart)
            async with workers.working():
                assert (await following).phase is Phase.SUCCEEDED
        assert sorted(workers.ran.values()) == [1, 1]
