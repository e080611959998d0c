"""What happens when a trigger fires while its last run goes on: `Allow`, `Forbid`, `Replace`, over several gateways."""

from __future__ import annotations

import asyncio

import pytest

from queue_backends import open_backend
from tests.teams.triggers.replicas import (
    MINUTE,
    Replica,
    StandingClock,
    end,
    fleet,
    move,
    replica,
    runs_of,
    store,
    store_team,
)
from worker.teams.run_state import Phase
from worker.teams.runs import Runs
from worker.teams.triggers.firing import FiringState
from worker.teams.triggers.model import ConcurrencyPolicy

EVERY_MINUTE = "* * * * *"


async def _is_cancelled(where: Replica, run_id: str) -> bool:
    return (await where.runs.read(run_id)).state.cancel_requested


@pytest.mark.parametrize(("policy", "runs"), [("Allow", 3), ("Forbid", 1), ("Replace", 3)])
async def test_what_a_policy_lets_begin(policy: ConcurrencyPolicy, runs: int) -> None:
    """Three ticks, and no run ends: each begins one, only the first does, each ends the one before."""
    async with fleet(2) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        stored = await store(first, replicas, cron=EVERY_MINUTE, concurrency=policy)
        for _ in range(3):
            await move(replicas, MINUTE)
        found = await runs_of(first)
        assert len(found) == runs
        ended = [await _is_cancelled(first, run.id) for run in found]
        assert sum(ended) == (2 if policy == "Replace" else 0)
        status = await first.triggers.status(stored)
        assert (status.fired, status.skipped) == (runs, 3 - runs)


async def test_forbid_lets_the_next_one_begin_when_the_run_has_ended() -> None:
    """Whether it succeeded or failed; and who was left out is told why."""
    async with fleet(2) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        stored = await store(first, replicas, cron=EVERY_MINUTE, concurrency="Forbid")
        await move(replicas, MINUTE)
        await move(replicas, MINUTE)
        [run] = await runs_of(first)
        newest = (await first.triggers.status(stored)).firings[0]
        assert newest.state is FiringState.SKIPPED
        assert run.id in newest.reason
        await end(first, run.id, Phase.FAILED)
        await move(replicas, MINUTE)
        assert len(await runs_of(first)) == 2


@pytest.mark.parametrize("policy", ["Forbid", "Replace"])
async def test_many_firings_at_once_leave_one_run(policy: ConcurrencyPolicy) -> None:
    """Twelve requests, through three gateways, at the same moment: at most one run goes on afterwards."""
    async with fleet(3) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        stored = await store(first, replicas, type="webhook", cron="", concurrency=policy)
        fired = await asyncio.gather(*(each.triggers.fire(stored) for each in replicas * 4))
        found = await runs_of(first)
        going = [run for run in found if not await _is_cancelled(first, run.id)]
        assert len(going) == 1
        states = [firing.state for firing, _ in fired]
        if policy == "Forbid":
            assert len(found) == 1
            assert states.count(FiringState.SKIPPED) == 11


class _Slow(Runs):
    """Runs of a gateway that stands still before it starts one, until it is let go."""

    reached: asyncio.Event
    let_go: asyncio.Event

    async def start(self, *given: object, **more: object) -> str:
        self.reached.set()
        await self.let_go.wait()
        return await super().start(*given, **more)  # type: ignore[arg-type]  # handed through


def _slow(reached: asyncio.Event, let_go: asyncio.Event) -> type[Runs]:
    return type("_SlowHere", (_Slow,), {"reached": reached, "let_go": let_go})


async def test_a_run_that_starts_late_ends_if_a_later_one_has_replaced_it() -> None:
    """The first gateway has decided and stands still; the second one's firing replaces a run that is not there yet.
    When the first goes on, its run is ended, not the later one."""
    reached, let_go = asyncio.Event(), asyncio.Event()
    async with await open_backend("memory://") as backend:
        clock = StandingClock(1_800_000_000.0)
        slow = _slow(reached, let_go)
        async with (
            replica(backend.state, clock, name="slow", wrap=lambda runs: slow(runs.state)) as late,
            replica(backend.state, StandingClock(1_800_000_001.0), name="quick") as quick,
        ):
            await store_team(late)
            stored = await store(late, [late, quick], type="webhook", cron="", concurrency="Replace")
            task = asyncio.create_task(late.triggers.fire(stored))
            await reached.wait()
            later, _ = await quick.triggers.fire(stored)
            let_go.set()
            earlier, _ = await task
            assert await _is_cancelled(quick, earlier.started[0])
            assert not await _is_cancelled(quick, later.started[0])


async def test_a_run_is_ended_although_the_one_that_replaced_it_was_replaced_itself() -> None:
    """The first run goes on; the second firing has decided to replace it, and stands still; the third one ends both."""
    reached, let_go = asyncio.Event(), asyncio.Event()
    async with await open_backend("memory://") as backend:
        slow = _slow(reached, let_go)
        async with (
            replica(backend.state, StandingClock(1_800_000_001.0), name="slow", wrap=lambda r: slow(r.state)) as late,
            replica(backend.state, StandingClock(1_800_000_000.0), name="quick") as quick,
        ):
            await store_team(quick)
            stored = await store(quick, [late, quick], type="webhook", cron="", concurrency="Replace")
            first, _ = await quick.triggers.fire(stored)
            task = asyncio.create_task(late.triggers.fire(stored))
            await reached.wait()
            quick.clock.set(1_800_000_002.0)
            third, _ = await quick.triggers.fire(stored)
            let_go.set()
            second, _ = await task
            assert await _is_cancelled(quick, first.started[0])
            assert await _is_cancelled(quick, second.started[0])
            assert not await _is_cancelled(quick, third.started[0])


async def test_of_firings_that_all_start_late_the_last_one_goes_on() -> None:
    """The first and the second one stand still before they start anything; when they go on, they end themselves."""
    reached, let_go = asyncio.Event(), asyncio.Event()
    async with await open_backend("memory://") as backend:
        slow = _slow(reached, let_go)
        async with (
            replica(backend.state, StandingClock(1_800_000_000.0), name="slow", wrap=lambda r: slow(r.state)) as late,
            replica(backend.state, StandingClock(1_800_000_002.0), name="quick") as quick,
        ):
            await store_team(quick)
            stored = await store(quick, [late, quick], type="webhook", cron="", concurrency="Replace")
            earlier = []
            for _ in range(2):
                reached.clear()
                earlier.append(asyncio.create_task(late.triggers.fire(stored)))
                await reached.wait()
                late.clock.set(late.clock.now() + 1.0)
            last, _ = await quick.triggers.fire(stored)
            let_go.set()
            for task in earlier:
                firing, _ = await task
                assert await _is_cancelled(quick, firing.started[0])
            assert not await _is_cancelled(quick, last.started[0])


async def test_forbid_counts_a_run_that_is_yet_to_be_started() -> None:
    """Between the decision and the start of the one, the other is left out."""
    reached, let_go = asyncio.Event(), asyncio.Event()
    async with await open_backend("memory://") as backend:
        clock = StandingClock(1_800_000_000.0)
        slow = _slow(reached, let_go)
        async with (
            replica(backend.state, clock, name="slow", wrap=lambda runs: slow(runs.state)) as late,
            replica(backend.state, clock, name="quick") as quick,
        ):
            await store_team(late)
            stored = await store(late, [late, quick], type="webhook", cron="", concurrency="Forbid")
            task = asyncio.create_task(late.triggers.fire(stored))
            await reached.wait()
            other, _ = await quick.triggers.fire(stored)
            let_go.set()
            await task
            assert other.state is FiringState.SKIPPED
            assert len(await runs_of(quick)) == 1


async def test_a_firing_that_could_start_nothing_blocks_no_other() -> None:
    """Its team is not there: the next firing, when it is, goes on."""
    async with fleet(1) as (_, replicas):
        [first] = replicas
        stored = await store(first, type="webhook", cron="", concurrency="Forbid")
        failed, _ = await first.triggers.fire(stored)
        assert failed.state is FiringState.FAILED
        await store_team(first)
        firing, _ = await first.triggers.fire(stored)
        assert firing.state is FiringState.FIRED
