"""Waiting for what will never be there: it is told at once, and nobody waits for himself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from queue_backends import Task
from tests.teams.roles.team_fleet import Fleet, calls, dynamic, fleet, plan_of, says, scripted
from worker.agents import Agent
from worker.definitions import Definitions
from worker.teams import collecting
from worker.teams.collecting import CIRCULAR, NO_TASK
from worker.teams.marks import DEPTH, PARENT, ROLE, RUN
from worker.teams.plan import Plan, Role, Step, Team
from worker.teams.run_state import Phase

LONG = 3600.0
"""Whoever waits for so long, waits for ever: the tests have half a minute."""


@pytest.fixture(autouse=True)
def looks_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wakes who waits for somebody else's task."""
    monkeypatch.setattr(collecting, "LOOK_ELSEWHERE_S", (0.05, 0.05))


async def declare(there: Fleet, name: str, *turns: dict[str, Any]) -> None:
    """An agent with a script, for tasks whose ids the script has to know."""
    settings = {"options": {"script": {"scenarios": [{"turns": list(turns)}]}}}
    async with Definitions(there.backend.state) as declared:
        await declared.agents.create(Agent(slug=name, provider="scripted", model="mock", settings=settings))


def collect(*task_ids: str) -> dict[str, Any]:
    """A turn that waits for tasks."""
    return calls("collect_results", task_ids=list(task_ids), timeout_seconds=LONG)


async def test_an_id_that_a_model_has_made_up() -> None:
    """It is told that there is no such task, and gets the others' results."""
    turns = [calls("collect_results", task_ids=["17-made-up"], timeout_seconds=LONG), says("{last_result}")]
    async with fleet() as there:
        state = await there.run(plan_of(dynamic(Role(name="lead", can_delegate=("lead",), config=scripted(*turns)))))

    assert json.loads(state.output) == {"completed": {"17-made-up": NO_TASK}, "pending": []}


async def test_two_tasks_that_wait_for_each_other() -> None:
    """The second one hears of it, ends, and the first one has its result."""
    async with fleet(slots=1) as there:
        queue = there.backend.queue
        await queue.pause()
        first, second = [await queue.submit(Task(prompt="go", agent=name)) for name in ("first", "second")]
        await declare(there, "first", collect(second), says("first: {last_result}"))
        await declare(there, "second", collect(first), says("second: {last_result}"))
        await queue.resume()
        outputs = [(await there.result(task_id)).output for task_id in (first, second)]

    assert sum(CIRCULAR in output for output in outputs) >= 1
    assert all('"pending":[]' in output for output in outputs)


def crew(parent_tools: list[dict[str, Any]], helper: Role, *teams: Team) -> Plan:
    """A lead that has a helper work."""
    lead = Role(name="lead", can_delegate=(helper.name,), config=scripted(*parent_tools, says("lead: {last_result}")))
    return plan_of(dynamic(lead, helper), *teams)


SPAWN = [calls("spawn_and_collect", tasks=[{"role": "helper", "prompt": "help"}], timeout_seconds=LONG)]


@pytest.mark.parametrize("tenant", ["", "acme"])
async def test_a_child_that_waits_for_its_parent(tenant: str) -> None:
    """Its parent waits for it: it is told so, or that it is none of its business."""
    plan = crew(SPAWN, Role(name="helper", agent="helper"))
    async with fleet(slots=1) as there:
        await there.backend.queue.pause()
        parent = await there.backend.queue.submit(await there.marked(plan, "lead", tenant=tenant))
        await declare(there, "helper", collect(parent), says("helper: {last_result}"))
        await there.backend.queue.resume()
        output = (await there.result(parent)).output

    assert (collecting.NOT_YOURS if tenant else CIRCULAR) in output


async def test_a_task_of_a_team_within_that_waits_for_who_delegated_to_the_team() -> None:
    """The circle goes through a run."""
    inner = Team(
        name="inner", roles=(Role(name="d", agent="d"),), steps=(Step(name="s", role="d"),), wraps_outputs=False
    )
    plan = crew(SPAWN, Role(name="helper", team="inner"), inner)
    async with fleet(slots=1) as there:
        await there.backend.queue.pause()
        run_id = await there.runs.start(plan, {"task": "go"})
        task = asyncio.create_task(there.drive(run_id))
        async for state in there.runs.follow(run_id):
            if parent := state.steps[0].task_id:
                break
        await declare(there, "d", collect(parent), says("d: {last_result}"))
        await there.backend.queue.resume()
        ended = await task

    assert ended.phase is Phase.SUCCEEDED
    assert CIRCULAR in ended.output


async def test_what_another_role_has_collected_is_told_to_the_lead_all_the_same() -> None:
    """Only who was given a result knows it."""
    lead = Role(
        name="lead", can_delegate=("a",), config=scripted(calls("delegate", role="a", prompt="dig"), says("ok"))
    )
    reader = Role(name="b", agent="reader", can_delegate=("a",))
    plan = plan_of(dynamic(lead, Role(name="a", config=scripted(says("dug"))), reader))
    async with fleet() as there:
        task = await there.marked(plan, "lead")
        run_id = task.meta[RUN]
        await there.result(await there.backend.queue.submit(task))
        [child] = (await there.runs.read(run_id)).state.children
        await there.result(child.task_id)
        await declare(there, "reader", collect(child.task_id), says("read {last_result}"))
        meta = {**task.meta, ROLE: "b", DEPTH: "1", PARENT: "1-0"}
        read = await there.result(await there.backend.queue.submit(Task(prompt="read", meta=meta)))
        folding, _ = await there.runs.fold(run_id)

    assert "dug" in read.output
    assert child.task_id not in folding.collected
