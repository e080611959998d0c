"""Runs as they are kept: folding, following, lists that are right after crashes, how long they stay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from queue_backends import Backend, LogRecord, TokenUsage, open_backend
from tests.servers import Server, fresh_stream
from tests.teams.runs.test_driving import echo, run, team
from tests.teams.runs.workers import Workers
from worker.teams.driver import Driver
from worker.teams.errors import BadInput, RunNotFound
from worker.teams.folding import fold
from worker.teams.plan import Step
from worker.teams.run_events import (
    Event,
    RunEnded,
    RunStarted,
    StepEnded,
    StepStarted,
    TaskEnded,
    TaskSubmitted,
    decode_event,
    encode_event,
)
from worker.teams.run_keys import events_log, summary_key
from worker.teams.run_state import Phase
from worker.teams.runs import Runs

ONE = team(Step(name="a", role="a"))
EVENTS: list[Event] = [
    RunStarted(at=1.0),
    StepStarted(at=2.0, step="a", role="a"),
    TaskSubmitted(at=2.0, step="a", iteration=1, attempt=1, purpose="step", task_id="t"),
    TaskEnded(
        at=3.0,
        step="a",
        iteration=1,
        attempt=1,
        purpose="step",
        task_id="t",
        output="hi",
        usage=TokenUsage(input_tokens=2, output_tokens=3),
    ),
    StepEnded(at=3.0, step="a", iteration=1, phase=Phase.SUCCEEDED),
    RunEnded(at=4.0, phase=Phase.SUCCEEDED, output="hi", usage=TokenUsage(input_tokens=2, output_tokens=3)),
]


@pytest.fixture(params=["memory", "valkey"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A state store."""
    url = "memory://"
    if request.param == "valkey":
        server: Server = request.getfixturevalue("valkey_server")
        url = server.url(fresh_stream())
    async with await open_backend(url) as opened:
        yield opened


async def test_events_come_back_as_they_were_written(backend: Backend) -> None:
    """Each once, however often it is written; the state follows from them alone."""
    runs = Runs(backend.state)
    run_id = await runs.start(ONE, {"x": "1"})
    for event in EVENTS:
        assert decode_event(encode_event(event)) == event
        assert await runs.append(run_id, event)
        assert not await runs.append(run_id, event)
    found = await runs.read(run_id)
    assert found.state == fold(ONE, found.header, EVENTS[:-1] * 2 + EVENTS * 2)
    assert (found.state.phase, found.state.output, found.state.tokens) == (Phase.SUCCEEDED, "hi", 5)
    assert (found.state.step("a").output, found.state.step("a").task_id) == ("hi", "t")


async def test_what_a_newer_version_writes_is_passed_over(backend: Backend) -> None:
    """Unknown events, and further fields of known ones."""
    runs = Runs(backend.state)
    run_id = await runs.start(ONE, {})
    strange = [b'{"event":"moon_landing","at":1.5}', b'{"event":"run_started","at":1.0,"mood":"good"}']
    records = [
        LogRecord(log=events_log(run_id), id=str(number), value=value, keep_s=60.0)
        for number, value in enumerate(strange)
    ]
    await backend.state.append_once(records)
    assert (await runs.read(run_id)).state.started_at == 1.0


async def test_followers_see_every_event_and_end_with_the_last_one(backend: Backend) -> None:
    """Any number of them, through one watch."""
    runs = Runs(backend.state)
    run_id = await runs.start(ONE, {})

    async def phases() -> list[tuple[Phase, Phase]]:
        return [(state.phase, state.steps[0].phase) async for state in runs.follow(run_id)]

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        followers = [group.create_task(phases()) for _ in range(3)]
        for event in EVENTS:
            await Runs(backend.state).append(run_id, event)
    for follower in followers:
        assert follower.result()[-1] == (Phase.SUCCEEDED, Phase.SUCCEEDED)
    assert [state async for state in runs.follow(run_id)] == [(await runs.read(run_id)).state]


async def test_lists_are_right_after_a_crash(backend: Backend) -> None:
    """A driver has written a run's end, and died before it could say so in the list."""
    runs = Runs(backend.state)
    run_id = await runs.start(ONE, {})
    assert [each.phase for each in await runs.list()] == [Phase.PENDING]
    await runs.append_all(run_id, EVENTS)
    (listed,) = await runs.list()
    assert (listed.phase, listed.tokens, listed.steps_ended, listed.ended_at) == (Phase.SUCCEEDED, 5, 1, 4.0)


async def test_lists_by_team_tenant_and_phase(backend: Backend) -> None:
    """The newest first, as many as are wanted."""
    runs = Runs(backend.state)
    ids = [await runs.start(ONE, {}, run_id=f"r{number}", tenant="acme" if number % 2 else "") for number in range(6)]
    await runs.append_all("r1", EVENTS)

    async def listed(**wanted: object) -> list[str]:
        return [each.id for each in await runs.list(**wanted)]  # type: ignore[arg-type]  # whatever the test wants

    assert await listed() == ids[::-1]
    assert await listed(limit=2) == ["r5", "r4"]
    assert await listed(tenant="acme") == ["r5", "r3", "r1"]
    assert await listed(tenant="") == ["r4", "r2", "r0"]
    assert await listed(team="team", tenant="acme", limit=1) == ["r5"]
    assert await listed(team="other") == []
    assert await listed(phases=[Phase.SUCCEEDED]) == ["r1"]
    await runs.forget("r4")
    assert await listed(limit=2) == ["r5", "r3"]


async def test_a_page_of_a_thousand_runs(backend: Backend) -> None:
    """Many runs are listed at once."""
    runs = Runs(backend.state)
    for number in range(0, 1000, 100):
        await asyncio.gather(*(runs.start(ONE, {}, run_id=f"r{number + each}") for each in range(100)))
    assert len({each.id for each in await runs.list(limit=1000)}) == 1000


async def test_a_team_says_how_many_of_its_runs_are_kept(backend: Backend) -> None:
    """Of those that succeeded and those that did not; the oldest go first, the others stay."""
    plan = team(Step(name="a", role="a"), successful_runs_kept=2)
    other = await Runs(backend.state).start(ONE, {}, run_id="other-active")
    ids = [(await run(backend, plan))[0].id for _ in range(4)]
    runs = Runs(backend.state)
    assert [each.id for each in await runs.list()] == [ids[3], ids[2], other]
    for run_id in ids[:2]:
        with pytest.raises(RunNotFound):
            await runs.read(run_id)


async def test_runs_of_one_tenant_take_no_place_of_anothers(backend: Backend) -> None:
    """How many are kept is counted for each tenant by itself."""
    plan = team(Step(name="a", role="a"), successful_runs_kept=1)
    runs = Runs(backend.state)
    ids = [await runs.start(plan, {}, tenant=tenant) for tenant in ("", "acme", "globex", "acme")]
    async with Workers(backend, echo).working():
        for run_id in ids:
            await Driver(backend, runs).drive(run_id)
    assert {each.id for each in await runs.list()} == {ids[0], ids[2], ids[3]}


async def test_a_run_whose_end_is_still_being_told_is_kept(backend: Backend) -> None:
    """Who tells of it may die: whoever does so then has to find it."""
    plan = team(Step(name="a", role="a"), successful_runs_kept=1)
    runs = Runs(backend.state)
    first = (await run(backend, plan))[0].id
    await runs.active.put(first)
    last = [(await run(backend, plan))[0].id for _ in range(2)][-1]
    assert [each.id for each in await runs.list()] == [last, first]
    await runs.active.drop(first)
    last = (await run(backend, plan))[0].id
    assert [each.id for each in await runs.list()] == [last]


@pytest.mark.parametrize("ends", [True, False])
async def test_runs_are_kept_as_long_as_the_settings_say(backend: Backend, ends: bool) -> None:
    """After their end, or after the longest time that they could take: then nothing of a run is left."""
    runs = Runs(backend.state, keep_s=0.3)
    run_id = await runs.start(ONE if ends else team(Step(name="a", role="a"), timeout_s=0.2), {})
    if ends:
        async with Workers(backend, echo).working():
            await Driver(backend, runs).drive(run_id)
    async with asyncio.timeout(30):
        while await is_kept(backend, run_id) or await runs.list() or await backend.state.read_log(events_log(run_id)):
            await asyncio.sleep(0.05)


async def is_kept(backend: Backend, run_id: str) -> bool:
    """Whether a run can be read by somebody who does not remember it."""
    try:
        await Runs(backend.state).read(run_id)
    except RunNotFound:
        return False
    return True


async def test_a_start_that_was_cut_off_is_completed_by_the_next_one(backend: Backend) -> None:
    """Its header was written, and nothing else."""
    runs = Runs(backend.state)
    run_id = await runs.start(ONE, {}, run_id="mine")
    await backend.state.delete(summary_key(run_id))
    await runs.active.drop(run_id)
    assert await Runs(backend.state).start(ONE, {}, run_id="mine") == run_id
    assert [each.id for each in await runs.list()] == [run_id]
    assert [each.id async for each in runs.active.all()] == [run_id]


async def test_a_local_run_whose_process_is_gone_can_be_cancelled(backend: Backend) -> None:
    """Nobody else would ever end it."""
    runs = Runs(backend.state)
    run_id = await runs.start(ONE, {}, is_local=True)
    driving = asyncio.create_task(Driver(backend, runs).drive(run_id))
    async with asyncio.timeout(30):
        async for state in runs.follow(run_id):
            if state.steps[0].task_id:
                break
    driving.cancel()
    await asyncio.wait([driving])
    await runs.cancel(run_id, by="ann")
    state = (await runs.read(run_id)).state
    assert (state.phase, state.message, state.steps[0].phase) == (
        Phase.CANCELLED,
        "run cancelled by ann",
        Phase.CANCELLED,
    )
    assert [each.phase for each in await runs.list()] == [Phase.CANCELLED]
    assert [each async for each in runs.active.all()] == []


async def test_bad_ids_are_refused(backend: Backend) -> None:
    """A run's id is part of many names."""
    with pytest.raises(BadInput, match="letters"):
        await Runs(backend.state).start(ONE, {}, run_id="../x\n")
    with pytest.raises(RunNotFound, match="nowhere"):
        await Runs(backend.state).read("nowhere")


async def test_moments_are_those_of_the_work(backend: Backend) -> None:
    """A step ended when its task did."""
    before = time.time()
    async with Workers(backend, echo).working():
        state, _ = await run(backend, ONE)
    assert before <= state.created_at <= state.started_at <= state.steps[0].ended_at <= state.ended_at <= time.time()
