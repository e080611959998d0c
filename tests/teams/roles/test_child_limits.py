"""How many tasks runs may delegate, whoever asks and however often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from queue_backends import Backend, open_backend
from tests.teams.roles.team_fleet import calls, dynamic, fleet, plan_of, says, scripted
from worker.teams.child_limits import MOST_CHILDREN, MOST_IN_ALL, room_for
from worker.teams.plan import Role
from worker.teams.run_state import Phase
from worker.teams.runs import Runs

ENOUGH = MOST_CHILDREN * 3 // 4


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """An engine in memory."""
    async with await open_backend("memory://") as opened:
        yield opened


async def start(runs: Runs, *, parent: str = "") -> str:
    """A run that nobody drives."""
    plan = plan_of(dynamic(Role(name="lead")))
    return await runs.start(plan, {"task": "go"}, parent=(parent, "lead") if parent else None)


async def test_a_call_that_is_made_again_counts_once(backend: Backend) -> None:
    """After each death of its worker, say; and another one is refused all the same."""
    runs = Runs(backend.state)
    run = await start(runs)

    assert [await room_for(runs, run, "first", ENOUGH) for _ in range(5)] == [""] * 5
    assert "a run may delegate" in await room_for(runs, run, "second", ENOUGH)


async def test_what_was_refused_takes_no_room(backend: Backend) -> None:
    """A model that has asked for too many may ask for fewer."""
    runs = Runs(backend.state)
    run = await start(runs)

    assert await room_for(runs, run, "too many", MOST_CHILDREN + 1)
    assert not await room_for(runs, run, "as many as may be", MOST_CHILDREN)


async def test_of_calls_at_the_same_moment_so_many_have_room(backend: Backend) -> None:
    """All of a call's tasks or none."""
    runs = Runs(backend.state)
    run = await start(runs)

    answers = await asyncio.gather(*(room_for(runs, run, str(number), MOST_CHILDREN // 2) for number in range(5)))

    assert sum(not answer for answer in answers) == 2


async def test_runs_within_runs_count_together(backend: Backend) -> None:
    """Each within its own limit: there is one for all of them."""
    runs = Runs(backend.state)
    outermost = await start(runs)
    others = [await start(runs, parent=outermost) for _ in range(MOST_IN_ALL // MOST_CHILDREN + 1)]

    answers = [await room_for(runs, run, run, MOST_CHILDREN) for run in others]

    assert answers[:-1] == [""] * (len(others) - 1)
    assert "all runs of teams within it" in answers[-1]


async def test_a_team_that_delegates_to_itself_ends() -> None:
    """At the depth that runs may be nested."""
    turns = [calls("spawn_and_collect", tasks=[{"role": "again", "prompt": "go"}]), says("<{last_result}>")]
    lead = Role(name="lead", can_delegate=("again",), config=scripted(*turns))
    async with fleet(slots=1) as there:
        state = await there.run(plan_of(dynamic(lead, Role(name="again", team="crew"))))

    assert state.phase is Phase.SUCCEEDED
    assert "runs of teams are nested 10 deep already" in state.output
