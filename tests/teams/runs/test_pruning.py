"""How ended runs of a team are forgotten: what it costs the store, and what of runs that ended under older versions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from queue_backends import Backend, StateStore, TokenUsage, open_backend
from tests.servers import Server, fresh_stream
from tests.teams.runs.test_driving import team
from worker.teams import pruning
from worker.teams.plan import Plan, Step
from worker.teams.pruning import MOST_AT_ONCE, prune
from worker.teams.run_events import RunEnded, RunStarted
from worker.teams.run_state import Phase
from worker.teams.runs import Runs


@pytest.fixture(params=["memory", "valkey"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A state store."""
    url = "memory://"
    if request.param == "valkey":
        server: Server = request.getfixturevalue("valkey_server")
        url = server.url(fresh_stream())
    async with await open_backend(url) as opened:
        yield opened


class Counted:
    """A state store that counts the calls."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self.calls = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._state, name)


def keeping(good: int = 0, bad: int = 0) -> Plan:
    """A team that keeps so many."""
    return team(Step(name="a", role="a"), successful_runs_kept=good, failed_runs_kept=bad)


async def ended(runs: Runs, plan: Plan, run_id: str, phase: Phase = Phase.SUCCEEDED, tenant: str = "") -> None:
    """Have a run that has ended, and of whose end nobody has told yet."""
    await runs.start(plan, {}, run_id=run_id, tenant=tenant)
    await runs.append_all(run_id, [RunStarted(at=1.0), RunEnded(at=2.0, phase=phase, usage=TokenUsage())])
    folding, _ = await runs.fold(run_id)
    await runs.settle(folding)
    await runs.active.drop(run_id)


async def end(runs: Runs, plan: Plan, run_id: str, phase: Phase = Phase.SUCCEEDED, tenant: str = "") -> list[str]:
    """Have a run end; returns which were forgotten."""
    await ended(runs, plan, run_id, phase, tenant)
    return await prune(runs, await runs.read(run_id))


async def left(runs: Runs) -> set[str]:
    """The runs that are kept."""
    return {each.id for each in await runs.list(limit=1000)}


async def test_an_end_costs_the_same_however_many_have_ended_before(backend: Backend) -> None:
    """The runs that were forgotten are not looked at again."""
    counted = Counted(backend.state)
    runs, plan = Runs(cast("StateStore", counted)), keeping(good=2, bad=1)
    costs = []
    for number in range(60):
        await ended(runs, plan, f"r{number}")
        run = await runs.read(f"r{number}")
        counted.calls.clear()
        gone = await prune(runs, run)
        assert gone == ([f"r{number - 2}"] if number >= 2 else [])
        costs.append(counted.calls.total())
    assert costs[59] == costs[5]
    assert costs[59] < 25
    assert await left(runs) == {"r58", "r59"}


async def test_runs_that_ended_under_an_older_version_are_forgotten_too(backend: Backend) -> None:
    """Of their ends there is no log: the first end that is told finds them in the list of runs."""
    runs, plan = Runs(backend.state), keeping(good=2, bad=1)
    for number in range(5):
        await ended(runs, plan, f"good{number}")
        await ended(runs, plan, f"bad{number}", Phase.CANCELLED if number % 2 else Phase.FAILED)
    await ended(runs, plan, "others", tenant="acme")
    await end(runs, plan, "last")
    assert await left(runs) == {"last", "good4", "bad4", "others"}


async def test_an_end_that_was_not_told_is_found_at_the_next_look(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one under an older version of which a process was still there."""
    runs, plan = Runs(backend.state), keeping(good=1)
    await end(runs, plan, "first")
    await ended(runs, plan, "untold")
    await end(runs, plan, "second")
    assert await left(runs) == {"untold", "second"}
    monkeypatch.setattr(pruning, "LIST_AGAIN_S", 0.0)
    await end(runs, plan, "third")
    assert len(await left(runs)) == 1


async def test_a_limit_that_was_lowered_holds_for_all_that_ended_before(backend: Backend) -> None:
    """Of both sorts, a bounded number at each end."""
    runs, many = Runs(backend.state), MOST_AT_ONCE + 20
    plenty = keeping(good=1000, bad=1000)
    for number in range(0, many, 20):
        each = [end(runs, plenty, f"r{number + index}", Phase.FAILED) for index in range(20)]
        assert not any(await asyncio.gather(*each))
    await end(runs, plenty, "good")
    few = keeping(good=1, bad=2)
    assert len(await end(runs, few, "next")) == 1 + MOST_AT_ONCE
    assert len(await end(runs, few, "last")) == 1 + 18
    assert len(await left(runs)) == 3


async def test_ends_at_once_forget_all_but_the_newest(backend: Backend) -> None:
    """Several processes work off the same ends; no run is kept too many, and none too few."""
    processes, plan = [Runs(backend.state) for _ in range(4)], keeping(good=3)
    for number in range(0, 20, 4):
        await asyncio.gather(*(end(each, plan, f"r{number + index}") for index, each in enumerate(processes)))
    await end(processes[0], plan, "last")
    assert len(await left(processes[0])) == 3


async def test_tenants_and_teams_whose_names_run_together_stay_apart(backend: Backend) -> None:
    """A slash in a name leads to nobody else's runs."""
    runs = Runs(backend.state)
    for number, tenant in enumerate(("a/b", "a%2Fb", "a")):
        assert not await end(runs, keeping(good=1), f"r{number}", tenant=tenant)
    assert len(await left(runs)) == 3
