"""A run that is resumed begins with what it remembered when it began, and remembers its work once."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from queue_backends import BackendOptions, Task, open_backend
from tests.dying import Dying
from tests.teams.memory.noting import Noting, marks, role, team
from tests.teams.roles.team_fleet import WITHIN_S, Fleet, calls, fleet, says, worker_settings
from worker.assembly import open_worker
from worker.cli.timeline import timeline
from worker.journal import Recalled, read_journal
from worker.teams.memory.keys import run_key, shared_key
from worker.teams.memory.notebook import Notebook
from worker.teams.memory.work import work_of
from worker.teams.plan import MemorySpec
from worker.teams.run_state import Phase

REDIS = MemorySpec(name="m", backend="redis")


def notebook(state: Any) -> Notebook:
    """What role `a` remembers from run to run."""
    return Notebook(state, shared_key("", "m", "a"), keep_s=600)


async def remember(state: Any, name: str) -> None:
    """Somebody else's work."""
    await notebook(state).keep(work_of(Task(id=name, prompt=f"ask {name}"), marks("other")), f"answer {name}")


async def told(state: Any) -> list[str]:
    """What further work would be told."""
    found = await notebook(state).recall(work_of(Task(id="new", prompt="x"), marks("new")))
    return [message["content"] for message in found.history]


@pytest.mark.parametrize(("at", "when"), [(1, "after"), (2, "after"), (3, "before"), (3, "after")])
async def test_a_worker_dies(model: Noting, at: int, when: Literal["before", "after"]) -> None:
    """Once it remembers, has called a tool, or has answered: the next worker's model calls begin with the conversation
    that the first one's began with, though something was remembered meanwhile; and the work is remembered once."""
    settings = replace(worker_settings(slots=2), backend=BackendOptions(lease_s=0.3, max_deliveries=100))
    plan = team(role("a", REDIS, calls("no_such_tool"), says("done")))
    name = f"memory://memory-{at}-{when}"
    async with (
        await open_backend(name, settings.backend) as backend,
        await open_backend(name, settings.backend) as second,
    ):
        await remember(backend.state, "before")
        there = Fleet(backend)
        run_id = await there.runs.start(plan, {"task": "go"})
        dying = Dying(second, at, when)
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group, open_worker(settings, dying):
            driving = group.create_task(there.drive(run_id))
            await dying.dead.wait()
            asked_by_first = len(model.conversations)
            await remember(backend.state, "meanwhile")
            async with open_worker(settings, backend):
                await asyncio.wait([driving])
        assert driving.result().phase is Phase.SUCCEEDED
        kept = await told(backend.state)
    assert model.conversations[0][:2] == ("user: ask before", "assistant: answer before")
    if asked_by_first:
        assert {each[:3] for each in model.conversations} == {model.conversations[0][:3]}
        assert model.conversations[0][2].startswith("user: task: go")
    assert sorted(kept[1::2]) == ["answer before", "answer meanwhile", "done"]


async def test_a_run_that_remembered_nothing(model: Noting) -> None:
    """Goes on with nothing, once it has answered turns to go on from."""
    settings = replace(worker_settings(slots=2), backend=BackendOptions(lease_s=0.3, max_deliveries=100))
    plan = team(role("a", REDIS, calls("no_such_tool"), says("done")))
    async with (
        await open_backend("memory://memory-none", settings.backend) as backend,
        await open_backend("memory://memory-none", settings.backend) as second,
    ):
        there = Fleet(backend)
        run_id = await there.runs.start(plan, {"task": "go"})
        dying = Dying(second, 1, "after")
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group, open_worker(settings, dying):
            driving = group.create_task(there.drive(run_id))
            await dying.dead.wait()
            await remember(backend.state, "meanwhile")
            async with open_worker(settings, backend):
                await asyncio.wait([driving])
    assert all(each[0].startswith("user: task: go") for each in model.conversations)


async def test_a_failed_attempt(model: Noting) -> None:
    """The next attempt begins with the same; what was remembered stands in the task's journal."""
    fault = {"text": "late", "fault": {"kind": "stream_broken", "attempts": 1}}
    mine = role("a", REDIS, calls("no_such_tool"), fault)
    plan = team(replace(mine, config=replace(mine.config, max_turn_restarts=0)))
    async with fleet() as there:
        await remember(there.backend.state, "before")
        result = await there.task(plan, "a")
        assert result.output == "late", result.error
        moments = await read_journal(there.backend.state, result.task_id)
        entries = [moment.entry for moment in moments]
    assert len(model.conversations) == 3
    assert {each[:2] for each in model.conversations} == {("user: ask before", "assistant: answer before")}
    assert len([entry for entry in entries if isinstance(entry, Recalled)]) == 1
    assert [row[-2] for row in timeline(moments, result) if row[2] == "memory"] == ["2 messages"]


async def test_delegated_tasks_and_questions_about_work(model: Noting) -> None:
    """A delegated task is remembered; a check of an answer neither remembers nor is remembered."""
    async with fleet() as there:
        plan = team(role("a", MemorySpec(name="m")))
        task = await there.marked(plan, "a", "first")
        run_id = task.meta["run_name"]
        for prompt, purpose in (("first", "step"), ("check", "check"), ("second", "subtask")):
            meta = {**task.meta, "team_purpose": purpose}
            task_id = await there.backend.queue.submit(replace(task, prompt=prompt, meta=meta))
            assert not (await there.result(task_id)).error
        kept = await there.backend.state.get(run_key(run_id, "a"))
    assert [len(each) for each in model.conversations] == [1, 1, 3]
    assert kept is not None
    assert b"check" not in kept
